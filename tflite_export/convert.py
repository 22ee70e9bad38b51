"""`export`: from a Keras model to a checked `.tflite` file."""

import contextlib
import os
import tempfile
import uuid
import warnings
from collections import Counter
from dataclasses import dataclass

from tabulate import tabulate

from tflite_export.checks import check_graph, check_model, checked_path
from tflite_export.compare import Agreement, compare
from tflite_export.inspect import inspect
from tflite_export.isolation import convert_safely
from tflite_export.keras_call import flat_inputs
from tflite_export.quiet import quiet
from tflite_export.ranges import dead_tensors
from tflite_export.refusals import layer_names, refuse_custom_ops, refuse_float_ops
from tflite_export.representative import read_examples
from tflite_export.runtime import load_failure
from tflite_export.saved_model import TracedGraph, trace
from tflite_export.settings import Settings


@dataclass(frozen=True)
class ExportResult:
    """What was written: sizes in bytes, how often each op occurs, the float ones.

    `dead_layers` are those whose outputs were zero on all representative data; their
    ranges were widened so that the kernels take the file. `agreement` compares the
    file with the model on the representative data, None if there was none.
    """

    path: str
    bytes: int
    gzip_bytes: int
    ops: Counter[str]
    float_ops: Counter[str]
    dead_layers: tuple[str, ...] = ()
    agreement: Agreement | None = None

    def __str__(self) -> str:
        rows = [
            (name, count, self.float_ops[name] or "")
            for name, count in sorted(self.ops.items())
        ]
        table = tabulate(rows, ("op", "count", "in float"))
        lines = [f"{self.path}: {self.bytes:,} bytes ({self.gzip_bytes:,} gzipped)"]
        if self.dead_layers:
            lines.append(_dead_text(self.dead_layers))
        if self.agreement is not None:
            lines.append(f"representative data: {self.agreement}")
        return "\n".join([*lines, table])


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
    settings = Settings(quantization, input_dtype, output_dtype, batch_size)
    target = checked_path(path)
    check_model(model, settings)
    examples = None
    if representative_data is not None:
        examples = read_examples(representative_data, flat_inputs(model))
    with tempfile.TemporaryDirectory() as folder, _new_file(target) as written:
        graph = _traced(model, settings, folder)
        dead = _write_working_file(model, graph, settings, examples, written)
        profile = inspect(written)
        refuse_custom_ops(profile)
        if settings.integer and not allow_float_ops:
            refuse_float_ops(model, quantization, profile)
        agreement = None if examples is None else compare(model, written, examples)
        os.replace(written, target)
    if dead:
        warnings.warn(
            f"{_dead_text(dead)} Their ranges in {path} are a guess; if they are not "
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


def _traced(model, settings: Settings, folder: str) -> TracedGraph:
    with quiet():
        try:
            graph = trace(model, settings.batch_size, folder)
        # A user's own layer may raise anything.
        except Exception as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise ValueError(
                f"Model {model.name!r} cannot be traced on its inputs "
                f"{[(t.name, t.shape, t.dtype) for t in flat_inputs(model)]}. If it "
                "takes others, wrap it: `x = keras.Input(shape, dtype=...); "
                f"model = keras.Model(x, model(x))`. Received: {reason}"
            ) from error
    check_graph(graph, settings)
    return graph


def _write_working_file(model, graph, settings: Settings, examples, written) -> tuple:
    """Convert, and widen ranges if need be; return the layers that were dead."""
    calibrated = settings.integer and not graph.has_ranges
    if calibrated and examples is None:
        raise ValueError(
            "`representative_data` is needed for "
            f"quantization={settings.quantization!r}: it gives the activations their "
            "ranges. Give some hundred typical examples, such as x_train[:300]. "
            "Received: None"
        )
    dead: tuple[str, ...] = ()
    floors = (False, True) if calibrated else (False,)
    for floor_ranges in floors:
        try:
            content = convert_safely(
                graph, settings, examples, floor_ranges=floor_ranges
            )
        except ValueError as error:
            raise ValueError(
                f"Model {model.name!r} cannot be converted: {error}"
            ) from error
        with open(written, "wb") as file:
            file.write(content)
        if not floor_ranges:
            dead = tuple(dict.fromkeys(layer_names(model, dead_tensors(content))))
            if dead and calibrated:
                continue
        failure = load_failure(written)
        if not failure:
            return dead
    hint = f" {_dead_text(dead)} Check the data and the weights." if dead else ""
    raise ValueError(
        f"The file made from model {model.name!r} cannot be loaded and run by LiteRT, "
        f"so it was not written: {failure}.{hint}"
    )


def _dead_text(layers: tuple[str, ...]) -> str:
    return (
        "The outputs of these layers are zero on all representative data: "
        f"{', '.join(layers)}."
    )
