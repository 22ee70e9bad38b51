"""`Stage`: what one model or file costs, as plain numbers that JSON can hold."""

from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

_BINS = 81
# Few large weights would leave all others in one bin.
_SHOWN = 99.9


@dataclass(frozen=True)
class Histogram:
    """How often weights have which value.

    Attributes:
        limit: The bins part [-limit, limit] evenly.
        counts: Weights in each bin; the middle one holds the zeros.
        beyond: Weights outside, at most a thousandth of all.
    """

    limit: float
    counts: tuple[int, ...]
    beyond: int

    def edges(self) -> np.ndarray:
        """The borders of the bins, one more than there are bins."""
        return np.linspace(-self.limit, self.limit, len(self.counts) + 1)

    @classmethod
    def of(cls, arrays: list) -> "Histogram | None":
        """The histogram of all finite numbers in the arrays; None if there is none."""
        values = [np.asarray(array, "float32").ravel() for array in arrays]
        values = np.concatenate(values) if values else np.zeros(0, "float32")
        values = values[np.isfinite(values)]
        if not values.size:
            return None
        size = np.abs(values)
        limit = float(np.percentile(size, _SHOWN)) or float(size.max()) or 1.0
        counts, _ = np.histogram(values, _BINS, (-limit, limit))
        return cls(limit, tuple(map(int, counts)), int(values.size - counts.sum()))


@dataclass(frozen=True)
class LayerAccount:
    """The kernels of one layer: constants or variables of two or more axes.

    Attributes:
        name: The layer's name.
        kind: Its class, or the op of a file.
        weights: Numbers in its kernels.
        zeros: Those that are zero; None where they are packed and not read.
        bits: Bits that one of them takes.
        histogram: Of their values; None where they are not read.
    """

    name: str
    kind: str
    weights: int
    zeros: int | None
    bits: int
    histogram: Histogram | None = None

    @property
    def sparsity(self) -> float | None:
        """Share of zeros."""
        return None if self.zeros is None else self.zeros / self.weights


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one run of a file in LiteRT, and how it was timed."""

    median_ms: float
    p90_ms: float
    runs: int
    threads: int
    kernels: str
    cpu: str

    @property
    def how(self) -> str:
        """Where and how it was measured, for people."""
        plural = "" if self.threads == 1 else "s"
        return (
            f"LiteRT, median of {self.runs} runs, {self.kernels} kernels, "
            f"{self.threads} thread{plural}, {self.cpu}"
        )


@dataclass(frozen=True)
class Stage:
    """One row of a report; None is what is not known.

    Attributes:
        name: As the user calls it.
        source: "keras" for a model, "tflite" for a file.
        metrics: Name -> number, as the user measured it; read only.
        params: Numbers in the weights.
        nonzero: Those that are not zero.
        macs: Multiply-accumulates: of a model per example, of a file per run.
        bytes: Of a file its size, of a model that of its weights in memory.
        gzip_bytes: Size of the file after gzip.
        latency: Of a file in LiteRT.
        samples: Training examples seen.
        seconds: Of training.
        layers: The layers that have kernels.
        histogram: Of the values of all kernels.
    """

    name: str
    source: str
    metrics: MappingProxyType = field(hash=False)
    params: int | None
    nonzero: int | None
    macs: int | None
    bytes: int
    gzip_bytes: int | None = None
    latency: Latency | None = None
    samples: int | None = None
    seconds: float | None = None
    layers: tuple[LayerAccount, ...] = ()
    histogram: Histogram | None = None

    @property
    def latency_ms(self) -> float | None:
        """The median of the latency."""
        return None if self.latency is None else self.latency.median_ms

    def to_dict(self) -> dict:
        """All of it as JSON values."""
        found = dict(vars(self))
        found["metrics"] = dict(self.metrics)
        found["layers"] = [
            _plain(layer) | {"histogram": _plain(layer.histogram)}
            for layer in self.layers
        ]
        for name in ("latency", "histogram"):
            found[name] = _plain(found[name])
        return found

    @classmethod
    def from_dict(cls, found: dict) -> "Stage":
        """What `to_dict` made a dict of."""
        found = dict(found)
        found["metrics"] = MappingProxyType(dict(found["metrics"]))
        found["layers"] = tuple(
            LayerAccount(**layer | {"histogram": _histogram(layer["histogram"])})
            for layer in found["layers"]
        )
        if found["latency"] is not None:
            found["latency"] = Latency(**found["latency"])
        found["histogram"] = _histogram(found["histogram"])
        return cls(**found)


def _plain(item) -> dict | None:
    return None if item is None else dict(vars(item))


def _histogram(found: dict | None) -> Histogram | None:
    if found is None:
        return None
    return Histogram(**found | {"counts": tuple(found["counts"])})
