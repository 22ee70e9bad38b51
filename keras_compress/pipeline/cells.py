"""The numbers of a report as text: one row of cells per stage."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_compress.pipeline.stage import Stage

UNKNOWN = "—"
HEADERS = (
    "parameters",
    "non-zero",
    "MACs",
    "bytes",
    "gzip bytes",
    "latency",
    "samples",
    "seconds",
)


def headers(stages) -> tuple[str, ...]:
    """The columns: the stage, its metrics, and what it costs."""
    return ("stage", *metric_names(stages), *HEADERS)


def rows(stages, *, exact: bool = True) -> list[tuple[str, ...]]:
    """One row of text for each stage; what is not known is a dash.

    Counts have all their digits if `exact`, else three and a prefix.
    """
    names = metric_names(stages)
    count = _exact if exact else short
    return [_row(stage, names, count) for stage in stages]


def metric_names(stages) -> tuple[str, ...]:
    """The metrics of all stages, in the order in which they first appear."""
    return tuple(dict.fromkeys(name for stage in stages for name in stage.metrics))


def metric_text(name: str, value: float | None) -> str:
    """An accuracy in percent, any other metric in four digits."""
    if value is None:
        return UNKNOWN
    if is_share(name) and 0 <= value <= 1:
        return f"{100 * value:.2f} %"
    return f"{value:.4g}"


def is_share(name: str) -> bool:
    """Whether the metric is shown in percent."""
    return "accuracy" in name.lower()


def short(number: float, unit: str = "") -> str:
    """Three digits and a prefix, such as "1.25 MB"."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * factor:
            return f"{number / factor:.3g} {prefix}{unit}"
    return f"{number:.3g} {unit}".rstrip()


def milliseconds(number: float | None) -> str:
    """Three digits and "ms"."""
    if number is None:
        return UNKNOWN
    return f"{number:.3g} ms" if number < 1000 else f"{number:,.0f} ms"


def _row(stage: "Stage", names: tuple[str, ...], count) -> tuple[str, ...]:
    counts = (stage.params, stage.nonzero, stage.macs, stage.bytes, stage.gzip_bytes)
    return (
        stage.name,
        *(metric_text(name, stage.metrics.get(name)) for name in names),
        *(UNKNOWN if n is None else count(n) for n in counts),
        milliseconds(stage.latency_ms),
        UNKNOWN if stage.samples is None else count(stage.samples),
        UNKNOWN if stage.seconds is None else f"{stage.seconds:,.1f}",
    )


def _exact(number: int) -> str:
    return f"{number:,}"
