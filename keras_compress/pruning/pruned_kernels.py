"""The kernels of a model with their masks, from one update to the next."""

import keras
import numpy as np
from keras import ops

from keras_compress.kernels import Kernel, Skipped, find_kernels, share_of_zeros
from keras_compress.optimizer_steps import inner_optimizer
from keras_compress.pruning.gradients import GradientScores
from keras_compress.pruning.masks import MaskConstraint
from keras_compress.pruning.optimizers import averages_of
from keras_compress.pruning.report import PruningReport, report_on
from keras_compress.pruning.selection import keep_best, keep_best_of_all


def kernels_to_prune(
    model: keras.Model, layers, pattern
) -> tuple[list[Kernel], list[Skipped]]:
    """The kernels that a pattern can be on, and the layers left alone.

    Raises:
        ValueError: If there is no such kernel, the pattern does not fit one, or one is
            pruned already.
    """
    found, skipped = find_kernels(model, layers)
    kernels = []
    for kernel in found:
        reason = pattern.why_not(kernel)
        if reason:
            skipped.append(kernel.skipped(reason))
            continue
        pattern.check(kernel)
        constraint = kernel.variable.constraint
        if isinstance(constraint, MaskConstraint) and not constraint.released:
            raise ValueError(
                f"Kernel {kernel.path!r} is pruned by another callback of this fit. "
                "Give both `layers` that have no layer in common."
            )
        kernels.append(kernel)
    if not kernels:
        reasons = "; ".join(f"{row.name}: {row.reason}" for row in skipped)
        raise ValueError(
            f"Model {model.name!r} has no kernel to prune. Expected at least one "
            "trainable Dense or convolution layer that `layers` chooses. Received: "
            f"{reasons or 'a model without weights'}"
        )
    return kernels, skipped


class PrunedKernels:
    """Masks on the kernels of a model, until `release`.

    Args:
        model: A built and compiled model.
        layers: Called with a layer; whether to prune it. None: see `find_kernels`.
        pattern: Which weights become zero together.
        criterion: What a weight's score is.
        max_layer_sparsity: None: every kernel has the sparsity. Otherwise all kernels
            together have it, and none is sparser than this.

    Raises:
        ValueError: As `kernels_to_prune`.
    """

    def __init__(self, model, layers, pattern, criterion, max_layer_sparsity) -> None:
        self._pattern, self._criterion = pattern, criterion
        self._max_layer_sparsity = max_layer_sparsity
        self._kernels, self.skipped = kernels_to_prune(model, layers, pattern)
        variables = [kernel.variable for kernel in self._kernels]
        self._gradients = None
        self._grown = False
        with model.distribute_strategy.scope():
            averages = [averages_of(model, variable) for variable in variables]
            self._growing = keras.Variable(
                False, dtype="bool", trainable=False, name="growing"
            )
            self._masks = [
                MaskConstraint(variable, self._growing, average)
                for variable, average in zip(variables, averages, strict=True)
            ]
            if criterion.needs_gradients:
                optimizer = inner_optimizer(model.optimizer)
                self._gradients = GradientScores(optimizer, variables, criterion)

    @property
    def sparsity(self) -> float:
        """Share of zeros in all of them together."""
        return share_of_zeros(kernel.variable for kernel in self._kernels)

    def report(self) -> PruningReport:
        """What they are now."""
        return report_on(self._kernels, self.skipped)

    def update(self, sparsity: float) -> None:
        """Make the masks anew and zero what they prune."""
        units = [self._pattern.pool(self._scores(k), k) for k in self._kernels]
        if self._max_layer_sparsity is None:
            kept = keep_best(units, sparsity)
        else:
            kept = keep_best_of_all(units, sparsity, self._max_layer_sparsity)
        for kernel, mask, best in zip(self._kernels, self._masks, kept, strict=True):
            mask.mask.assign(self._pattern.spread(best, kernel))
        self.apply()
        if self._gradients:
            self._gradients.updated()

    def keep_zeros(self) -> None:
        """Make the masks of today's zeros."""
        for kernel, mask in zip(self._kernels, self._masks, strict=True):
            mask.mask.assign(ops.convert_to_numpy(kernel.variable) != 0)

    def grow(self, value: bool) -> None:
        """Whether weights may come back in the next steps."""
        if value != self._grown:
            self._growing.assign(value)
            self._grown = value

    def settle(self) -> None:
        """Zero what came back in a step that no update followed."""
        if self._grown:
            self.apply()

    def apply(self) -> None:
        """Zero what the masks prune."""
        self.grow(False)
        for mask in self._masks:
            mask.apply()

    def release(self) -> None:
        """Take the masks off; the weights stay as they are."""
        for mask in self._masks:
            mask.release()
        if self._gradients:
            self._gradients.release()

    def _scores(self, kernel) -> np.ndarray:
        variable = kernel.variable
        weights = np.asarray(ops.convert_to_numpy(variable), "float32")
        collected = self._gradients.of(variable) if self._gradients else None
        return self._criterion.scores(weights, collected)
