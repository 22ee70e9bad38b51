"""`export`: from a Keras model to a checked `.tflite` file."""

import contextlib
import os
import uuid
import warnings
from collections import Counter

import numpy as np

from tflite_export.compare import compare
from tflite_export.conversion.checks import check_model, checked_path
from tflite_export.conversion.refusals import refuse_custom_ops, refuse_float_ops
from tflite_export.conversion.representative import read_examples
from tflite_export.conversion.settings import Settings
from tflite_export.conversion.working_file import write_working_file
from tflite_export.inspect import inspect
from tflite_export.keras_call import flat_inputs
from tflite_export.metadata import ImageMetadata
from tflite_export.result import ExportResult, dead_text

_COMPARED = 100


def export(
    model,
    path,
    *,
    quantization: str = "int8",
    representative_data=None,
    input_dtype: str = "float32",
    output_dtype: str = "float32",
    batch_size: int | None = 1,
    metadata: ImageMetadata | None = None,
    allow_float_ops: bool = False,
) -> ExportResult:
    """Convert a Keras model to a `.tflite` file that was loaded and run.

    The file appears, or replaces an older one, only when everything went well. The
    model is not changed; one in half precision is exported through a float32 clone.
    The same model and data give the same bytes.

    Args:
        model: A built `keras.Model` whose input shapes are fixed but for the batch.
        path: File name ending in `.tflite`, in an existing folder.
        quantization: "int8" (weights and activations), "int16x8" (int8 weights, int16
            activations), "dynamic" (int8 weights, float activations), "float16"
            (float16 weights, float activations) or "none" (float32).
        representative_data: Examples as the model takes them, needed for "int8" and
            "int16x8" unless the model is quantization-aware (has fake-quant ops): an
            array of shape (examples, ...), for several inputs a list or a dict (by
            input name) of arrays, or a `tf.data.Dataset` or iterable of such `x` or
            `(x, y)`, in batches or one by one. At most 300 examples are read, and the
            file is compared with the model on at most 100 of them.
        input_dtype: Type of the file's inputs: "float32", or to save the conversion
            on the device "int8" or "uint8" with "int8", "int16" with "int16x8".
        output_dtype: Type of the file's outputs, likewise.
        batch_size: The fixed number of examples per run of the file; None for a file
            that takes any number, which microcontrollers and some delegates do not.
        metadata: Labels and normalisation for MediaPipe, see `ImageMetadata`.
        allow_float_ops: Accept an integer file that computes in float in places.

    Returns:
        An `ExportResult`; `str()` of it is a table. The file's inputs are named and
        ordered like the model's, several outputs named like `model.output_names`.

    Raises:
        OSError: If the file cannot be written.
        ValueError: If an argument is wrong, the model cannot be converted, int8 ops
            are left in float, or the new file cannot be loaded and run.

    Warns:
        UserWarning: If an activation is zero on all representative data.

    Example:

    ```python
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    x = np.random.default_rng(0).normal(size=(100, 4))
    print(tflite_export.export(model, "m.tflite", representative_data=x))
    ```
    """
    settings = Settings(quantization, input_dtype, output_dtype, batch_size)
    target = checked_path(path)
    check_model(model, settings)
    examples = None
    if representative_data is not None:
        examples = read_examples(representative_data, flat_inputs(model))
    with _new_file(target) as written:
        dead = write_working_file(model, settings, examples, metadata, written)
        profile = inspect(written)
        refuse_custom_ops(profile)
        if settings.integer and not allow_float_ops:
            refuse_float_ops(model, quantization, profile)
        agreement = None
        if examples is not None:
            agreement = compare(model, written, _some(examples))
        os.replace(written, target)
    if dead:
        warnings.warn(
            f"{dead_text(dead)} Their ranges in {path} are a guess; if they are not "
            "dead on real data, export with data on which they are not.",
            stacklevel=2,
        )
    return ExportResult(
        path=str(path),
        bytes=profile.bytes,
        gzip_bytes=profile.gzip_bytes,
        ops=profile.op_counts,
        float_ops=Counter(row.name for row in profile.float_ops),
        dead_layers=dead,
        agreement=agreement,
    )


@contextlib.contextmanager
def _new_file(target: str):
    """A file name beside the target; what is there at the end is removed."""
    written = f"{target.removesuffix('.tflite')}.{uuid.uuid4().hex}.tflite"
    try:
        yield written
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(written)


def _some(examples: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    total = len(next(iter(examples.values())))
    rows = np.linspace(0, total - 1, min(total, _COMPARED)).astype(int)
    return {name: array[rows] for name, array in examples.items()}
