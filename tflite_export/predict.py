"""Run a `.tflite` file on arrays of real numbers."""

import numpy as np

from tflite_export.check_file import has_open_batch, resize_batch
from tflite_export.runtime import LoadedFile, load

_OPEN_BATCH = 32


def predict(path, x, *, kernels: str = "xnnpack") -> np.ndarray | dict[str, np.ndarray]:
    """Run a `.tflite` file on any number of examples.

    The examples go through in batches of the file's fixed batch size, or of 32 where
    the file leaves the batch open; the last fixed batch is filled with zeros and the
    surplus cut. Where the file takes int8, uint8 or int16, `x` is still given in real
    numbers and is quantised with the input's scale; quantised outputs are de-quantised
    to float32.

    Args:
        path: File name of a `.tflite` file.
        x: Real numbers as the Keras model takes them, shape (examples, ...). For a
            file with several inputs a dict by input name, or a list in the order of
            the model's inputs.
        kernels: "xnnpack" for LiteRT's default, "builtin" for its own optimised
            kernels without that delegate, "reference" for the plain ones, slow and
            meant for checks.

    Returns:
        An array of shape (examples, ...), float32 where the output is quantised. For
        a file with several outputs a dict by output name.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the file cannot be run or `x` does not fit its inputs.

    Example:

    ```python
    scores = tflite_export.predict("m.tflite", x_test)
    accuracy = (scores.argmax(-1) == y_test).mean()
    ```
    """
    loaded = load(path, kernels=kernels)
    outputs = run_batches(loaded, checked_inputs(loaded, x))
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs


def checked_inputs(loaded: LoadedFile, x) -> dict[str, np.ndarray]:
    """The arrays of `x` by input name; ValueError unless they fit the file's inputs."""
    names = list(loaded.inputs)
    if isinstance(x, (list, tuple)) and len(names) > 1 and len(x) == len(names):
        x = dict(zip(names, x, strict=True))
    if not isinstance(x, dict) and len(names) == 1:
        x = {names[0]: x}
    if not isinstance(x, dict) or set(x) != set(names):
        got = sorted(map(str, x)) if isinstance(x, dict) else type(x).__name__
        raise ValueError(
            f"`x` must hold one array for each input of the file, {names}, as a dict "
            f"or a list in that order. Received: {got}"
        )
    sizes = {
        name: tuple(map(int, detail["shape"][:1]))
        for name, detail in loaded.inputs.items()
        if not has_open_batch(detail)
    }
    if len(set(sizes.values())) > 1 or () in sizes.values():
        raise ValueError(
            "Every input of the file must have the same batch as its first size. "
            f"Received: {sizes}"
        )
    arrays = {name: _array(name, x[name], loaded.inputs[name]) for name in names}
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(
            "`x` must hold the same number of examples, at least one, for every "
            f"input. Received: {lengths}"
        )
    return arrays


def _array(name: str, value, detail: dict) -> np.ndarray:
    array = np.asarray(value)
    expected = tuple(int(size) for size in detail["shape"][1:])
    dtype, quantised = np.dtype(detail["dtype"]), bool(detail["quantization"][0])
    if array.ndim != len(expected) + 1 or array.shape[1:] != expected:
        raise ValueError(
            f"`x` for input {name!r} must have shape (examples, "
            f"{', '.join(map(str, expected))}). Received: shape={array.shape}"
        )
    kinds = "fiub" if quantised or dtype.kind == "f" else "iub"
    if array.dtype.kind not in kinds:
        wanted = "real numbers" if "f" in kinds else f"integers ({dtype})"
        raise ValueError(
            f"`x` for input {name!r} must hold {wanted}. Received: dtype={array.dtype}"
        )
    if array.dtype.kind == "f" and quantised and not np.isfinite(array).all():
        raise ValueError(
            f"`x` for input {name!r} must be finite, to be quantised. Received: NaN or "
            "infinite values; replace them."
        )
    return array


def run_batches(
    loaded: LoadedFile, arrays: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Outputs in real numbers by name, for inputs that `checked_inputs` gave."""
    examples = len(next(iter(arrays.values())))
    fixed = {
        int(detail["shape"][0])
        for detail in loaded.inputs.values()
        if not has_open_batch(detail)
    }
    size = max(fixed, default=min(_OPEN_BATCH, examples))
    parts: dict[str, list[np.ndarray]] = {name: [] for name in loaded.outputs}
    for start in range(0, examples, size):
        rows = {name: array[start : start + size] for name, array in arrays.items()}
        count = min(size, examples - start)
        for name, values in _run_once(loaded, rows, size if fixed else count).items():
            parts[name].append(values[:count])
    return {name: np.concatenate(values) for name, values in parts.items()}


def _run_once(loaded: LoadedFile, rows: dict[str, np.ndarray], batch: int) -> dict:
    interpreter = loaded.interpreter
    if any(map(has_open_batch, loaded.inputs.values())):
        resize_batch(interpreter, batch)
        interpreter.allocate_tensors()
    for name, detail in loaded.inputs.items():
        filled = np.zeros((batch, *detail["shape"][1:]), rows[name].dtype)
        filled[: len(rows[name])] = rows[name]
        interpreter.set_tensor(detail["index"], quantise(filled, detail))
    try:
        interpreter.invoke()
    # An op may refuse values, such as an index out of range.
    except RuntimeError as error:
        raise ValueError(
            f"`x` must hold values that the file can compute with. Received: {error}"
        ) from error
    outputs = {}
    for name, detail in loaded.outputs.items():
        values = interpreter.get_tensor(detail["index"])
        if values.shape[:1] != (batch,):
            raise ValueError(
                "Every output of the file must have one row for each example. "
                f"Received: output {name!r} of shape {values.shape} for a batch of "
                f"{batch}"
            )
        outputs[name] = dequantise(values, detail)
    return outputs


def quantise(values: np.ndarray, detail: dict) -> np.ndarray:
    """Real numbers in the type, scale and zero point of an input tensor."""
    scale, zero_point = detail["quantization"]
    dtype = np.dtype(detail["dtype"])
    if scale:
        info = np.iinfo(dtype)
        values = np.round(values / np.float32(scale)) + zero_point
        values = np.clip(values, info.min, info.max)
    return values.astype(dtype)


def dequantise(values: np.ndarray, detail: dict) -> np.ndarray:
    """The float32 numbers that an output tensor stands for."""
    scale, zero_point = detail["quantization"]
    if not scale:
        return values
    return (values.astype(np.float32) - zero_point) * np.float32(scale)
