"""How many channels each group keeps, so that a share of the model's cost is left."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from keras_compress.accounting.macs import cost_of
from keras_compress.channels.groups import Coupling
from keras_compress.graph.shapes import with_open_size

# Height, width or length of inputs that leave it open, for their MACs. Shares of MACs
# hardly depend on it.
OPEN_SIZE = 224
# How near to a share is near enough, and how many groups are tried to get there.
_NEAR = 0.002
_TRIES = 200


@dataclass(frozen=True, eq=False)
class Measure:
    """MACs or parameters of the model as a function of how many channels groups keep.

    Every term is a constant times the product of the widths of a weight's axes, and the
    width of an axis is linear in the kept channels.

    Attributes:
        places: float array (axes, groups): on how many places of an axis each channel
            of a group is.
        base: float array (axes,): what else is on it.
        terms: (factor, numbers of the axes) of each weight.
        constant: What no surgery changes.
    """

    places: np.ndarray
    base: np.ndarray
    terms: tuple
    constant: float

    def __call__(self, kept: np.ndarray) -> float:
        """The cost with these numbers of kept channels, one for each group."""
        widths = self.base + self.places @ kept
        return self.constant + sum(f * widths[axes].prod() for f, axes in self.terms)


def measure(coupling: Coupling, what: str) -> Measure:
    """The `Measure` of "macs" or "params" of a model."""
    factors, constant = _FACTORS[what](coupling)
    rows, base, terms = [], [], []
    for surgery in coupling.flow.surgeries.values():
        axes_of: dict[int, list] = {}
        for cut in surgery.cuts.values():
            axes_of.setdefault(id(cut.variable), []).append(cut)
        for key, cuts in axes_of.items():
            factor = factors.pop(key, 0)
            if not factor:
                continue
            numbers = range(len(rows), len(rows) + len(cuts))
            terms.append(
                (factor / math.prod(len(c.slots) for c in cuts), list(numbers))
            )
            for cut in cuts:
                row, rest = _row(coupling, cut.slots)
                rows.append(row)
                base.append(rest)
    # Weights that no channel is removed from.
    constant += sum(factors.values())
    places = np.array(rows).reshape(len(rows), len(coupling.groups))
    return Measure(places, np.array(base), tuple(terms), constant)


def _row(coupling: Coupling, slots: np.ndarray) -> tuple[np.ndarray, int]:
    groups = coupling.group_of[coupling.roots[slots]]
    counts = np.bincount(groups[groups >= 0], minlength=len(coupling.groups))
    sizes = np.array([group.size for group in coupling.groups])
    return counts / sizes, int(np.count_nonzero(groups < 0))


def _macs(coupling: Coupling) -> tuple[dict[int, float], float]:
    factors, constant = {}, 0
    graph = with_open_size(coupling.graph, OPEN_SIZE)
    for step in graph.steps:
        cost = cost_of(step, graph)
        constant += cost.others
        for product in cost.products:
            key, size = id(product.weights), math.prod(product.weights.shape)
            factors[key] = factors.get(key, 0) + size * product.positions
    return factors, constant


def _params(coupling: Coupling) -> tuple[dict[int, float], float]:
    factors = {}
    for step in coupling.graph.steps:
        for variable in getattr(step.operation, "weights", ()):
            factors[id(variable)] = math.prod(variable.shape)
    return factors, 0


_FACTORS = {"macs": _macs, "params": _params}


@dataclass(frozen=True, eq=False)
class Rounding:
    """Which numbers of channels a group may keep: multiples of a step, or all.

    Attributes:
        sizes: int array (groups,).
        steps: int array (groups,).
        least: int array (groups,), the size itself where nothing is removed.
    """

    sizes: np.ndarray
    steps: np.ndarray
    least: np.ndarray

    def __call__(self, wanted: np.ndarray) -> np.ndarray:
        """The allowed numbers nearest to the wanted ones."""
        lower = wanted // self.steps * self.steps
        upper = np.minimum(lower + self.steps, self.sizes)
        nearest = np.where(wanted - lower < upper - wanted, lower, upper)
        return np.clip(nearest, self.least, self.sizes)

    def with_least(self, share: float) -> "Rounding":
        """The same with at least this share of each group's channels."""
        wanted = np.ceil(share * self.sizes / self.steps).astype(int) * self.steps
        least = np.maximum(self.least, np.minimum(wanted, self.sizes))
        return replace(self, least=least)

    def next_below(self, kept: np.ndarray, group: int) -> np.ndarray:
        """These numbers, that of one group the next smaller one allowed."""
        step, fewer = self.steps[group], kept.copy()
        fewer[group] = max((kept[group] - 1) // step * step, self.least[group])
        return fewer


def rounding(
    coupling: Coupling, scores: Sequence, round_to: int, min_channels: int
) -> Rounding:
    """The `Rounding` under which layers make multiples of `round_to` channels.

    A group whose score is None stays whole.
    """
    sizes, steps, least = [], [], []
    for group, score in zip(coupling.groups, scores, strict=True):
        places = [a.index.shape[1] for a in group.axes if a.role == "out"]
        step = math.lcm(*(round_to // math.gcd(round_to, n) for n in places or [1]))
        floor = math.ceil(min_channels / step) * step
        sizes.append(group.size)
        steps.append(step)
        least.append(group.size if score is None else min(floor, group.size))
    return Rounding(np.array(sizes), np.array(steps), np.array(least))


def uniform(rounded: Rounding, ratio: float) -> np.ndarray:
    """Each group keeps this share of its channels."""
    return rounded(np.floor(rounded.sizes * ratio + 0.5).astype(int))


def removal_order(coupling: Coupling, scores: Sequence) -> np.ndarray:
    """The group of each channel, in the order in which channels are removed."""
    judged = [(g, s) for g, s in enumerate(scores) if s is not None]
    if not judged:
        return np.empty(0, int)
    groups = np.concatenate([np.full(len(s), g) for g, s in judged])
    values = np.concatenate([s for _, s in judged])
    return groups[np.argsort(values, kind="stable")]


def to_budget(
    cost: Measure, rounded: Rounding, order: np.ndarray, share: float
) -> np.ndarray:
    """How many channels each group keeps, so that this share of the cost is left.

    The first n channels of the order are removed, then each group's number is rounded;
    n is found by bisection. Where the next channel would take too much, groups further
    on in the order give theirs.
    """
    full = cost(rounded.sizes)

    def left(kept: np.ndarray) -> float:
        return cost(kept) / full

    def kept(n: int) -> np.ndarray:
        gone = np.bincount(order[:n], minlength=len(rounded.sizes))
        return rounded(rounded.sizes - gone)

    low, high = 0, len(order)
    while high - low > 1:
        middle = (low + high) // 2
        if left(kept(middle)) > share:
            low = middle
        else:
            high = middle
    above = kept(low)
    for group in order[low:][:_TRIES]:
        if left(above) < share * (1 + _NEAR):
            break
        fewer = rounded.next_below(above, group)
        if left(fewer) >= share:
            above = fewer
    return min((above, kept(high)), key=lambda found: abs(left(found) - share))
