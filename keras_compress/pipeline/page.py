"""The page of a report."""

from dataclasses import dataclass

from keras_compress.pipeline import cells
from keras_compress.pipeline.layer_bars import (
    bars_height,
    bits_text,
    described_bars,
    draw_bars,
    draw_histograms,
    draw_layer_histograms,
    layer_names,
    share_text,
    weights_text,
)
from keras_compress.pipeline.scatter import described, draw_scatter
from keras_compress.pipeline.svg import svg

_TIMES, _MINUS = "\N{MULTIPLICATION SIGN}", "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Plot:
    """A figure of the page: `svg` is empty where nothing is known to draw."""

    name: str
    heading: str
    svg: str


@dataclass(frozen=True)
class Tile:
    """One large number at the head of the page and what it is made of."""

    label: str
    value: str
    detail: str


def page(report) -> str:
    """The report as one HTML page.

    Raises:
        ImportError: If Jinja2 or Matplotlib is not installed.
    """
    try:
        import jinja2
        import matplotlib  # noqa: F401
        from markupsafe import Markup
    except ImportError as error:
        raise ImportError(
            "The page of a report needs Jinja2 and Matplotlib. Install them with: pip "
            'install "keras_compress[report]". Without them, print() and to_json have '
            f"the same numbers. Received: {error}"
        ) from error
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("keras_compress.pipeline", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names, left_out = layer_names(report.stages[0], report.stages[-1])
    return templates.get_template("report.html").render(
        report=report,
        headers=cells.headers(report.stages),
        rows=cells.rows(report.stages),
        tiles=tiles(report),
        scatters=scatters(report),
        bars=bars(report, names),
        histograms=histograms(report, names),
        left_out=left_out,
        ends=_ends(report),
        markup=Markup,
        unknown=cells.UNKNOWN,
    )


def tiles(report) -> list[Tile]:
    """The last stage against the first one."""
    first, last = report.stages[0], report.stages[-1]
    found = []
    if report.metric is not None:
        values = [stage.metrics.get(report.metric) for stage in (first, last)]
        texts = [cells.metric_text(report.metric, value) for value in values]
        found.append(Tile(report.metric, texts[1], _change(*values, report.metric)))
    rows = (
        (("smaller", "larger", "size"), "bytes", lambda n: cells.short(n, "B")),
        (("fewer MACs", "more MACs", "MACs"), "macs", cells.short),
        (("faster", "slower", "latency"), "latency_ms", cells.milliseconds),
    )
    for labels, name, text in rows:
        before, after = getattr(first, name), getattr(last, name)
        both = [cells.UNKNOWN if n is None else text(n) for n in (before, after)]
        label, ratio = labels[2], cells.UNKNOWN
        if before and after:
            # Below one it is told the other way round.
            label = labels[2] if before == after else labels[before < after]
            ratio = f"{_ratio(max(before, after) / min(before, after))}{_TIMES}"
        found.append(Tile(label, ratio, " → ".join(both)))
    return found


def scatters(report) -> list[Plot]:
    """The metric against each cost."""
    costs = (
        ("size", "bytes", "size", lambda n: cells.short(n, "B")),
        ("latency", "latency_ms", "latency of one run", cells.milliseconds),
        ("MACs", "macs", "multiply-accumulates (MACs)", cells.short),
    )
    found = []
    for name, attribute, label, text in costs:
        points = _points(report, attribute)
        metric = report.metric or "metric"
        heading = f"{metric[:1].upper()}{metric[1:]} and {name}"
        drawn = ""
        if points:
            drawn = svg(
                f"plot-{name.lower()}",
                described(points, report.metric, label, text),
                lambda axes, points=points, label=label, text=text: draw_scatter(
                    axes, points, report.metric, label, text
                ),
            )
        found.append(Plot(name.lower(), heading, drawn))
    return found


def bars(report, names: list) -> list[Plot]:
    """The layers of the first and the last stage."""
    pair = _ends(report)
    rows = (
        ("weights", "Weights", lambda layer: layer.weights, weights_text, True, None),
        ("zeros", "Zeros", lambda layer: layer.sparsity, share_text, False, 1),
        ("bits", "Bits per weight", lambda layer: layer.bits, bits_text, False, 32),
    )
    found = []
    for name, heading, value, text, log, top in rows:
        drawn = ""
        if any(value(layer) is not None for stage in pair for layer in stage.layers):
            drawn = svg(
                f"plot-{name}",
                described_bars(heading, pair, value, text),
                lambda axes, value=value, text=text, log=log, top=top: draw_bars(
                    axes, names, pair, value, text, log=log, top=top
                ),
                height=bars_height(names),
            )
        found.append(Plot(name, f"{heading} by layer", drawn))
    return found


def histograms(report, names: list) -> list[Plot]:
    """The values of the weights, of all together and layer by layer."""
    pair = _ends(report)
    drawn = ""
    if any(stage.histogram for stage in pair):
        label = f"Values of all weights of {' and '.join(s.name for s in pair)}"
        drawn = svg("plot-values", label, lambda axes: draw_histograms(axes, pair))
    found = [Plot("values", "All weights", drawn)]
    for stage, role in zip(pair, ("first", "last"), strict=False):
        shown = [n.name for n in stage.layers if n.histogram and n.name in names]
        drawn = ""
        if shown:
            drawn = svg(
                f"plot-values-{role}",
                f"Values of the weights of each layer of {stage.name}",
                lambda axes, stage=stage, role=role: draw_layer_histograms(
                    axes, stage, names, role
                ),
                height=bars_height(shown),
            )
        found.append(Plot(f"values-{role}", stage.name, drawn))
    return found


def _ends(report) -> tuple:
    """The first and the last stage, once if there is only one."""
    return (report.stages[0], report.stages[-1])[: len(report.stages)]


def _points(report, attribute: str) -> list[tuple]:
    found = []
    for place, stage in enumerate(report.stages):
        cost, value = getattr(stage, attribute), stage.metrics.get(report.metric)
        role = "first" if place == 0 else "between"
        if place == len(report.stages) - 1 and place:
            role = "last"
        if cost and value is not None:
            found.append((stage.name, cost, value, role))
    return found


def _change(before: float | None, after: float | None, metric: str) -> str:
    if None in (before, after):
        return " → ".join(cells.metric_text(metric, v) for v in (before, after))
    if cells.is_share(metric):
        return (
            f"from {cells.metric_text(metric, before)}, "
            f"{_signed(100 * (after - before))} points"
        )
    return f"from {cells.metric_text(metric, before)}"


def _signed(number: float) -> str:
    return f"{number:+.2f}".replace("-", _MINUS)


def _ratio(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
