"""Which rank each layer gets: by the energy it keeps, or to meet a budget."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_compress.factorization.spectrum import Spectrum
from keras_compress.factorization.ways import Way

# How finely the parameters to spend are told apart.
_SHARES = 8192


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
    """The options that together have so many params, or a little fewer.

    They keep the largest product of energies: a knapsack problem with one option per
    layer, solved by dynamic programming over shares of what there is to spend beyond
    the cheapest options. What the rounding to such shares leaves is spent where it
    brings most.

    Source: the product of energies is from Zhang et al. 2015, 1505.06798.
    """
    if total([layer[-1] for layer in layers]) <= wanted:
        return [layer[-1] for layer in layers]
    curves = [_Curve.of(layer) for layer in layers]
    spare = wanted - sum(int(curve.params[0]) for curve in curves)
    places = [0] * len(layers)
    if spare > 0:
        places = _filled(curves, _packed(curves, spare / _SHARES), wanted)
    return [layer[place] for layer, place in zip(layers, places, strict=True)]


def _packed(curves: list["_Curve"], share: float) -> list[int]:
    """The places of the best options that need no more than `_SHARES` shares."""
    # The least cost with so many shares, by the layers so far.
    least, choices, needs = np.zeros(_SHARES + 1), [], []
    for curve in curves:
        need = np.ceil((curve.params - curve.params[0]) / share).astype(int)
        better, choice = np.full_like(least, np.inf), np.zeros(len(least), "int32")
        for place in np.flatnonzero(need <= _SHARES):
            costs = least[: len(least) - need[place]] + curve.cost[place]
            wins = costs < better[need[place] :]
            better[need[place] :][wins] = costs[wins]
            choice[need[place] :][wins] = place
        least = better
        choices.append(choice)
        needs.append(need)
    left, places = _SHARES, []
    for choice, need in zip(reversed(choices), reversed(needs), strict=True):
        places.append(int(choice[left]))
        left -= need[places[-1]]
    return places[::-1]


@dataclass(frozen=True, eq=False)
class _Curve:
    """The options of one layer as arrays: params, and -log of the energy kept."""

    params: np.ndarray
    cost: np.ndarray

    @classmethod
    def of(cls, layer: tuple[Option, ...]) -> "_Curve":
        energy = np.array([1 - option.lost for option in layer])
        cost = -np.log(np.maximum(energy, np.finfo("float64").tiny))
        return cls(np.array([option.params for option in layer]), cost)

    def best_step(self, place: int, room: float) -> tuple[float, int]:
        """(gain per param, place) of the best larger option that fits."""
        more = self.params - self.params[place]
        fits = (more > 0) & (more <= room)
        gain = (self.cost[place] - self.cost) / np.where(fits, more, 1)
        best = int(np.where(fits, gain, 0.0).argmax())
        return (float(gain[best]), best) if fits.any() else (0.0, place)


def _filled(curves: list[_Curve], places: list[int], wanted: float) -> list[int]:
    """The choice with larger options where they fit, the most worthwhile first."""
    places = list(places)
    room = wanted - sum(c.params[p] for c, p in zip(curves, places, strict=True))
    while True:
        steps = [c.best_step(p, room) for c, p in zip(curves, places, strict=True)]
        number = max(range(len(steps)), key=lambda n: steps[n][0], default=None)
        if number is None or steps[number][0] <= 0:
            return places
        curve, place = curves[number], steps[number][1]
        room -= curve.params[place] - curve.params[places[number]]
        places[number] = place


def total(chosen: Sequence[Option]) -> int:
    """Numbers in all kernels together."""
    return sum(option.params for option in chosen)
