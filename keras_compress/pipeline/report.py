"""`CompressionReport`: what each stage of a compression costs and is worth."""

import json
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras

from keras_compress.pipeline.cells import headers, metric_names, rows
from keras_compress.pipeline.checks import (
    checked_commands,
    checked_metrics,
    checked_name,
    checked_training,
)
from keras_compress.pipeline.environment import environment
from keras_compress.pipeline.files import write_whole
from keras_compress.tables import tabulate

if TYPE_CHECKING:
    from keras_compress.pipeline.stage import Stage

_FORMAT = 1


class CompressionReport:
    """One account of all stages of a compression; `str()` of it is a table.

    Add the stages in the order in which they were made. `rich.print` shows a
    narrower one, with rounded numbers.

    Args:
        title: The heading of the page.
        commands: A str or several: the command lines that make these stages again.
        metric: The metric that plots show; by default the first one of the first stage
            that has any.

    Raises:
        ValueError: If an argument is of another kind.

    Example:

    ```python
    report = kc.CompressionReport("Digits on a phone", "python compress.py --seed=0")
    report.add_stage("teacher", teacher, {"accuracy": 0.94})
    report.add_stage("int8", "student.tflite", {"accuracy": 0.93})
    print(report)
    report.to_html("report.html")
    ```
    """

    def __init__(
        self,
        title: str = "Compression report",
        commands: str | Sequence[str] = (),
        *,
        metric: str | None = None,
    ) -> None:
        for name, value in (("title", title), ("metric", metric or "-")):
            if not isinstance(value, str) or not value.strip():
                raise ValueError(
                    f"`{name}` must be a str that is not empty. Received: "
                    f"{name}={value!r}"
                )
        self.title = title
        self.commands = checked_commands(commands)
        self.environment = environment()
        self._metric = metric
        self._stages: list = []

    @property
    def stages(self) -> tuple["Stage", ...]:
        """The stages so far."""
        return tuple(self._stages)

    @property
    def metric(self) -> str | None:
        """The metric that plots show; None while no stage has one."""
        return self._metric or next(iter(metric_names(self._stages)), None)

    def add_stage(
        self, name: str, model, metrics: dict | None = None, *, training=None
    ) -> "Stage":
        """Measure a model or a file and add it as the next row.

        Of a model that is the parameters, non-zeros, MACs and bytes of `profile`; of a
        file all that `tflite_export.inspect` reads, the weights in it, and the latency
        of `tflite_export.benchmark` with one thread on this machine.

        Args:
            name: The stage's name, which no other stage of this report has.
            model: A built Functional or Sequential model, or the path of a `.tflite`
                file. It is only read.
            metrics: Metric name -> number, such as `{"accuracy": 0.93}` or what
                `model.evaluate(..., return_dict=True)` returns.
            training: `{"seconds": ..., "samples": ...}`, one or both: how long this
                stage trained and how many examples it saw, repetitions counted.

        Returns:
            The `Stage`, a frozen dataclass. What is not known is None in it, and a dash
            in tables.

        Raises:
            ValueError: If the name is taken, there is no such file, `model` is neither
                a model nor a `.tflite` file, or a metric is not a finite number. The
                report then stays as it was.
        """
        # Here, since importing the package shall cost little.
        from keras_compress.pipeline.file_account import file_account
        from keras_compress.pipeline.keras_account import keras_account
        from keras_compress.pipeline.stage import Stage

        name = checked_name(name, [stage.name for stage in self._stages])
        known = {"name": name, "metrics": checked_metrics(metrics)}
        known |= checked_training(training)
        if isinstance(model, keras.Model):
            known |= keras_account(model)
        elif isinstance(model, str | os.PathLike):
            known |= file_account(model)
        else:
            raise ValueError(
                "`model` must be a keras.Model or the path of a .tflite file. "
                f"Received: model={model!r} of type {type(model).__name__}"
            )
        stage = Stage(**known)
        self._stages.append(stage)
        return stage

    def to_json(self, path=None) -> str:
        """All numbers, losslessly.

        Args:
            path: Where to write them; the file appears whole or not at all. None:
                nowhere.

        Returns:
            The text of the file.

        Raises:
            ValueError: If the report has no stage.
            OSError: If the file cannot be written.
        """
        self._check_stages()
        content = {
            "format": _FORMAT,
            "title": self.title,
            "commands": self.commands,
            "metric": self._metric,
            "environment": self.environment,
            "stages": [stage.to_dict() for stage in self._stages],
        }
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        if path is not None:
            write_whole(path, text)
        return text

    @classmethod
    def from_json(cls, path) -> "CompressionReport":
        """The report that `to_json` wrote.

        Args:
            path: File name.

        Raises:
            OSError: If the file cannot be read.
            ValueError: If it is not such a file.
        """
        from keras_compress.pipeline.stage import Stage

        try:
            content = json.loads(pathlib.Path(path).read_bytes())
            if content["format"] != _FORMAT:
                raise ValueError(f"its format is {content['format']!r}, not {_FORMAT}")
            report = cls(
                content["title"], content["commands"], metric=content["metric"]
            )
            report.environment = dict(content["environment"])
            report._stages = [Stage.from_dict(found) for found in content["stages"]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                "`path` must be a file that CompressionReport.to_json wrote. Received: "
                f"path={str(path)!r} ({type(error).__name__}: {error}). Write it again"
            ) from error
        return report

    def to_html(self, path) -> None:
        """Write one page that needs neither a network nor JavaScript.

        It holds the table, plots of the metric against size, latency and MACs, the
        layers and weights of the first and of the last stage, the commands, the CPU and
        the versions.

        Args:
            path: Where to write it; the file appears whole or not at all.

        Raises:
            ValueError: If the report has no stage.
            ImportError: If Jinja2 or Matplotlib is not installed.
            OSError: If the file cannot be written.
        """
        self._check_stages()
        from keras_compress.pipeline.page import page

        write_whole(path, page(self))

    def __str__(self) -> str:
        if not self._stages:
            return f"{self.title}: no stage yet; add one with add_stage(name, model)"
        names = headers(self._stages)
        align = ("left", *("right",) * (len(names) - 1))
        table = tabulate(
            rows(self._stages), names, disable_numparse=True, colalign=align
        )
        return "\n".join([self.title, table, *self.latency_notes()])

    def __rich__(self):
        """A narrower table for `rich.print`."""
        from rich.box import SIMPLE
        from rich.table import Table
        from rich.text import Text

        names = headers(self._stages)
        notes = Text("\n".join(self.latency_notes()))
        table = Table(
            title=Text(self.title), caption=notes, box=SIMPLE, padding=(0, 1, 0, 0)
        )
        for place, name in enumerate(names):
            table.add_column(Text(name), justify="right" if place else "left")
        for row in rows(self._stages, exact=False):
            table.add_row(*map(Text, row))
        return table

    def latency_notes(self) -> list[str]:
        """How the latencies were measured, each way once."""
        timed = [stage.latency for stage in self._stages if stage.latency]
        return list(dict.fromkeys(f"latency: {latency.how}" for latency in timed))

    def _check_stages(self) -> None:
        if not self._stages:
            raise ValueError(
                f"The report {self.title!r} needs at least one stage. Received: none. "
                "Add one with report.add_stage(name, model_or_tflite_path, metrics)"
            )
