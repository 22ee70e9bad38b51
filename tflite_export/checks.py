"""What `export` refuses before it converts anything."""

import os
import re
from collections.abc import Iterator

_QUANTIZATIONS = ("none", "int8")
_INPUT_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.-]*")
_DTYPES = ("float32", "int8", "uint8")


def check_options(quantization, input_dtype, output_dtype, batch_size) -> None:
    """ValueError unless the options are known and fit each other."""
    _one_of("quantization", quantization, _QUANTIZATIONS)
    for name, dtype in (("input_dtype", input_dtype), ("output_dtype", output_dtype)):
        _one_of(name, dtype, _DTYPES)
        if quantization == "none" and dtype != "float32":
            raise ValueError(
                f'`{name}` must be "float32" when quantization="none". Use '
                f'quantization="int8". Received: {name}={dtype!r}'
            )
    whole = isinstance(batch_size, int) and not isinstance(batch_size, bool)
    if not whole or batch_size < 1:
        raise ValueError(
            "`batch_size` must be a positive int, the fixed batch of the file. "
            f"Received: batch_size={batch_size!r}"
        )


def _one_of(name: str, value, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(
            f"`{name}` must be one of {', '.join(map(repr, known))}. "
            f"Received: {name}={value!r}"
        )


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


def check_model(model, batch_size: int, input_dtype: str, output_dtype: str) -> None:
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
    if not model.built or not getattr(model, "inputs", None):
        raise ValueError(
            "`model` must be built and know its inputs. Call it on a keras.Input: "
            "`x = keras.Input(shape); model = keras.Model(x, model(x))`. Received: "
            f"{type(model).__name__} {model.name!r}"
        )
    for tensor in model.inputs:
        if not _INPUT_NAME.fullmatch(tensor.name):
            raise ValueError(
                "The model's inputs must have names of ASCII letters, digits, '.', '-' "
                "and '_' that do not start with '_': `x = keras.Input(shape, "
                'name="image"); model = keras.Model(x, model(x))`. Received: '
                f"{tensor.name!r}"
            )
        if None in tensor.shape[1:] or tensor.shape[0] not in (None, batch_size):
            raise ValueError(
                "Every size of the model's inputs must be fixed, and a fixed batch "
                f"must equal `batch_size` ({batch_size}). Build the model for one "
                f"shape. Received: input {tensor.name!r} of shape {tensor.shape}"
            )
    ends = (
        ("input", model.inputs, input_dtype),
        ("output", model.outputs, output_dtype),
    )
    for kind, tensors, dtype in ends:
        for tensor in tensors:
            if dtype != "float32" and "float" not in tensor.dtype:
                raise ValueError(
                    f'`{kind}_dtype` must be "float32" (unchanged) for a model with '
                    f"an {kind} that is not float. Received: {kind}_dtype={dtype!r}, "
                    f"{kind} {tensor.name!r} is {tensor.dtype}"
                )


def check_recurrent(model) -> None:
    """ValueError for rolled recurrent layers, which crash the int8 converter."""
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
            "int8 conversion takes recurrent layers only when they are unrolled: "
            "build them with `unroll=True` and a fixed number of time steps, and "
            f"carry the weights over. Received: {', '.join(rolled)}"
        )


def layers_within(layer) -> Iterator:
    """The layer and every layer it holds, at any depth, each once."""
    import keras

    seen, pending = set(), [layer]
    while pending:
        item = pending.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, keras.layers.Layer):
            yield item
            pending.extend(vars(item).values())
        elif isinstance(item, dict):
            pending.extend(item.values())
        elif isinstance(item, (list, tuple)):
            pending.extend(item)
