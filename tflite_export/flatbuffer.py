"""Read a `.tflite` flatbuffer and check that its parts fit together."""

import math
import os
from functools import cache

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

_IDENTIFIER = b"TFL3"
_ITEM_BITS = {
    "int2": 2,
    "int4": 4,
    **dict.fromkeys(("bool", "int8", "uint8"), 8),
    **dict.fromkeys(("int16", "uint16", "float16", "bfloat16"), 16),
    **dict.fromkeys(("int32", "uint32", "float32"), 32),
    **dict.fromkeys(("int64", "uint64", "float64", "complex64"), 64),
    "complex128": 128,
}
_FIX = (
    "Give a `.tflite` file written by `tflite_export.export` or another LiteRT "
    "converter; if it was copied or downloaded, fetch it again."
)


def bad_file(path, reason: str) -> ValueError:
    """The error for a file that cannot be used, saying how to fix it."""
    return ValueError(
        f"`path` must be a valid .tflite file: {reason}. {_FIX} Received: path={path}"
    )


def read_bytes(path) -> bytes:
    """The bytes of the file `path`; OSError when there is no such file."""
    if not isinstance(path, (str, os.PathLike)):
        raise ValueError(
            f"`path` must be a file name (str or os.PathLike). Received: path={path!r}"
        )
    if not os.path.exists(path):
        raise FileNotFoundError(
            f"`path` must name an existing .tflite file. Received: path={path}"
        )
    if not os.path.isfile(path):
        raise IsADirectoryError(
            f"`path` must be a .tflite file, not a folder. Received: path={path}"
        )
    with open(path, "rb") as file:
        return file.read()


def read_model(path):
    """Parse a `.tflite` file and check every index and buffer size in it.

    Args:
        path: File name of a `.tflite` file.

    Returns:
        A `ModelT` object of the LiteRT schema.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the file is not a whole and consistent `.tflite` file.
    """
    return parse(read_bytes(path), path)


def parse(content: bytes, path):
    """Like `read_model`, for bytes in memory; `path` is for the error text."""
    if len(content) < 8 or content[4:8] != _IDENTIFIER:
        raise bad_file(path, f"the identifier {_IDENTIFIER.decode()} is missing")
    try:
        model = flatbuffer_utils.read_model_from_bytearray(content)
        _check(model)
    # The generated reader raises whatever the damaged bytes lead it into.
    except Exception as error:
        reason = f"it is damaged or truncated ({type(error).__name__}: {error})"
        raise bad_file(path, reason) from error
    return model


def dtype_name(tensor) -> str:
    """The tensor's type in NumPy's spelling, such as "int8" or "float32"."""
    return flatbuffer_utils.type_to_name(tensor.type).lower()


@cache
def _builtin_names() -> dict[int, str]:
    return {v: k for k, v in vars(schema.BuiltinOperator).items() if k.isupper()}


def op_name(model, operator) -> str:
    """The op's name, such as "CONV_2D"; "CUSTOM:<name>" for a custom op."""
    code = model.operatorCodes[operator.opcodeIndex]
    value = flatbuffer_utils.get_builtin_code_from_operator_code(code)
    if value == schema.BuiltinOperator.CUSTOM:
        return f"CUSTOM:{text(code.customCode)}"
    return _builtin_names()[value]


def text(value) -> str:
    """A flatbuffer string as `str`."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""


def shape_of(tensor) -> tuple[int, ...]:
    """The tensor's shape; () for a scalar."""
    return () if tensor.shape is None else tuple(int(size) for size in tensor.shape)


def listed(indices) -> list[int]:
    """The op's tensor indices without those of optional inputs left out (-1)."""
    return [] if indices is None else [int(index) for index in indices if index != -1]


def constant_bytes(model, tensor) -> int:
    """Bytes of the constant that the tensor holds; 0 if it is computed."""
    data = model.buffers[tensor.buffer].data
    return 0 if data is None else len(data)


def tensor_bytes(tensor) -> int:
    """Bytes of all the tensor's values; 0 for types without a fixed size."""
    bits = _ITEM_BITS.get(dtype_name(tensor), 0)
    return (math.prod(shape_of(tensor)) * bits + 7) // 8


def named_ends(model, kind: str) -> dict[str, int]:
    """Tensor index of each input or output by its signature name, in graph order.

    Args:
        model: A parsed file.
        kind: "inputs" or "outputs" of the main graph.
    """
    graph = model.subgraphs[0]
    signatures = [s for s in model.signatureDefs or [] if s.subgraphIndex == 0]
    entries = getattr(signatures[0], kind) if signatures else None
    found = {}
    for index in listed(getattr(graph, kind)):
        # One tensor may be several outputs.
        names = [text(e.name) for e in entries or [] if e.tensorIndex == index]
        names = names or [text(graph.tensors[index].name)]
        found.update(dict.fromkeys(names, index))
    return found


def _check(model) -> None:
    if not model.subgraphs or not model.buffers or not model.operatorCodes:
        raise ValueError("no graph, buffer or op in it")
    for graph in model.subgraphs:
        tensors = graph.tensors or []
        for tensor in tensors:
            _check_tensor(model, tensor)
        used = listed(graph.inputs) + listed(graph.outputs)
        for operator in graph.operators or []:
            op_name(model, operator)
            used += listed(operator.inputs) + listed(operator.outputs)
        if any(not 0 <= index < len(tensors) for index in used):
            raise ValueError("an op names a tensor that does not exist")
    main = model.subgraphs[0]
    if not listed(main.inputs) or not listed(main.outputs):
        raise ValueError("the graph has no input or no output")


def _check_tensor(model, tensor) -> None:
    if not 0 <= tensor.buffer < len(model.buffers):
        raise ValueError("a tensor names a buffer that does not exist")
    shape = shape_of(tensor)
    if any(size < 0 for size in shape):
        raise ValueError(f"a tensor has shape {shape}")
    size = constant_bytes(model, tensor)
    # Constants narrower than a byte are packed in more than one way.
    whole = _ITEM_BITS.get(dtype_name(tensor), 0) >= 8
    if size and whole and tensor.sparsity is None and size != tensor_bytes(tensor):
        raise ValueError(
            f"a constant has {size} bytes, its shape asks {tensor_bytes(tensor)}"
        )
