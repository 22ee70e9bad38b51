"""What `export` refuses before it converts anything."""

import os
import re

from tflite_export.conversion.saved_model import TracedGraph
from tflite_export.conversion.settings import Settings
from tflite_export.keras_call import flat_inputs, has_inputs, layers_within

_INPUT_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.-]*")


def checked_path(path) -> str:
    """The real path of the file to write; ValueError or OSError if it cannot be."""
    if not isinstance(path, (str, os.PathLike)) or not str(path).endswith(".tflite"):
        raise ValueError(
            f"`path` must be a file name that ends in .tflite. Received: path={path!r}"
        )
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    if os.path.isdir(target):
        raise IsADirectoryError(
            f"`path` must be a file, not a folder. Received: path={path}"
        )
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f"The folder of `path` must exist; create it first. Received: path={path}"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(
            f"The folder of `path` must be writable. Received: path={path}"
        )
    return target


def check_model(model, settings: Settings) -> None:
    """ValueError unless it is a built model with inputs that can be fixed."""
    import keras

    if keras.config.backend() != "tensorflow":
        raise ValueError(
            "`export` needs Keras on its TensorFlow backend. Received: "
            f"backend={keras.config.backend()!r}"
        )
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"`model` must be a keras.Model. Received: model={type(model).__name__}"
        )
    if not has_inputs(model):
        raise ValueError(
            "`model` must be built. Call it once on an example of its input, or on a "
            "keras.Input: `x = keras.Input(shape); model = keras.Model(x, model(x))`. "
            f"Received: {type(model).__name__} {model.name!r}"
        )
    for tensor in flat_inputs(model):
        _check_input(tensor, settings)
    if settings.integer:
        _check_recurrent(model, settings)


def _check_input(tensor, settings: Settings) -> None:
    if not _INPUT_NAME.fullmatch(tensor.name):
        raise ValueError(
            "The model's inputs must have names of ASCII letters, digits, '.', '-' "
            "and '_' that do not start with '_': `x = keras.Input(shape, "
            'name="image"); model = keras.Model(x, model(x))`. Received: '
            f"{tensor.name!r}"
        )
    batch = settings.batch_size
    if None in tensor.shape[1:] or tensor.shape[0] not in (None, batch):
        raise ValueError(
            "Every size of the model's inputs must be fixed, and a fixed batch must "
            f"equal `batch_size` ({batch}). Build the model for one shape. Received: "
            f"input {tensor.name!r} of shape {tensor.shape}"
        )
    if settings.input_dtype != "float32" and "float" not in tensor.dtype:
        _refuse_dtype("input", settings.input_dtype, tensor.name, tensor.dtype)


def check_graph(graph: TracedGraph, settings: Settings) -> None:
    """ValueError for settings that do not fit the model's ranges or outputs."""
    if graph.has_ranges and settings.quantization not in ("int8", "none"):
        raise ValueError(
            "A model with fake-quant ops brings the ranges of an int8 file: "
            '`quantization` must be "int8", or "none" for a float file that rounds the '
            f"same way. Received: quantization={settings.quantization!r}"
        )
    for name, dtype in graph.output_dtypes.items():
        if settings.output_dtype != "float32" and "float" not in dtype:
            _refuse_dtype("output", settings.output_dtype, name, dtype)


def _refuse_dtype(kind: str, asked: str, name: str, dtype: str) -> None:
    raise ValueError(
        f'`{kind}_dtype` must be "float32" (unchanged) for a model with an {kind} that '
        f"is not float. Received: {kind}_dtype={asked!r}, {kind} {name!r} is {dtype}"
    )


def _check_recurrent(model, settings: Settings) -> None:
    """ValueError for rolled recurrent layers, which crash the integer converter."""
    import keras

    rolled = sorted(
        {
            f"{layer.name} ({type(layer).__name__})"
            for layer in layers_within(model)
            if isinstance(layer, keras.layers.RNN) and not layer.unroll
        }
    )
    if rolled:
        raise ValueError(
            f"{settings.quantization} takes recurrent layers only when they are "
            "unrolled: build them with `unroll=True` and a fixed number of time steps "
            'and carry the weights over, or use quantization="dynamic". Received: '
            f"{', '.join(rolled)}"
        )
