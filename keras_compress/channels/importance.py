"""Importances: how much each channel of a group counts.

An importance is called with a `ChannelGroup` and the model and returns one float score
for each channel, or None if it cannot judge the group, which then stays whole.
"""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from keras_compress.channels.groups import ChannelGroup, CoupledAxis
from keras_compress.channels.recalibrate import traced


@dataclasses.dataclass(frozen=True)
class GroupNorm:
    """The mean over the group's axes of sum |w|^p of a channel's weights.

    Axes on which channels are made, read or scaled count; biases do not.

    Source: Fang et al. 2023, 2301.12900; p = 1 is Li et al. 2017, 1608.08710.

    Args:
        p: 1 or 2.
    """

    p: int = 2

    def __call__(self, group: ChannelGroup, model) -> np.ndarray:
        """float64 array (group.size,)."""
        power = np.abs if self.p == 1 else np.square
        rows = [_sums_of(axis, power) for axis in _judged(group)]
        return np.mean(rows, axis=0)


@dataclasses.dataclass(frozen=True)
class BatchNormScale:
    """The mean |gamma| of a channel; groups without a gamma stay whole.

    Source: Liu et al. 2017, 1708.06519 (Network Slimming).
    """

    def __call__(self, group: ChannelGroup, model) -> np.ndarray | None:
        """float64 array (group.size,), or None."""
        norms = [
            axis
            for axis in group.axes
            if axis.role == "scale"
            and isinstance(axis.layer, keras.layers.BatchNormalization)
        ]
        if not norms:
            return None
        return np.mean([_sums_of(axis, np.abs) for axis in norms], axis=0)


@dataclasses.dataclass(frozen=True)
class Taylor:
    """The mean over the group's axes of sum |w * g|, g the gradients on batches.

    The model must be compiled, and `data` be given.

    Source: Molchanov et al. 2017, 1611.06440.
    """

    products: dict | None = dataclasses.field(default=None, repr=False)

    def with_data(self, model: keras.Model, data) -> "Taylor":
        """The importance that knows the sum of |w * g| over the batches of data."""
        return dataclasses.replace(self, products=_weights_by_gradients(model, data))

    def __call__(self, group: ChannelGroup, model) -> np.ndarray:
        """float64 array (group.size,)."""
        rows = [
            _sums(axis, self.products[id(axis.variable)], np.abs)
            for axis in _judged(group)
            if id(axis.variable) in self.products
        ]
        return np.mean(rows, axis=0) if rows else None


@dataclasses.dataclass(frozen=True)
class GeometricMedian:
    """The sum of distances of a channel's kernel to those of its group's others.

    The mean over the layers that make the group's channels.

    Source: He et al. 2019, 1811.00250 (FPGM).
    """

    def __call__(self, group: ChannelGroup, model) -> np.ndarray:
        """float64 array (group.size,)."""
        rows = [_distances(axis) for axis in group.axes if axis.role == "out"]
        return np.mean(rows, axis=0)


@dataclasses.dataclass(frozen=True)
class Random:
    """A uniform random score, the same for the same seed; a baseline."""

    seed: int = 0

    def __call__(self, group: ChannelGroup, model) -> np.ndarray:
        """float64 array (group.size,)."""
        return np.random.default_rng((self.seed, int(group.channels[0]))).random(
            group.size
        )


@dataclasses.dataclass(frozen=True)
class Lamp:
    """Another importance's score over the sum of all scores in the group not below it.

    These are comparable between groups as they are.

    Source: Lee et al. 2021, 2010.07611, on channels instead of weights.

    Args:
        of: The other importance, a name or an object.
    """

    of: str | Callable = "l2"
    comparable = True

    def __call__(self, group: ChannelGroup, model) -> np.ndarray:
        """float64 array (group.size,)."""
        scores = as_importance(self.of)(group, model)
        if scores is None:
            return None
        order = np.argsort(scores, kind="stable")
        tail = np.cumsum(scores[order][::-1])[::-1]
        result = np.empty(len(scores))
        result[order] = scores[order] / np.maximum(tail, np.finfo(float).tiny)
        return result


_IMPORTANCES = {
    "l1": GroupNorm(1),
    "l2": GroupNorm(2),
    "bn_scale": BatchNormScale(),
    "taylor": Taylor(),
    "fpgm": GeometricMedian(),
    "random": Random(),
    "lamp": Lamp(),
}


def as_importance(importance) -> Callable:
    """The importance of that name, or the function itself.

    Raises:
        ValueError: If it is neither.
    """
    if callable(importance):
        return importance
    if isinstance(importance, str) and importance in _IMPORTANCES:
        return _IMPORTANCES[importance]
    raise ValueError(
        f"`importance` must be one of {', '.join(map(repr, _IMPORTANCES))}, or a "
        "function (group, model) -> scores. Received: "
        f"importance={importance!r}"
    )


def _judged(group: ChannelGroup) -> list[CoupledAxis]:
    return [axis for axis in group.axes if axis.role in ("out", "in", "scale")]


def _array(variable) -> np.ndarray:
    return keras.ops.convert_to_numpy(variable)


def _sums_of(axis: CoupledAxis, function: Callable) -> np.ndarray:
    return _sums(axis, _array(axis.variable), function)


def _sums(axis: CoupledAxis, values: np.ndarray, function: Callable) -> np.ndarray:
    """The sum of function(values) for each of the group's channels."""
    places = axis.index.reshape(-1)
    if len(places) < values.shape[axis.axis]:
        values, places = np.take(values, places, axis.axis), np.arange(len(places))
    others = tuple(i for i in range(values.ndim) if i != axis.axis)
    along = function(values).sum(axis=others, dtype="float64")
    return along[places].reshape(axis.index.shape).sum(axis=1)


def _distances(axis: CoupledAxis) -> np.ndarray:
    values = np.moveaxis(_array(axis.variable), axis.axis, 0).astype("float64")
    rows = values[axis.index].reshape(len(axis.index), -1)
    squares = np.square(rows).sum(1)
    between = squares[:, None] + squares[None] - 2 * rows @ rows.T
    return np.sqrt(np.maximum(between, 0)).sum(1)


def _weights_by_gradients(model, data) -> dict[int, np.ndarray]:
    """For each trainable variable, by its id, the sum of |w * g| over the batches."""
    variables = model.trainable_variables
    totals = [np.zeros(v.shape) for v in variables]

    def gradients(batch):
        x, y, weights = keras.utils.unpack_x_y_sample_weight(batch)
        with tf.GradientTape() as tape:
            outputs = model(x, training=False)
            loss = model.compute_loss(x, y, outputs, weights, training=False)
        values = [v.value for v in variables]
        return tape.gradient(loss, values, unconnected_gradients="zero")

    call = None
    for batch in data:
        batch = keras.tree.map_structure(tf.convert_to_tensor, batch)
        call = call or traced(gradients, batch)
        for total, v, g in zip(totals, variables, call(batch), strict=True):
            total += np.abs(_array(v) * np.asarray(tf.convert_to_tensor(g)))
    if call is None:
        raise ValueError("`data` must hold at least one batch (x, y). Received: none")
    return {id(v): total for v, total in zip(variables, totals, strict=True)}
