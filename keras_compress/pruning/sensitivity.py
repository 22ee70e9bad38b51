"""How much of its accuracy a model loses if one layer alone is pruned."""

import collections
import dataclasses
from collections.abc import Callable, Sequence
from types import MappingProxyType

import keras
import numpy as np
import tensorflow as tf

from keras_compress.kernels import find_kernels
from keras_compress.pruning.selection import largest, number_kept
from keras_compress.tables import tabulate

# The least rise of a loss with sparsity: of equal losses the sparser comes later.
_RISE = 1e-6


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """A metric of a model in which one layer alone is pruned; `str()` is a table.

    Attributes:
        metric: The metric's name.
        lower_is_better: Whether it is a loss.
        baseline: Its value for the model as it is.
        sparsities: Ascending.
        values: Layer name -> the metric's value at each of the sparsities.
    """

    metric: str
    lower_is_better: bool
    baseline: float
    sparsities: tuple[float, ...]
    values: MappingProxyType

    def losses(self, name: str) -> np.ndarray:
        """By how much the metric is worse at sparsity 0 and at each of the sparsities.

        A layer of higher sparsity counts as no better than one of lower sparsity.
        """
        values = np.array([self.baseline, *self.values[name]])
        worse = values - self.baseline if self.lower_is_better else -values
        worse = worse - worse[0]
        return np.maximum.accumulate(worse) + _RISE * np.array((0, *self.sparsities))

    def plot(self, axes=None):
        """Draw the metric over the sparsity, one line per layer.

        Args:
            axes: Matplotlib axes to draw on; by default those of a new figure.

        Returns:
            The axes.

        Raises:
            ImportError: If Matplotlib is not installed.
        """
        if axes is None:
            axes = _new_axes()
        for name, values in self.values.items():
            axes.plot((0, *self.sparsities), (self.baseline, *values), label=name)
        axes.set(xlabel="sparsity of the layer", ylabel=self.metric)
        axes.legend(fontsize="small")
        return axes

    def __str__(self) -> str:
        header = ("layer", *(f"{s:.0%}" for s in self.sparsities))
        rows = [(name, *values) for name, values in self.values.items()]
        table = tabulate(rows, header, floatfmt=".4f")
        return f"{table}\n{self.metric} of the model as it is: {self.baseline:.4f}"


def sensitivity(
    model: keras.Model,
    dataset,
    sparsities: Sequence[float] = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95),
    metric: str = "accuracy",
    lower_is_better: bool | None = None,
    layers: Callable | None = None,
) -> Sensitivity:
    """Prunes one layer at a time, by magnitude, and evaluates the model.

    The model is evaluated once for each layer and sparsity, so a part of the validation
    data will do. Afterwards the weights are what they were, also after an exception.

    Args:
        model: A built and compiled model.
        dataset: A `tf.data.Dataset` of batches, or a pair (x, y) of arrays.
        sparsities: Shares of the layer's weights to set to zero, ascending, in (0, 1).
        metric: Name of a value that `model.evaluate` returns.
        lower_is_better: Whether a lower value of the metric is better. By default if
            its name ends in "loss", "error" or "entropy".
        layers: Called with a layer; whether to prune it. By default every layer with a
            kernel, except Embedding and recurrent layers.

    Returns:
        A `Sensitivity`; `str()` of it is a table, `plot()` draws it.

    Raises:
        ValueError: If the sparsities are not ascending numbers in (0, 1), the model is
            not compiled, does not return the metric, or has nothing to prune.

    Example:

    >>> import keras, numpy as np
    >>> from keras_compress.pruning.sensitivity import sensitivity
    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(2, name="dense")], name="model"
    ... )
    >>> _ = model.layers[0].kernel.assign([[5, 0], [0, 4], [1, 0], [0, 1]])
    >>> model.compile(loss="mse", metrics=["accuracy"])
    >>> data = np.eye(4, dtype="float32"), np.eye(2, dtype="float32")[[0, 1, 0, 1]]
    >>> print(sensitivity(model, data, sparsities=(0.5, 0.75)))
    layer       50%     75%
    -------  ------  ------
    dense    1.0000  0.7500
    accuracy of the model as it is: 1.0000

    Source: Han et al. 2015, 1506.02626, section 3 (pruning one layer at a time).
    """
    sparsities = _checked(sparsities)
    _check_data(model, dataset)
    kernels = kernels_by_layer(model, layers)
    baseline = _evaluate(model, dataset, metric)
    values = {}
    for name, variables in kernels.items():
        weights = [keras.ops.convert_to_numpy(v) for v in variables]
        try:
            values[name] = []
            for sparsity in sparsities:
                for variable, array in zip(variables, weights, strict=True):
                    variable.assign(_pruned(array, sparsity))
                values[name].append(_evaluate(model, dataset, metric))
        finally:
            for variable, array in zip(variables, weights, strict=True):
                variable.assign(array)
    if lower_is_better is None:
        lower_is_better = metric.endswith(("loss", "error", "entropy"))
    frozen = MappingProxyType({name: tuple(v) for name, v in values.items()})
    return Sensitivity(metric, lower_is_better, baseline, sparsities, frozen)


