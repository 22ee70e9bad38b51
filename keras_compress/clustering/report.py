"""What `WeightClustering` did to each kernel, and what it left alone and why."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from keras_compress.tables import tabulate


@dataclass(frozen=True)
class ClusteredKernel:
    """One kernel: its path, its number of weights, how many of them are not zero, and
    in how many clusters those are."""

    path: str
    weights: int
    nonzero: int
    clusters: int

    @property
    def bits(self) -> int:
        """Width of the number of a cluster; zero is one more where there are zeros."""
        values = self.clusters + (self.nonzero < self.weights)
        return math.ceil(math.log2(values)) if values else 0


@dataclass(frozen=True)
class ClusteringReport:
    """One row per kernel and per layer left alone; `str()` of it is a table.

    Args:
        kernels: The clustered kernels.
        skipped: Layers left alone, each with `name`, `kind` and `reason`.
    """

    kernels: tuple[ClusteredKernel, ...]
    skipped: Sequence = ()

    def __str__(self) -> str:
        rows = [
            (k.path, k.weights, k.nonzero, k.clusters, k.bits) for k in self.kernels
        ]
        header = ("kernel", "weights", "non-zero", "clusters", "bits")
        lines = [tabulate(rows, header, intfmt=",")]
        lines += [f"{s.name} ({s.kind}) left alone: {s.reason}" for s in self.skipped]
        return "\n".join(lines)
