"""Run a `.tflite` file on arrays of real numbers."""

import numpy as np

from tflite_export.runtime import LoadedFile, load


def predict(path, x) -> np.ndarray | dict[str, np.ndarray]:
    """Run a `.tflite` file on any number of examples.

    The examples go through in batches of the file's fixed batch size; the last batch
    is filled with zeros and the surplus cut. Where the file takes int8 or uint8, `x`
    is still given in real numbers and is quantised with the input's scale; quantised
    outputs are de-quantised to float32.

    Args:
        path: File name of a `.tflite` file.
        x: Real numbers as the Keras model takes them, shape (examples, ...). For a
            file with several inputs a dict by input name, or a list in the order of
            the model's inputs.

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
    loaded = load(path)
    arrays = _checked(loaded, x)
    outputs = _run(loaded, arrays)
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs


def _checked(loaded: LoadedFile, x) -> dict[str, np.ndarray]:
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


def _run(loaded: LoadedFile, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    interpreter = loaded.interpreter
    examples = len(next(iter(arrays.values())))
    batch = int(next(iter(loaded.inputs.values()))["shape"][0])
    parts: dict[str, list[np.ndarray]] = {name: [] for name in loaded.outputs}
    for start in range(0, examples, batch):
        for name, detail in loaded.inputs.items():
            rows = arrays[name][start : start + batch]
            filled = np.zeros(detail["shape"], rows.dtype)
            filled[: len(rows)] = rows
            interpreter.set_tensor(detail["index"], quantise(filled, detail))
        interpreter.invoke()
        for name, detail in loaded.outputs.items():
            values = interpreter.get_tensor(detail["index"])
            parts[name].append(dequantise(values, detail))
    return {name: np.concatenate(rows)[:examples] for name, rows in parts.items()}


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