def kernels_by_layer(model, layers: Callable | None = None) -> dict[str, list]:
    """The kernel variables of each layer to prune.

    Returns:
        Layer name -> variables; the path of the layer where its name is not the only
        one.

    Raises:
        ValueError: If there is none.
    """
    kernels, _ = find_kernels(model, layers)
    if not kernels:
        raise ValueError(
            f"Model {model.name!r} has no kernel to prune. Expected a built model with "
            "at least one trainable Dense or convolution layer that `layers` chooses."
        )
    owners = {id(k.layer): k.layer.name for k in kernels}
    uses = collections.Counter(owners.values())
    found = {}
    for kernel in kernels:
        name = kernel.layer.name
        if uses[name] > 1:
            name = kernel.path.rpartition("/")[0]
        found.setdefault(name, []).append(kernel.variable)
    return found


def _checked(sparsities) -> tuple[float, ...]:
    numbers = np.asarray(sparsities, "float64")
    inside = numbers.ndim == 1 and numbers.size and (numbers > 0).all()
    if not (inside and (numbers < 1).all() and (np.diff(numbers) > 0).all()):
        raise ValueError(
            "`sparsities` must be ascending numbers between 0 and 1, the shares of a "
            f"layer's weights to set to zero. Received: sparsities={sparsities!r}"
        )
    return tuple(numbers.tolist())


def _check_data(model, dataset) -> None:
    if not model.compiled:
        raise ValueError(
            "The model must be compiled with the metric to measure, for example "
            'model.compile(loss=..., metrics=["accuracy"]). Received: model '
            f"{model.name!r}, which is not compiled."
        )
    pair = isinstance(dataset, tuple | list) and len(dataset) == 2
    if not pair and not isinstance(dataset, tf.data.Dataset | keras.utils.PyDataset):
        raise ValueError(
            "`dataset` must be a tf.data.Dataset or keras.utils.PyDataset of batches, "
            "or a pair (x, y) of arrays, since it is read several times. Received: "
            f"{type(dataset).__name__}"
        )


def _evaluate(model, dataset, metric: str) -> float:
    data = dataset if isinstance(dataset, tuple | list) else (dataset,)
    values = model.evaluate(*data, verbose=0, return_dict=True)
    if metric not in values:
        raise ValueError(
            f"`metric` must be one of what `model.evaluate` returns, {sorted(values)}. "
            f"Received: metric={metric!r}. Compile the model with it."
        )
    return float(values[metric])


def _pruned(weights, sparsity: float) -> np.ndarray:
    kept = largest(np.abs(weights), number_kept(weights.size, sparsity))
    return np.where(kept, weights, 0)


def _new_axes():
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            "A picture of the sensitivity needs Matplotlib. Install it, for example "
            "with: pip install matplotlib. Without it, print() shows the same numbers."
        ) from error
    return pyplot.subplots(layout="constrained")[1]
