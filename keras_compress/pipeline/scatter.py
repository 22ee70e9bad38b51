"""A metric against a cost, one labelled point per stage."""

import math
from itertools import pairwise

import numpy as np

from keras_compress.pipeline.cells import is_share, metric_text
from keras_compress.pipeline.svg import ROLES

_LONGEST = 26
# Where a label may stand, best first: (dx, dy) in points, and its alignments.
_PLACES = [
    place
    for far in (1, 2.2, 3.6)
    for place in (
        (7, 0, "left", "center"),
        (-7, 0, "right", "center"),
        (0, 8 * far, "center", "bottom"),
        (0, -8 * far, "center", "top"),
        (6, 6 * far, "left", "bottom"),
        (6, -6 * far, "left", "top"),
        (-6, 6 * far, "right", "bottom"),
        (-6, -6 * far, "right", "top"),
    )
]


def draw_scatter(axes, points: list, metric: str, xlabel: str, xtext) -> None:
    """Draw the points and the way from one to the next.

    Args:
        axes: Matplotlib axes.
        points: `(name, cost, value, role)` of each stage; costs above zero.
        metric: Name of the metric.
        xlabel: Name and unit of the cost.
        xtext: Cost -> text of a tick.
    """
    names, costs, values, roles = zip(*points, strict=True)
    axes.set_xscale("log")
    _limits(axes, costs, values, is_share(metric))
    axes.grid(True)
    axes.tick_params(which="both", length=0)
    axes.plot(costs, values, color=ROLES["between"], lw=1.2, ls=(0, (2, 2)), zorder=2)
    colours = [ROLES[role] for role in roles]
    axes.scatter(
        costs, values, 52, colours, edgecolors=ROLES["card"], linewidths=1.5, zorder=3
    )
    axes.set(xlabel=xlabel, ylabel=metric)
    axes.set_xticks(_log_ticks(*axes.get_xlim()))
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(lambda x, _: xtext(x))
    if is_share(metric):
        axes.yaxis.set_major_formatter(lambda y, _: f"{100 * y:.4g} %")
    _label(axes, names, costs, values, roles)


def described(points: list, metric: str, cost: str, xtext) -> str:
    """The points in words."""
    listed = "; ".join(
        f"{name}: {metric_text(metric, value)} at {xtext(x)}"
        for name, x, value, _ in points
    )
    return f"{metric} against {cost}. {listed}"


def shortened(name: str, longest: int = _LONGEST) -> str:
    """A name that leaves room for the plot."""
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def _limits(axes, costs, values, share: bool) -> None:
    low, high = math.log10(min(costs)), math.log10(max(costs))
    room = max(0.18 * (high - low), 0.3)
    axes.set_xlim(10 ** (low - room), 10 ** (high + room))
    bottom, top = min(values), max(values)
    room = max(0.25 * (top - bottom), 0.005 if share else 1e-3 * abs(top), 1e-9)
    axes.set_ylim(bottom - room, top + room)


def _log_ticks(low: float, high: float) -> list[float]:
    """At most five round numbers: powers of ten, or 1, 2 and 5 times these."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [f * 10.0**e for e in exponents for f in factors]
        # A tick in the corner would write over the lowest one of the other axis.
        found = [tick for tick in found if low * (high / low) ** 0.06 <= tick <= high]
        if len(found) <= 5:
            return found
    return found[:: math.ceil(len(found) / 5)]


def _label(axes, names, costs, values, roles) -> None:
    """A name beside each point, where it covers neither points nor other names."""
    axes.figure.draw_without_rendering()
    data = list(zip(costs, values, strict=True))
    pixels = axes.transData.transform(data)
    taken = [_around(pixel) for pixel in pixels]
    way = np.concatenate(
        [np.linspace(a, b, 50) for a, b in pairwise(pixels)] or [pixels]
    )
    frame = axes.get_window_extent()
    for name, point, role in zip(names, data, roles, strict=True):
        short = shortened(name)
        taken.append(_placed(axes, short, point, role, taken, way, frame))


def _placed(axes, name, point, role, taken, way, frame):
    """Write a name where it covers least; returns what it covers."""
    best = None
    for dx, dy, across, upright in _PLACES:
        text = axes.annotate(
            name,
            point,
            (dx, dy),
            textcoords="offset points",
            ha=across,
            va=upright,
            color=ROLES["ink" if role == "between" else role],
            fontweight="normal" if role == "between" else "bold",
            zorder=4,
            in_layout=False,
        )
        box = text.get_window_extent()
        covered = 2 * sum(box.overlaps(other) for other in taken)
        covered += any(box.contains(*pixel) for pixel in way)
        covered += 2 * (not (frame.x0 <= box.x0 and box.x1 <= frame.x1))
        covered += 2 * (not (frame.y0 <= box.y0 and box.y1 <= frame.y1))
        worse = text
        if best is None or covered < best[0]:
            worse = best and best[1]
            best = covered, text, box
        if worse is not None:
            worse.remove()
        if covered == 0:
            break
    return best[2]


def _around(pixel):
    from matplotlib.transforms import Bbox

    x, y = pixel
    return Bbox.from_extents(x - 5, y - 5, x + 5, y + 5)
