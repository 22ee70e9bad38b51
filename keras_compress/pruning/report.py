"""What was pruned of each layer, and what was left alone and why."""

import textwrap
from dataclasses import dataclass

import keras
import numpy as np

from keras_compress.kernels import Kernel, Skipped
from keras_compress.tables import tabulate


@dataclass(frozen=True)
class PrunedKernel:
    """One kernel: its path, its layer's class, its weights and those not zero."""

    path: str
    kind: str
    shape: tuple[int, ...]
    weights: int
    nonzero: int

    @property
    def sparsity(self) -> float:
        """Share of zeros."""
        return 1 - self.nonzero / self.weights


@dataclass(frozen=True)
class PruningReport:
    """One row per kernel, and per layer left alone; `str()` of it is a table."""

    kernels: tuple[PrunedKernel, ...]
    skipped: tuple[Skipped, ...]

    @property
    def sparsity(self) -> float:
        """Share of zeros in all pruned kernels together."""
        weights = sum(kernel.weights for kernel in self.kernels)
        return 1 - sum(kernel.nonzero for kernel in self.kernels) / weights

    def __str__(self) -> str:
        rows = [
            (k.path, k.kind, k.weights, k.nonzero, f"{100 * k.sparsity:.1f} %")
            for k in self.kernels
        ]
        headers = ("kernel", "layer", "weights", "not zero", "sparsity")
        table = tabulate(rows, headers, colalign=("left", "left", *["right"] * 3))
        total = f"sparsity of the pruned kernels: {100 * self.sparsity:.2f} %"
        return "\n".join([table, total, *self._left_alone()])

    def _left_alone(self) -> list[str]:
        """A paragraph for each reason, with the layers that it holds for."""
        names: dict[str, list[str]] = {}
        for layer in self.skipped:
            names.setdefault(layer.reason, []).append(layer.name)
        return [
            textwrap.fill(f"left alone ({reason}): {', '.join(layers)}", 88)
            for reason, layers in names.items()
        ]


def report_on(kernels: list[Kernel], skipped: list[Skipped]) -> PruningReport:
    """The report on kernels as they are now."""
    rows = []
    for kernel in kernels:
        weights = keras.ops.convert_to_numpy(kernel.variable)
        kind = type(kernel.layer).__name__
        nonzero = int(np.count_nonzero(weights))
        row = PrunedKernel(kernel.path, kind, kernel.shape, weights.size, nonzero)
        rows.append(row)
    return PruningReport(tuple(rows), tuple(skipped))
