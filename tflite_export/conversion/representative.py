"""Representative data: the examples that give int8 activations their ranges."""

from collections.abc import Iterator

import numpy as np

MAX_EXAMPLES = 300
"""At most this many examples are read; more change the ranges very little."""

_FORMS = (
    "a NumPy array, for several inputs a list or dict of NumPy arrays, or a "
    "tf.data.Dataset or generator of x or (x, y), batched or not"
)


def read_examples(data, inputs) -> dict[str, np.ndarray]:
    """Read and check the representative data.

    Of arrays with more than `MAX_EXAMPLES` examples, evenly spaced ones are taken; of
    a dataset or generator the first.

    Args:
        data: An array of shape (examples, ...); for several inputs a list or dict (by
            input name) of arrays; or a tf.data.Dataset, an iterable, or a function
            that returns one, of such `x` or of `(x, y)`, in batches or one by one.
        inputs: The model's input `KerasTensor`s, in order.

    Returns:
        Arrays of the inputs' dtypes by input name, all of the same length.

    Raises:
        ValueError: If the data is empty, of the wrong form, shape or dtype, not
            finite or all zero.
    """
    if isinstance(data, (np.ndarray, dict, list, tuple)):
        arrays = _by_name(data, inputs)
        for tensor in inputs:
            _check_form(arrays[tensor.name], tensor)
    else:
        arrays = _read_stream(data() if callable(data) else data, inputs)
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


def _read_stream(stream, inputs) -> dict[str, np.ndarray]:
    """The first examples of a dataset or iterable, of batches or single examples."""
    if not hasattr(stream, "__iter__"):
        raise _wrong_form(stream, inputs)
    parts: dict[str, list[np.ndarray]] = {tensor.name: [] for tensor in inputs}
    count = 0
    for element in stream:
        arrays = _by_name(_as_numpy(element), inputs)
        for tensor in inputs:
            array = arrays[tensor.name]
            if array.ndim == len(tensor.shape) - 1:
                array = array[None]
            _check_form(array, tensor)
            parts[tensor.name].append(array[: MAX_EXAMPLES - count])
        count += len(array)
        if count >= MAX_EXAMPLES:
            break
    if not count:
        raise ValueError(
            "`representative_data` must hold at least one example. Received: an empty "
            f"{type(stream).__name__}"
        )
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def _as_numpy(element):
    """The `x` of one element of a stream, its tensors as NumPy arrays."""
    from keras import tree

    x = element[0] if isinstance(element, tuple) else element
    return tree.map_structure(lambda v: v.numpy() if hasattr(v, "numpy") else v, x)


def _by_name(x, inputs) -> dict[str, np.ndarray]:
    names = [tensor.name for tensor in inputs]
    if isinstance(x, np.ndarray) and len(names) == 1:
        x = {names[0]: x}
    elif isinstance(x, (list, tuple)) and len(x) == len(names):
        x = dict(zip(names, x, strict=True))
    right = isinstance(x, dict) and set(x) == set(names)
    if not right or not all(isinstance(array, np.ndarray) for array in x.values()):
        raise _wrong_form(x, inputs)
    return x


def _wrong_form(x, inputs) -> ValueError:
    got = type(x).__name__
    if isinstance(x, dict):
        got = f"a dict of { ({k: type(v).__name__ for k, v in x.items()}) }"
    elif isinstance(x, (list, tuple)):
        got = f"a {got} of {len(x)}"
    return ValueError(
        f"`representative_data` must be {_FORMS}. The model's inputs are "
        f"{[tensor.name for tensor in inputs]}. Received: {got}"
    )


def _check_form(array: np.ndarray, tensor) -> None:
    shape = tuple(tensor.shape[1:])
    if array.ndim != len(shape) + 1 or array.shape[1:] != shape:
        expected = ", ".join(["examples", *map(str, shape)])
        raise ValueError(
            f"`representative_data` for input {tensor.name!r} must have shape "
            f"({expected}). Received: shape={array.shape}"
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
