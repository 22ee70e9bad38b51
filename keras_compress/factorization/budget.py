"""Which rank each layer gets: by the energy it keeps, or to meet a number of params."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_compress.factorization.spectrum import Spectrum
from keras_compress.factorization.ways import Way


@dataclass(frozen=True)
class Option:
    """What a kernel may become.

    Attributes:
        params: Numbers in it.
        lost: The share of its energy that is lost.
        way: How it is factorised; None for the kernel as it is.
        rank: Of the product; 0 for the kernel as it is.
    """

    params: int
    lost: float
    way: Way | None = None
    rank: int = 0


def options(
    shapes: dict[Way, tuple[int, int]], spectra: dict[Way, Spectrum], round_to: int
) -> tuple[Option, ...]:
    """What is worth choosing for a kernel, the cheapest first.

    Every option loses less than all cheaper ones. Ranks are multiples of `round_to`
    that save parameters. The last option is the kernel as it is, or has its rank.
    """
    found = []
    for way, (n, m) in shapes.items():
        found.append(Option(n * m, 0.0))
        lost = spectra[way].lost
        for rank in range(round_to, -(-n * m // (n + m)), round_to):
            found.append(Option(rank * (n + m), float(lost[rank]), way, rank))
    found.sort(key=lambda option: (option.params, option.lost))
    best, worth = np.inf, []
    for option in found:
        if option.lost < best:
            best = option.lost
            worth.append(option)
    return tuple(worth)


def by_energy(layers: Sequence[tuple[Option, ...]], energy: float) -> list[Option]:
    """The cheapest option of each layer that keeps this share of its energy."""
    return [
        next(option for option in layer if option.lost <= 1 - energy)
        for layer in layers
    ]


def by_params(layers: Sequence[tuple[Option, ...]], wanted: float) -> list[Option]:
    """The options that together have as many params, or as near as rounding allows.

    One energy for all layers, found by bisection.
    """
    if not layers:
        return []
    limits = np.unique([option.lost for layer in layers for option in layer])

    def chosen(number: int) -> list[Option]:
        return by_energy(layers, 1 - limits[number])

    low, high = 0, len(limits) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if total(chosen(middle)) > wanted:
            low = middle
        else:
            high = middle
    return min((chosen(low), chosen(high)), key=lambda c: abs(total(c) - wanted))


def total(chosen: Sequence[Option]) -> int:
    """Numbers in all kernels together."""
    return sum(option.params for option in chosen)
