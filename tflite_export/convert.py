"""`export`: from a Keras model to a checked `.tflite` file."""

import contextlib
import os
import uuid
from collections import Counter
from dataclasses import dataclass

from tabulate import tabulate

from tflite_export.checks import (
    check_model,
    check_options,
    check_recurrent,
    checked_path,
    layers_within,
)
from tflite_export.converter import convert
from tflite_export.inspect import OpRow, TFLiteProfile, inspect
from tflite_export.keras_call import flat_inputs
from tflite_export.representative import read_examples
from tflite_export.runtime import load_failure


@dataclass(frozen=True)
class ExportResult:
    """What was written: sizes in bytes, how often each op occurs, the float ones."""

    path: str
    bytes: int
    gzip_bytes: int
    ops: Counter[str]
    float_ops: Counter[str]

    def __str__(self) -> str:
        rows = [
            (name, count, self.float_ops[name] or "")
            for name, count in sorted(self.ops.items())
        ]
        table = tabulate(rows, ("op", "count", "in float"))
        return (
            f"{self.path}: {self.bytes:,} bytes ({self.gzip_bytes:,} gzipped)\n{table}"
        )


def export(
    model,
    path,
    *,
    quantization: str = "int8",
    representative_data=None,
    input_dtype: str = "float32",
    output_dtype: str = "float32",
    batch_size: int = 1,
    allow_float_ops: bool = False,
) -> ExportResult:
    """Convert a Keras model to a `.tflite` file that was loaded and run once.

    The file appears, or replaces an older one, only when everything went well. The
    model is not changed; one in half precision is exported through a float32 clone.
    The same model and data give the same bytes.

    Args:
        model: A built `keras.Model` whose input shapes are fixed but for the batch.
        path: File name ending in `.tflite`, in an existing folder.
        quantization: "int8" for post-training quantisation, "none" for float32.
        representative_data: Examples as the model takes them in training, needed for
            "int8" and not read for "none": an array of shape (examples, ...), a
            batched `tf.data.Dataset` of `x` or `(x, y)`, for several inputs a list or
            a dict (by input name) of arrays. At most 300 examples are read.
        input_dtype: Type of the file's inputs, "float32", "int8" or "uint8". The
            last two only with "int8", they save the conversion on the device.
        output_dtype: Type of the file's outputs, likewise.
        batch_size: The fixed number of examples per run of the file.
        allow_float_ops: Accept an int8 file that computes in float in places.

    Returns:
        An `ExportResult`; `str()` of it is a table. The file's inputs are named like
        the model's, several outputs like `model.output_names`.

    Raises:
        OSError: If the file cannot be written.
        ValueError: If an argument is wrong, the model cannot be converted, int8 ops
            are left in float, or the new file cannot be loaded and run.

    Example:

    ```python
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    x = np.random.default_rng(0).normal(size=(100, 4))
    print(tflite_export.export(model, "m.tflite", representative_data=x))
    ```
    """
    check_options(quantization, input_dtype, output_dtype, batch_size)
    target = checked_path(path)
    check_model(model, batch_size, input_dtype, output_dtype)
    examples = None
    if quantization == "int8":
        check_recurrent(model)
        examples = read_examples(representative_data, flat_inputs(model))
    content = convert(model, batch_size, examples, input_dtype, output_dtype)
    with _new_file(target, content) as written:
        profile = inspect(written)
        _refuse_custom_ops(profile)
        if examples is not None and not allow_float_ops:
            _refuse_float_ops(model, profile)
        failure = load_failure(written)
        if failure:
            raise ValueError(
                f"The file made from model {model.name!r} cannot be loaded and run by "
                f"LiteRT, so it was not written: {failure}. An activation that is "
                "zero on all representative data is a known cause: check the data "
                "and the model's weights."
            )
        os.replace(written, target)
    return ExportResult(
        path=str(path),
        bytes=profile.bytes,
        gzip_bytes=profile.gzip_bytes,
        ops=profile.op_counts,
        float_ops=Counter(row.name for row in profile.float_ops),
    )


@contextlib.contextmanager
def _new_file(target: str, content: bytes):
    """A file beside the target, removed at the end unless it was moved."""
    written = f"{target.removesuffix('.tflite')}.{uuid.uuid4().hex}.tflite"
    try:
        with open(written, "xb") as file:
            file.write(content)
        yield written
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(written)


def _refuse_custom_ops(profile: TFLiteProfile) -> None:
    custom = sorted(
        n for n in profile.op_counts if n.startswith(("CUSTOM", "STABLEHLO"))
    )
    if custom:
        raise ValueError(
            "The model must convert to LiteRT's built-in ops; replace the layers "
            f"behind these. Received: {', '.join(custom)}"
        )


def _refuse_float_ops(model, profile: TFLiteProfile) -> None:
    edges = ("QUANTIZE", "DEQUANTIZE")
    inner = [row for row in profile.float_ops if row.name not in edges]
    found = inner or list(profile.float_ops)
    if not found:
        return
    names = {layer.name for layer in layers_within(model)}
    listed = Counter(f"{row.name} ({_layer_of(row, names)})" for row in found)
    ops = ", ".join(
        name if count == 1 else f"{count} x {name}" for name, count in listed.items()
    )
    raise ValueError(
        "The int8 file would compute in float in places, by op (layer). Replace those "
        f"layers or pass allow_float_ops=True. Received: {ops}"
    )


def _layer_of(row: OpRow, names: set[str]) -> str:
    """The layer whose name scope the op's output carries, else the tensor's name."""
    for scope in reversed(row.tensor.split(";")[0].split("/")):
        # Scopes of a second trace end in _1, so that spelling is tried first.
        stem, _, number = scope.rpartition("_")
        if number.isdigit() and stem in names:
            return stem
        if scope in names:
            return scope
    return row.tensor
