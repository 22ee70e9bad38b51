"""The layers of the first stage beside those of the last, and their weights' values."""

import numpy as np

from keras_compress.pipeline.cells import short
from keras_compress.pipeline.scatter import shortened
from keras_compress.pipeline.stage import Stage
from keras_compress.pipeline.svg import ROLES

# More rows than these are not readable; the layers with most weights are shown.
_MOST = 32
_BAR = 0.4
_ROLES = ("first", "last")


def layer_names(first: Stage, last: Stage) -> tuple[list[str], int]:
    """The layers to draw, in the order of the models, and how many are left out."""
    weights: dict[str, int] = {}
    for stage in (first, last):
        for layer in stage.layers:
            weights[layer.name] = max(weights.get(layer.name, 0), layer.weights)
    largest = sorted(weights, key=weights.get, reverse=True)[:_MOST]
    return [name for name in weights if name in largest], len(weights) - len(largest)


def draw_bars(axes, names: list, pair: tuple, value, text, *, log=False, top=None):
    """One row per layer with a bar for each of the stages that has it.

    Args:
        axes: Matplotlib axes.
        names: The layers.
        pair: The first and the last stage; one stage alone if they are the same.
        value: `LayerAccount` -> number, or None.
        text: Number -> the text beside the bar.
        log: Whether the axis is logarithmic.
        top: Where the axis ends; by default where the longest bar does.
    """
    drawn = _placed_bars(names, pair, value)
    rows, values, sizes, roles = zip(*drawn, strict=True)
    axes.barh(rows, values, sizes, color=[ROLES[role] for role in roles])
    top = top or max(values)
    if log:
        axes.set_xscale("log")
        low = 10 ** np.floor(np.log10(min(values)) - 0.3)
        axes.set_xlim(low, top * (top / low) ** 0.28)
    else:
        axes.set_xlim(0, 1.25 * top)
    for row, number, _, _ in drawn:
        axes.annotate(
            text(number),
            (number, row),
            (3, 0),
            textcoords="offset points",
            va="center_baseline",
            fontsize=9,
            color=ROLES["muted"],
        )
    _one_row_each(axes, names)


def _placed_bars(names: list, pair: tuple, value) -> list[tuple]:
    """(row, value, height, role) of each bar: two share the row of a layer."""
    sides = [
        {layer.name: value(layer) for layer in stage.layers if layer.name in names}
        for stage in pair
    ]
    found = []
    for row, name in enumerate(names):
        known = [i for i, side in enumerate(sides) if side.get(name) is not None]
        for side in known:
            shared = len(known) > 1
            place = row + (side - 0.5) * _BAR * shared
            height = _BAR * (0.9 if shared else 1.4)
            found.append((place, sides[side][name], height, _ROLES[side]))
    return found


def _one_row_each(axes, names: list) -> None:
    axes.set_yticks(range(len(names)), [shortened(name, 18) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xticks([])
    axes.minorticks_off()
    axes.tick_params(length=0)
    axes.spines[["bottom", "left"]].set_visible(False)


def bars_height(names: list) -> float:
    """Inches for this many rows."""
    return 0.35 + 0.3 * max(len(names), 3)


def described_bars(what: str, pair: tuple, value, text) -> str:
    """The bars in words."""
    parts = []
    for stage in pair:
        found = [(layer.name, value(layer)) for layer in stage.layers]
        listed = ", ".join(
            f"{name} {text(number)}" for name, number in found if number is not None
        )
        parts.append(f"{stage.name}: {listed}")
    return f"{what} of each layer. {'; '.join(parts)}"


def draw_histograms(axes, pair: tuple) -> None:
    """The density of the values of all kernels of a stage, on a logarithmic axis."""
    for stage, role in zip(pair, _ROLES, strict=False):
        found = stage.histogram
        if found is None:
            continue
        edges, colour = found.edges(), ROLES[role]
        counts = np.array(found.counts) / (sum(found.counts) + found.beyond)
        counts /= edges[1] - edges[0]
        axes.stairs(counts, edges, fill=True, color=colour, alpha=0.25, lw=0)
        axes.stairs(counts, edges, color=colour, lw=1.4, label=shortened(stage.name))
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
    axes.minorticks_off()
    axes.grid(True)
    axes.tick_params(length=0)
    axes.set(xlabel="value of a weight", ylabel="density")


def draw_layer_histograms(axes, stage: Stage, names: list, role: str) -> None:
    """One row per layer: how often its weights have which value.

    Each row has its own limits, written beside it, and grows with the logarithm of the
    count, so that a peak of zeros leaves the other weights visible.
    """
    layers = {layer.name: layer for layer in stage.layers if layer.histogram}
    shown = [name for name in names if name in layers]
    for row, name in enumerate(shown):
        found = layers[name].histogram
        heights = np.log1p(found.counts) / np.log1p(max(found.counts))
        edges = found.edges() / found.limit
        line = row + 0.4 - 0.8 * heights
        options = {"baseline": row + 0.4, "color": ROLES[role]}
        axes.stairs(line, edges, fill=True, alpha=0.3, lw=0, **options)
        axes.stairs(line, edges, lw=1, **options)
        axes.annotate(
            f"±{found.limit:.2g}",
            (1, row),
            (5, 0),
            textcoords="offset points",
            va="center_baseline",
            fontsize=9,
            color=ROLES["muted"],
        )
    axes.set_xlim(-1.02, 1.35)
    _one_row_each(axes, shown)


def weights_text(number: float) -> str:
    """A count for people."""
    return short(number)


def share_text(number: float) -> str:
    """A share in percent."""
    if 0 < number < 1e-4:
        return "<0.01 %"
    return f"{100 * number:.3g} %"


def bits_text(number: float) -> str:
    """A number of bits."""
    return f"{number} bit"
