"""What is inside a `.tflite` file: ops, types, MACs and bytes, one row per op."""

import gzip
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from tabulate import tabulate

from tflite_export.flatbuffer import (
    bad_file,
    constant_bytes,
    dtype_name,
    listed,
    op_name,
    parse,
    read_bytes,
    shape_of,
    text,
)

_FLOAT = frozenset({"float16", "bfloat16", "float32", "float64"})


@dataclass(frozen=True)
class OpRow:
    """One op: `macs` counts the whole batch, `weight_bytes` all its constants.

    `tensor` is the name of the op's first output; `is_float` is True when the op
    reads or writes a float tensor, a QUANTIZE of a graph input and a DEQUANTIZE
    to a graph output excepted.
    """

    name: str
    input_dtypes: tuple[str, ...]
    output_dtypes: tuple[str, ...]
    output_shape: tuple[int, ...]
    macs: int
    weight_bytes: int
    tensor: str
    is_float: bool


@dataclass(frozen=True)
class TensorRow:
    """One tensor; `scale` and `zero_point` are empty where it is not quantised."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    constant_bytes: int
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]


@dataclass(frozen=True)
class TFLiteProfile:
    """The ops and tensors of a `.tflite` file, with its size; see `inspect`."""

    path: str
    ops: tuple[OpRow, ...]
    tensors: tuple[TensorRow, ...]
    bytes: int
    gzip_bytes: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run, that is of one batch."""
        return sum(row.macs for row in self.ops)

    @property
    def float_ops(self) -> tuple[OpRow, ...]:
        """The ops that compute in floating point."""
        return tuple(row for row in self.ops if row.is_float)

    @property
    def op_counts(self) -> Counter[str]:
        """How often each op occurs."""
        return Counter(row.name for row in self.ops)

    def __str__(self) -> str:
        header = ("op", "inputs", "outputs", "output shape", "MACs", "weight bytes")
        rows = [
            (
                row.name,
                " ".join(row.input_dtypes),
                " ".join(row.output_dtypes),
                "x".join(map(str, row.output_shape)),
                f"{row.macs:,}",
                f"{row.weight_bytes:,}",
            )
            for row in self.ops
        ]
        align = ("left",) * 4 + ("right",) * 2
        table = tabulate(rows, header, colalign=align if rows else None)
        return (
            f"{table}\n{self.path}: {len(self.ops)} ops, {len(self.float_ops)} in "
            f"float, {self.macs:,} MACs, {self.bytes:,} bytes "
            f"({self.gzip_bytes:,} gzipped)"
        )


def inspect(path) -> TFLiteProfile:
    """Read the ops, tensors and size of a `.tflite` file, without running it.

    MACs are those of one run of the file, so of its whole fixed batch. They are
    counted for convolutions and matrix products and are 0 for every other op. The
    body of a loop counts once. A constant that several ops share counts in the
    `weight_bytes` of each.

    Args:
        path: File name of a `.tflite` file.

    Returns:
        A `TFLiteProfile` with `ops`, `float_ops`, `macs`, `bytes`, `gzip_bytes` and
        `tensors`; `str()` of it is a table.

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
            ops += [_op_row(model, graph, op, own_io) for op in graph.operators or []]
            tensors += [_tensor_row(model, tensor) for tensor in graph.tensors or []]
    # An op of a damaged file may lack the inputs or options that its kind has.
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise bad_file(path, f"an op in it is damaged ({error})") from error
    zipped = len(gzip.compress(content, mtime=0))
    return TFLiteProfile(str(path), tuple(ops), tuple(tensors), len(content), zipped)


def _op_row(model, graph, operator, own_io: bool) -> OpRow:
    name = op_name(model, operator)
    inputs = [graph.tensors[index] for index in listed(operator.inputs)]
    outputs = [graph.tensors[index] for index in listed(operator.outputs)]
    in_types = tuple(map(dtype_name, inputs))
    out_types = tuple(map(dtype_name, outputs))
    at_edge = own_io and (
        (name == "QUANTIZE" and operator.inputs[0] in graph.inputs)
        or (name == "DEQUANTIZE" and operator.outputs[0] in graph.outputs)
    )
    count = _MACS.get(name)
    return OpRow(
        name=name,
        input_dtypes=in_types,
        output_dtypes=out_types,
        output_shape=shape_of(outputs[0]) if outputs else (),
        macs=count(operator, inputs, outputs) if count else 0,
        weight_bytes=sum(constant_bytes(model, tensor) for tensor in inputs),
        tensor=text(outputs[0].name) if outputs else "",
        is_float=not at_edge and not _FLOAT.isdisjoint(in_types + out_types),
    )


def _tensor_row(model, tensor) -> TensorRow:
    found = tensor.quantization
    scale = found.scale if found is not None and found.scale is not None else ()
    zero = found.zeroPoint if found is not None and found.zeroPoint is not None else ()
    return TensorRow(
        name=text(tensor.name),
        dtype=dtype_name(tensor),
        shape=shape_of(tensor),
        constant_bytes=constant_bytes(model, tensor),
        scale=tuple(map(float, scale)),
        zero_point=tuple(map(int, zero)),
    )


def _per_output(*axes: int) -> Callable[..., int]:
    """MACs of an op whose every output sums over these axes of its weights."""

    def count(operator, inputs, outputs):
        weights = shape_of(inputs[1])
        window = math.prod(weights[axis] for axis in axes)
        return math.prod(shape_of(outputs[0])) * window

    return count


def _transpose_conv(operator, inputs, outputs) -> int:
    # Every input value is spread over a window of every output channel.
    return math.prod(shape_of(inputs[2])) * math.prod(shape_of(inputs[1])[:-1])


def _batch_matmul(operator, inputs, outputs) -> int:
    axis = -2 if operator.builtinOptions.adjX else -1
    return math.prod(shape_of(outputs[0])) * shape_of(inputs[0])[axis]


# Weights: CONV_2D (out, h, w, in / groups), DEPTHWISE_CONV_2D (1, h, w, out),
# FULLY_CONNECTED (out, in), TRANSPOSE_CONV (out, h, w, in), CONV_3D (d, h, w, in, out).
_MACS: dict[str, Callable[..., int]] = {
    "CONV_2D": _per_output(1, 2, 3),
    "DEPTHWISE_CONV_2D": _per_output(1, 2),
    "FULLY_CONNECTED": _per_output(1),
    "CONV_3D": _per_output(0, 1, 2, 3),
    "TRANSPOSE_CONV": _transpose_conv,
    "BATCH_MATMUL": _batch_matmul,
}
