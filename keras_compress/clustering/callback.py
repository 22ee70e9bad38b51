"""`WeightClustering`: the weights of a kernel share a few values."""

from collections.abc import Callable

import keras
import numpy as np
from absl import logging

from keras_compress.clustering.kmeans import INITS, find_centroids
from keras_compress.clustering.report import ClusteredKernel, ClusteringReport
from keras_compress.clustering.shared_weights import SharedWeights
from keras_compress.kernels import Kernel, Skipped, find_kernels, is_built
from keras_compress.optimizer_steps import current_step, is_int
from keras_compress.undo import undo_after_fit

_MOST_CLUSTERS = 2**16 - 1


class WeightClustering(keras.callbacks.Callback):
    """Lets the weights of each kernel share a few values, and trains those values.

    When `begin_step` is reached, k-means sorts the non-zero weights of each kernel into
    `num_clusters` clusters. From then on, after every step, all weights of a cluster
    have one value, its centroid, and zeros are zero. The optimizer moves each weight by
    itself, and the centroid moves by the mean of that; for SGD this is a step along the
    mean of the gradients of its weights. (Han et al. take their sum, which is the same
    with a learning rate of as many times as the cluster has weights.)

    The model stays an ordinary model: nothing is wrapped, nothing to strip. A kernel
    that has no more different values from the start keeps them, so a training that is
    resumed goes on with its clusters. To prune and cluster in one fit, begin when the
    pruning schedule ends: weights that are pruned later leave their cluster, and none
    come back.

    Args:
        num_clusters: Different non-zero values per kernel, 1 to 65,535.
        init: Where the centroids start: "linear" (evenly between the least and the
            greatest weight), "density" (evenly among the weights) or "kmeans++".
        layers: Predicate on a layer; by default every layer that has a kernel, but for
            embeddings and recurrent layers, which a predicate may choose. Layers inside
            wrappers and other layers are asked too.
        begin_step: The step of the optimizer at which the weights are clustered. A
            model that is not built before its first step is clustered after it.
        seed: Of the draws of "kmeans++".

    Attributes:
        report: After the weights were clustered, one row per kernel, those left alone
            with the reason; `str()` of it is a table.

    Raises:
        ValueError: On a wrong argument; when `fit` begins, if there is no kernel to
            cluster; when clustering begins, if a weight is not a finite number.

    Example:

    >>> import keras, numpy as np
    >>> from keras_compress.clustering.callback import WeightClustering
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> model.compile("adam", "mse")
    >>> x, y = np.ones((16, 8), "float32"), np.ones((16, 4), "float32")
    >>> _ = model.fit(x, y, callbacks=[WeightClustering(4)], verbose=0)
    >>> len(np.unique(model.layers[0].kernel))
    4

    Reference: Han, Mao and Dally 2016, Deep Compression, arXiv:1510.00149, section 3.
    """

    def __init__(
        self,
        num_clusters: int,
        init: str = "linear",
        layers: Callable[[keras.layers.Layer], bool] | None = None,
        begin_step: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check_int("num_clusters", num_clusters, 1, _MOST_CLUSTERS)
        _check_int("begin_step", begin_step, 0)
        if init not in INITS:
            raise ValueError(
                f"`init` must be one of {', '.join(map(repr, INITS))}. "
                f"Received: init={init!r}"
            )
        if layers is not None and not callable(layers):
            raise ValueError(
                "`layers` must be a function of a layer that says whether to cluster "
                "it, such as lambda layer: isinstance(layer, keras.layers.Dense). "
                f"Received: layers={layers!r}"
            )
        self.num_clusters = num_clusters
        self.init = init
        self.layers = layers
        self.begin_step = begin_step
        self.seed = seed
        self.report: ClusteringReport | None = None
        self._shared: list[tuple[keras.Variable, SharedWeights]] = []
        self._undo: Callable | None = None

    def on_train_begin(self, logs=None) -> None:
        """Refuse a model without a kernel to cluster."""
        self.report, self._undo = None, None
        if is_built(self.model):
            self._find_kernels()

    def on_train_batch_begin(self, batch, logs=None) -> None:
        """Cluster the weights once it is time.

        Not before the first batch: by then every other callback has set its constraint.
        """
        if self.report is None and self._is_due() and is_built(self.model):
            self._begin()

    def on_train_end(self, logs=None) -> None:
        """Share what the optimizer averaged at the end; put the constraints back."""
        if self.report is None:
            if not self._is_due():
                logging.warning(
                    "The fit ended at step %d, before `begin_step` of "
                    "WeightClustering, %d: nothing was clustered.",
                    current_step(self.model),
                    self.begin_step,
                )
                return
            self._begin()
        for variable, shared in self._shared:
            variable.assign(shared.shared(variable))
        self._undo()

    def _is_due(self) -> bool:
        return current_step(self.model) >= self.begin_step

    def _begin(self) -> None:
        """Cluster the weights, and hold them so from the next step on."""
        kernels, skipped = self._find_kernels()
        weights = [_finite_weights(kernel) for kernel in kernels]
        self._shared = []
        with self.model.distribute_strategy.scope():
            rows = list(map(self._cluster, kernels, weights))
        self._undo = undo_after_fit(self.model, self._restore)
        self.report = ClusteringReport(tuple(rows), tuple(skipped))
        logging.info("Clustered at step %d:\n%s", current_step(self.model), self.report)

    def _find_kernels(self) -> tuple[list[Kernel], list[Skipped]]:
        kernels, skipped = find_kernels(self.model, self.layers)
        if not kernels:
            reasons = "; ".join(f"{s.name}: {s.reason}" for s in skipped)
            raise ValueError(
                f"WeightClustering found no kernel to cluster in {self.model.name!r}. "
                "Expected at least one layer with a kernel that is trainable and that "
                f"`layers` chooses. Received: {reasons or 'a model without weights'}"
            )
        return kernels, skipped

    def _cluster(self, kernel, weights) -> ClusteredKernel:
        """Share the weights of one kernel from now on."""
        variable = kernel.variable
        nonzero = weights[weights != 0]
        centroids = find_centroids(nonzero, self.num_clusters, self.init, self.seed)
        shared = SharedWeights(weights, centroids, inner=variable.constraint)
        variable.assign(shared.shared(variable))
        variable.constraint = shared
        self._shared.append((variable, shared))
        return ClusteredKernel(
            kernel.path, weights.size, nonzero.size, clusters=len(centroids)
        )

    def _restore(self) -> None:
        """Give the variables the constraints that they had."""
        for variable, shared in self._shared:
            if variable.constraint is shared:
                variable.constraint = _still_in_force(shared.inner)


def _still_in_force(constraint):
    """The constraint, or the one before a mask that has been released."""
    while getattr(constraint, "released", False):
        constraint = constraint.users
    return constraint


def _finite_weights(kernel) -> np.ndarray:
    weights = keras.ops.convert_to_numpy(kernel.variable)
    if not np.isfinite(weights).all():
        raise ValueError(
            "Weights must be finite numbers to be clustered. Received: NaN or infinity "
            f"in {kernel.path}. Lower the learning rate, or mend the checkpoint."
        )
    return weights


def _check_int(name: str, value, least: int, most: int | None = None) -> None:
    good = is_int(value) and value >= least
    if not good or (most is not None and value > most):
        bounds = f"of at least {least}" if most is None else f"from {least} to {most:,}"
        raise ValueError(
            f"`{name}` must be an int {bounds}. Received: {name}={value!r}"
        )
