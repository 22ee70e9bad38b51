"""What is inside a `.tflite` file: ops, types, MACs and bytes, one row per op."""

import gzip
import re
from dataclasses import replace

from tflite_export.flatbuffer import (
    bad_file,
    constant_bytes,
    dtype_name,
    listed,
    named_ends,
    op_name,
    parse,
    read_bytes,
    shape_of,
    text,
)
from tflite_export.macs import op_macs
from tflite_export.memory import peak_activation_bytes
from tflite_export.tflite_profile import (
    OpRow,
    Signature,
    TensorRow,
    TFLiteProfile,
)
from tflite_export.zeros import kernel_values, stored_tensors

_FLOAT = frozenset({"float16", "bfloat16", "float32", "float64"})
# The part of a fused op's name that stands for its matrix product.
_PRODUCT = re.compile(r"/(convolution|depthwise|MatMul)\d*$")
_NUMBERED = re.compile(r"_\d+$")


def inspect(path) -> TFLiteProfile:
    """Read the ops, tensors and size of a `.tflite` file, without running it.

    MACs are those of one run of the file, so of its whole fixed batch, or of one
    example where the batch is left open. They are counted for convolutions, matrix
    products and recurrent ops and are 0 for every other op. The body of a loop counts
    once. A constant that several ops share counts in the `weight_bytes` of each, and
    once in the total.

    Args:
        path: File name of a `.tflite` file.

    Returns:
        A `TFLiteProfile` with `ops`, `float_ops`, `macs`, `bytes`, `gzip_bytes`,
        `sparsity`, `weight_bytes`, `peak_activation_bytes` (an estimate), `signature`
        and `tensors`; `rows()` of it are dicts, `str()` of it is a table.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not a whole `.tflite` file.

    Example:

    ```python
    profile = tflite_export.inspect("m.tflite")
    print(profile)
    assert not profile.float_ops
    ```
    """
    content = read_bytes(path)
    model = parse(content, path)
    ops, tensors = [], []
    try:
        for index, graph in enumerate(model.subgraphs):
            own_io = index == 0
            stored = stored_tensors(model, graph)
            ops += [
                _op_row(model, graph, op, stored, own_io)
                for op in graph.operators or []
            ]
            tensors += [_tensor_row(model, tensor) for tensor in graph.tensors or []]
        peak = peak_activation_bytes(model, model.subgraphs[0])
        signature = _signature(model)
    # An op of a damaged file may lack the inputs or options that its kind has.
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise bad_file(path, f"an op in it is damaged ({error})") from error
    return TFLiteProfile(
        path=str(path),
        ops=tuple(ops),
        tensors=tuple(tensors),
        bytes=len(content),
        gzip_bytes=len(gzip.compress(content, mtime=0)),
        weight_bytes=_weight_bytes(model),
        peak_activation_bytes=peak,
        signature=signature,
    )


def _op_row(model, graph, operator, stored: dict, own_io: bool) -> OpRow:
    name = op_name(model, operator)
    # By position: an optional input that is left out has the index -1.
    places = [] if operator.inputs is None else list(operator.inputs)
    placed = [None if index == -1 else graph.tensors[index] for index in places]
    inputs = [tensor for tensor in placed if tensor is not None]
    outputs = [graph.tensors[index] for index in listed(operator.outputs)]
    in_types = tuple(map(dtype_name, inputs))
    out_types = tuple(map(dtype_name, outputs))
    at_edge = own_io and (
        (name == "QUANTIZE" and operator.inputs[0] in graph.inputs)
        or (name == "DEQUANTIZE" and operator.outputs[0] in graph.outputs)
    )
    tensor = text(outputs[0].name) if outputs else ""
    macs = op_macs(name, operator, placed, outputs)
    # A model's outputs are named anew by the converter, its kernels are not.
    kernels = [text(t.name) for t in inputs if macs and constant_bytes(model, t)]
    weights, zeros = kernel_values(model, graph, operator, stored) if macs else (0, 0)
    return OpRow(
        name=name,
        input_dtypes=in_types,
        output_dtypes=out_types,
        output_shape=shape_of(outputs[0]) if outputs else (),
        macs=macs,
        kernel_weights=weights,
        kernel_zeros=zeros,
        weight_bytes=sum(constant_bytes(model, tensor) for tensor in inputs),
        tensor=tensor,
        is_float=not at_edge and not _FLOAT.isdisjoint(in_types + out_types),
        layer=next(filter(None, map(layer_name, [tensor, *kernels])), ""),
        **_scales(model, inputs, outputs),
    )


def _scales(model, inputs: list, outputs: list) -> dict:
    constants = [tensor for tensor in inputs if constant_bytes(model, tensor)]
    computed = [tensor for tensor in inputs if not constant_bytes(model, tensor)]
    scale, zero = _quantization(outputs[0]) if outputs else ((), ())
    scaled = filter(None, (_quantization(tensor)[0] for tensor in constants))
    return {
        "input_scales": tuple((_quantization(t)[0] or (None,))[0] for t in computed),
        "output_scale": scale[0] if scale else None,
        "output_zero_point": zero[0] if scale and zero else None,
        "weight_scales": next(scaled, ()),
    }


def _tensor_row(model, tensor) -> TensorRow:
    scale, zero_point = _quantization(tensor)
    return TensorRow(
        name=text(tensor.name),
        dtype=dtype_name(tensor),
        shape=shape_of(tensor),
        constant_bytes=constant_bytes(model, tensor),
        scale=scale,
        zero_point=zero_point,
    )


def _quantization(tensor) -> tuple[tuple[float, ...], tuple[int, ...]]:
    found = tensor.quantization
    if found is None:
        return (), ()
    scale = () if found.scale is None else tuple(map(float, found.scale))
    zero = () if found.zeroPoint is None else tuple(map(int, found.zeroPoint))
    return scale, zero


def _signature(model) -> Signature:
    graph = model.subgraphs[0]

    def rows(kind):
        for name, index in named_ends(model, kind).items():
            tensor = graph.tensors[index]
            sizes = tensor.shapeSignature
            shape = shape_of(tensor) if sizes is None else tuple(map(int, sizes))
            row = _tensor_row(model, tensor)
            yield replace(
                row, name=name, shape=tuple(None if n == -1 else n for n in shape)
            )

    return Signature(tuple(rows("inputs")), tuple(rows("outputs")))


def _weight_bytes(model) -> int:
    tensors = [tensor for graph in model.subgraphs for tensor in graph.tensors or []]
    sizes = {tensor.buffer: constant_bytes(model, tensor) for tensor in tensors}
    return sum(sizes.values())


def layer_name(tensor: str) -> str:
    """The Keras layer that an output's tensor name tells of, "" if it tells of none.

    The name is a path of scopes for each op that was fused into one. Exported files
    hold the second trace of a model, where Keras puts a number after each layer's name.
    """
    parts = tensor.split(";")
    part = next(filter(_PRODUCT.search, parts), parts[0])
    scopes = part.split("/")[:-1]
    numbered = [scope for scope in scopes if _NUMBERED.search(scope)]
    if numbered and numbered[0] == scopes[0]:
        return _NUMBERED.sub("", numbered[-1])
    return scopes[-1] if scopes else ""
