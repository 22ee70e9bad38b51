"""Which layers can be factorised, and what each may become."""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np

from keras_compress.factorization.budget import Option, options
from keras_compress.factorization.spectrum import Spectrum, spectrum
from keras_compress.factorization.ways import Way, has_kernel, ways_of
from keras_compress.graph import Graph


@dataclass(frozen=True, eq=False)
class Candidate:
    """A layer with a kernel.

    Attributes:
        layer: The layer.
        spectra: Of its kernel, unfolded in each way that can save parameters.
        options: What it may become; none if it is left alone.
        reason: Why it is left alone.
    """

    layer: keras.layers.Layer
    spectra: dict[Way, Spectrum]
    options: tuple[Option, ...] = ()
    reason: str = ""


def find_candidates(
    graph: Graph, layers: Callable | None, round_to: int
) -> list[Candidate]:
    """Every layer with a kernel once, in the order of the graph."""
    found = {}
    for step in graph.steps:
        layer = step.operation
        if id(layer) not in found and has_kernel(layer):
            found[id(layer)] = _candidate(layer, layers, round_to)
    return list(found.values())


def _candidate(layer, layers, round_to: int) -> Candidate:
    ways, reason = ways_of(layer)
    if not reason and layers is not None and not layers(layer):
        reason = "left out by `layers`"
    if reason:
        return Candidate(layer, {}, reason=reason)
    kernel = kernel_of(layer)
    if not kernel.any():
        return Candidate(layer, {}, reason="its kernel is zero")
    shapes = {way: way.unfold(kernel).shape for way in ways}
    shapes = {way: (n, m) for way, (n, m) in shapes.items() if _saves(n, m, round_to)}
    if not shapes:
        return Candidate(layer, {}, reason="no rank saves parameters")
    spectra = {way: spectrum(way.unfold(kernel)) for way in shapes}
    return Candidate(layer, spectra, options(shapes, spectra, round_to))


def _saves(n: int, m: int, rank: int) -> bool:
    return rank * (n + m) < n * m


def kernel_of(layer) -> np.ndarray:
    """The layer's kernel in float32; ValueError if it is not finite."""
    kernel = keras.ops.convert_to_numpy(layer.kernel).astype("float32", copy=False)
    if not np.isfinite(kernel).all():
        raise ValueError(
            "Kernels must be finite to be factorised. Received: layer "
            f"{layer.name!r} with {np.count_nonzero(~np.isfinite(kernel))} values that "
            "are not"
        )
    return kernel
