"""`TFLiteProfile`: what a `.tflite` file holds, as rows, totals and a table."""

from collections import Counter
from dataclasses import asdict, dataclass

from tabulate import tabulate

_WIDTH = 118


@dataclass(frozen=True)
class OpRow:
    """One op: `macs` counts the whole batch, `weight_bytes` all its constants.

    `kernel_weights` values are in the kernels of an op that has MACs, biases left out,
    and `kernel_zeros` of them are zero.

    `tensor` is the name of the op's first output and `layer` the Keras layer which that
    name, or else one of its kernel or bias, seems to tell of, "" if none. `is_float` is
    True when the op reads or writes a float tensor, a QUANTIZE of a graph input and a
    DEQUANTIZE to a graph output excepted. Scales are those of quantised tensors:
    `input_scales` one for each computed input, None where it is not quantised;
    `output_scale` and `output_zero_point` of the first output, None likewise;
    `weight_scales` of the first quantised constant, one for each channel or one for
    all, () if there is none.
    """

    name: str
    input_dtypes: tuple[str, ...]
    output_dtypes: tuple[str, ...]
    output_shape: tuple[int, ...]
    macs: int
    weight_bytes: int
    tensor: str
    is_float: bool
    layer: str = ""
    kernel_weights: int = 0
    kernel_zeros: int = 0
    input_scales: tuple[float | None, ...] = ()
    output_scale: float | None = None
    output_zero_point: int | None = None
    weight_scales: tuple[float, ...] = ()


@dataclass(frozen=True)
class TensorRow:
    """One tensor; `scale` and `zero_point` are empty where it is not quantised."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    constant_bytes: int
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs by the names to use; sizes left open are None."""

    inputs: tuple[TensorRow, ...]
    outputs: tuple[TensorRow, ...]

    def __str__(self) -> str:
        ends = [("input", row) for row in self.inputs]
        ends += [("output", row) for row in self.outputs]
        return "\n".join(
            f"{end} {row.name}: {row.dtype} {_shape_text(row.shape)}"
            + (f", scale {row.scale[0]:.4g}" if row.scale else "")
            + (f", zero point {row.zero_point[0]}" if row.scale else "")
            for end, row in ends
        )


@dataclass(frozen=True)
class TFLiteProfile:
    """The ops and tensors of a `.tflite` file, with its size; see `inspect`.

    `weight_bytes` counts every constant once, also where several ops share it.
    `peak_activation_bytes` estimates the memory that computed tensors need at once,
    each living from the op that makes it to the last that reads it, graph inputs and
    outputs included. A runtime's arena differs somewhat: it aligns tensors, may share
    memory between them, and holds scratch space of the kernels.
    """

    path: str
    ops: tuple[OpRow, ...]
    tensors: tuple[TensorRow, ...]
    bytes: int
    gzip_bytes: int
    weight_bytes: int
    peak_activation_bytes: int
    signature: Signature

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run, that is of one batch."""
        return sum(row.macs for row in self.ops)

    @property
    def sparsity(self) -> float:
        """Share of zeros among the values of all kernels, 0 if there is no kernel."""
        weights = sum(row.kernel_weights for row in self.ops)
        return sum(row.kernel_zeros for row in self.ops) / weights if weights else 0.0

    @property
    def float_ops(self) -> tuple[OpRow, ...]:
        """The ops that compute in floating point."""
        return tuple(row for row in self.ops if row.is_float)

    @property
    def op_counts(self) -> Counter[str]:
        """How often each op occurs."""
        return Counter(row.name for row in self.ops)

    def rows(self) -> list[dict]:
        """One dict of plain numbers, strings and lists for each op.

        Example:

        ```python
        pandas.DataFrame(tflite_export.inspect("m.tflite").rows())
        ```
        """
        return [
            {
                key: list(value) if isinstance(value, tuple) else value
                for key, value in asdict(row).items()
            }
            for row in self.ops
        ]

    def __str__(self) -> str:
        header = ["op", "dtype", "output shape", "MACs", "weight bytes", "scale"]
        rows = [_cells(row) for row in self.ops]
        align = ["left"] * 3 + ["right"] * 3
        plain = {"disable_numparse": True}
        # The second line of the table rules off its full width.
        width = len(tabulate(rows, header, **plain).splitlines()[1])
        room = max(_WIDTH - width, 12)
        for cells, row in zip(rows, self.ops, strict=True):
            cells.append(_shortened(row.layer, room))
        table = tabulate(
            rows,
            [*header, "layer"],
            colalign=[*align, "left"] if rows else None,
            **plain,
        )
        return (
            f"{table}\n{self.path}: {len(self.ops)} ops, {len(self.float_ops)} in "
            f"float, {self.macs:,} MACs, {self.bytes:,} bytes "
            f"({self.gzip_bytes:,} gzipped)\n"
            f"weights {self.weight_bytes:,} bytes, {self.sparsity:.1%} of the kernels "
            f"zero, activations about "
            f"{self.peak_activation_bytes:,} bytes at their peak\n{self.signature}"
        )


def _cells(row: OpRow) -> list[str]:
    target = row.output_dtypes[:1]
    changed = target and target[0] not in row.input_dtypes
    dtypes = row.input_dtypes[:1] + target if changed else target
    return [
        row.name,
        ">".join(dtypes),
        _shape_text(row.output_shape),
        f"{row.macs:,}" if row.macs else "",
        f"{row.weight_bytes:,}" if row.weight_bytes else "",
        "" if row.output_scale is None else f"{row.output_scale:.4g}",
    ]


def _shape_text(shape: tuple[int | None, ...]) -> str:
    return "x".join("?" if size is None else str(size) for size in shape) or "scalar"


def _shortened(text: str, room: int) -> str:
    return text if len(text) <= room else f"...{text[3 - room :]}"
