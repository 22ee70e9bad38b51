"""Representative data: the examples that give int8 activations their ranges."""

from collections.abc import Iterator

import numpy as np

MAX_EXAMPLES = 300
"""At most this many examples are read; more change the ranges very little."""

_FORMS = (
    "a NumPy array, a batched tf.data.Dataset of x or (x, y), or for several inputs "
    "a list or dict of NumPy arrays"
)


def read_examples(data, inputs) -> dict[str, np.ndarray]:
    """Read and check the representative data.

    Of arrays with more than `MAX_EXAMPLES` examples, evenly spaced ones are taken; of
    a dataset the first.

    Args:
        data: An array of shape (examples, ...); a batched tf.data.Dataset of `x` or
            `(x, y)`; for several inputs a list or dict (by input name) of arrays, or
            a dataset of such `x`.
        inputs: The model's input `KerasTensor`s, in order.

    Returns:
        Arrays of the inputs' dtypes by input name, all of the same length.

    Raises:
        ValueError: If the data is empty, of the wrong form, shape or dtype,
            or not finite.
    """
    import tensorflow as tf

    if isinstance(data, tf.data.Dataset):
        arrays = _read_dataset(data, inputs)
    else:
        arrays = _by_name(data, inputs)
        for tensor in inputs:
            _check_form(arrays[tensor.name], tensor)
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(
            "`representative_data` must hold the same number of examples, at least "
            f"one, for every input. Received: {lengths}"
        )
    rows = _spread(next(iter(lengths.values())))
    return {t.name: _checked_values(arrays[t.name][rows], t) for t in inputs}


def batches(
    examples: dict[str, np.ndarray], batch_size: int
) -> Iterator[dict[str, np.ndarray]]:
    """The examples in full batches; the last is filled up from the first ones."""
    total = len(next(iter(examples.values())))
    for start in range(0, total, batch_size):
        rows = np.arange(start, start + batch_size) % total
        yield {name: array[rows] for name, array in examples.items()}


def _spread(total: int) -> np.ndarray:
    return np.linspace(0, total - 1, min(total, MAX_EXAMPLES)).astype(int)


def _read_dataset(dataset, inputs) -> dict[str, np.ndarray]:
    parts: dict[str, list[np.ndarray]] = {tensor.name: [] for tensor in inputs}
    count = 0
    for element in dataset:
        x = element[0] if isinstance(element, tuple) else element
        if isinstance(x, dict):
            x = {name: _to_numpy(value) for name, value in x.items()}
        elif isinstance(x, (list, tuple)):
            x = [_to_numpy(value) for value in x]
        else:
            x = _to_numpy(x)
        arrays = _by_name(x, inputs)
        for tensor in inputs:
            array = arrays[tensor.name]
            _check_form(array, tensor, "Batch the dataset with `.batch(32)`.")
            parts[tensor.name].append(array[: MAX_EXAMPLES - count])
        count += len(array)
        if count >= MAX_EXAMPLES:
            break
    if not count:
        raise ValueError(
            "`representative_data` must hold at least one example. Received: an empty "
            "dataset"
        )
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def _to_numpy(value):
    return value.numpy() if hasattr(value, "numpy") else value


def _by_name(x, inputs) -> dict[str, np.ndarray]:
    names = [tensor.name for tensor in inputs]
    if isinstance(x, np.ndarray) and len(names) == 1:
        x = {names[0]: x}
    elif isinstance(x, (list, tuple)) and len(x) == len(names):
        x = dict(zip(names, x, strict=True))
    right = isinstance(x, dict) and set(x) == set(names)
    if not right or not all(isinstance(array, np.ndarray) for array in x.values()):
        got = type(x).__name__
        if isinstance(x, dict):
            got = f"a dict of { ({k: type(v).__name__ for k, v in x.items()}) }"
        elif isinstance(x, (list, tuple)):
            got = f"a {got} of {len(x)}"
        raise ValueError(
            f"`representative_data` must be {_FORMS}. The model's inputs are {names}. "
            f"Received: {got}"
        )
    return x


def _check_form(array: np.ndarray, tensor, hint: str = "") -> None:
    shape = tuple(tensor.shape[1:])
    if array.ndim != len(shape) + 1 or array.shape[1:] != shape:
        expected = ", ".join(["examples", *map(str, shape)])
        raise ValueError(
            f"`representative_data` for input {tensor.name!r} must have shape "
            f"({expected}). {hint} Received: shape={array.shape}"
        )
    kinds = "fiu" if np.dtype(tensor.dtype).kind == "f" else "iu"
    if array.dtype.kind not in kinds:
        wanted = "real numbers" if kinds == "fiu" else "integers"
        raise ValueError(
            f"`representative_data` for input {tensor.name!r} must hold {wanted}, the "
            f"input is {tensor.dtype}. Received: dtype={array.dtype}"
        )


def _checked_values(array: np.ndarray, tensor) -> np.ndarray:
    dtype = np.dtype(tensor.dtype)
    array = array.astype("float32" if dtype.kind == "f" else dtype)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(
            f"`representative_data` for input {tensor.name!r} must be finite. "
            "Received: NaN or infinite values; drop or replace those examples."
        )
    if array.dtype.kind == "f" and not array.any():
        raise ValueError(
            f"`representative_data` for input {tensor.name!r} must not be all zero: "
            "it gives the input its range. Received: only zeros; give typical examples."
        )
    return array
