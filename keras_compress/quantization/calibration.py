"""Set the ranges of a quantization-aware model from data, before it is trained."""

import keras
import numpy as np

from keras_compress.quantization.fake_quant import FakeQuantize, extremes, floor_of

_BATCH = 32


class _Extremes:
    """The lowest and highest values at one site of a `FakeQuantize` layer."""

    def __init__(self) -> None:
        self.low: list[float] = []
        self.high: list[float] = []
        self.floor = 0.0


class _Observer:
    """Stands in a `FakeQuantize` layer while calibration data runs through."""

    def __init__(self, sites: int, percentile: float | None) -> None:
        self._sites = [_Extremes() for _ in range(sites)]
        self._percentile = percentile

    def __call__(self, values, source, site: int) -> None:
        seen = self._sites[site]
        seen.floor = max(seen.floor, float(floor_of(source)))
        if self._percentile is None:
            low, high = extremes(values)
        else:
            ends = (100 - self._percentile, self._percentile)
            low, high = np.percentile(keras.ops.convert_to_numpy(values), ends)
        seen.low.append(float(low))
        seen.high.append(float(high))

    def give_to(self, layer: FakeQuantize) -> None:
        """Set the layer's ranges."""
        for site, seen in enumerate(self._sites):
            if self._percentile is None:
                low, high = min(seen.low), max(seen.high)
            else:
                low, high = np.mean(seen.low), np.mean(seen.high)
            layer.set_range(site, float(low), float(high), seen.floor)


def calibrate(model: keras.Model, data, percentile: float | None) -> None:
    """Run the model on the data in inference mode and set every learned range.

    While the data runs through, kernels are rounded and activations are not.
    """
    observers = {
        layer: _Observer(layer.sites, percentile)
        for layer in model.layers
        if isinstance(layer, FakeQuantize) and layer.fixed is None
    }
    try:
        for layer, observer in observers.items():
            layer.observer = observer
        for batch in _batches(model, data):
            model(batch, training=False)
    finally:
        for layer in observers:
            layer.observer = None
    for layer, observer in observers.items():
        observer.give_to(layer)


def _batches(model: keras.Model, data):
    """Batches of the data in the structure that the model takes, checked."""
    names = [tensor.name for tensor in model.inputs]
    count = 0
    for x in _elements(data):
        arrays = _flat(x, names)
        for tensor, array in zip(model.inputs, arrays, strict=True):
            _check(tensor, array)
        count += 1
        yield keras.tree.pack_sequence_as(model.input, arrays)
    if not count:
        raise ValueError(
            "`calibration_data` must hold at least one example. Received: no example"
        )


def _elements(data):
    import tensorflow as tf

    if isinstance(data, tf.data.Dataset):
        for element in data:
            x = element[0] if isinstance(element, tuple) else element
            yield keras.tree.map_structure(keras.ops.convert_to_numpy, x)
        return
    arrays = keras.tree.map_structure(np.asarray, data)
    if not all(array.ndim for array in keras.tree.flatten(arrays)):
        raise ValueError(
            "`calibration_data` must be an array, a list or dict of arrays, or a "
            f"tf.data.Dataset. Received: calibration_data={data!r}"
        )
    data = arrays
    lengths = {len(array) for array in keras.tree.flatten(data)}
    if len(lengths) != 1:
        raise ValueError(
            "`calibration_data` must hold the same number of examples for every input. "
            f"Received: {sorted(lengths)}"
        )
    for start in range(0, lengths.pop(), _BATCH):
        rows = slice(start, start + _BATCH)
        yield keras.tree.map_structure(lambda array, rows=rows: array[rows], data)


def _flat(x, names: list[str]) -> list[np.ndarray]:
    if isinstance(x, dict) and set(x) == set(names):
        return [x[name] for name in names]
    if isinstance(x, np.ndarray) and len(names) == 1:
        return [x]
    if isinstance(x, (list, tuple)) and len(x) == len(names):
        return list(x)
    raise ValueError(
        f"`calibration_data` must hold one array for each input of the model, {names}: "
        "an array, a list or dict of arrays, or a dataset of batches of these. "
        f"Received: {type(x).__name__}"
    )


def _check(tensor, array: np.ndarray) -> None:
    shape = tuple(tensor.shape[1:])
    fits = len(array.shape) == len(shape) + 1 and all(
        size in (None, found)
        for size, found in zip(shape, array.shape[1:], strict=True)
    )
    if not fits:
        raise ValueError(
            f"`calibration_data` for input {tensor.name!r} must have shape (examples, "
            f"{', '.join(map(str, shape))}). Received: shape={array.shape}"
        )
    if array.dtype.kind not in "fiub":
        raise ValueError(
            f"`calibration_data` for input {tensor.name!r} must hold numbers. "
            f"Received: dtype={array.dtype}"
        )
    if not np.isfinite(array).all():
        raise ValueError(
            f"`calibration_data` for input {tensor.name!r} must be finite. Received: "
            "NaN or infinite values; drop or replace those examples."
        )
