"""What a report takes, and the errors for anything else."""

import math
import numbers
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

_NOT_NUMBERS = (bool, np.bool_, str, bytes, complex)


def checked_name(name, taken: list[str]) -> str:
    """A name that is readable in one line and not taken."""
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise ValueError(
            "`name` must be a str of printable characters, the stage's name in tables "
            f"and plots. Received: name={name!r}"
        )
    if name in taken:
        raise ValueError(
            f"`name` must differ from those of the stages before, {taken}. Received: "
            f"name={name!r}. Give it another name, such as {name + ' 2'!r}"
        )
    return name


def checked_metrics(metrics) -> MappingProxyType:
    """Name -> finite float."""
    if metrics is None:
        return MappingProxyType({})
    if not isinstance(metrics, Mapping):
        raise ValueError(
            '`metrics` must be a dict of name -> number, such as {"accuracy": 0.93} or '
            "what model.evaluate(..., return_dict=True) returns. Received: "
            f"metrics={metrics!r}"
        )
    for name in metrics:
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise ValueError(
                f"Names of metrics must be a str of printable characters. Received: "
                f"metrics={metrics!r}"
            )
    found = {name: _number(value) for name, value in metrics.items()}
    for name, number in found.items():
        if number is None or not math.isfinite(number):
            raise ValueError(
                f"`metrics` must hold finite numbers. Received: metrics[{name!r}]="
                f"{metrics[name]!r}. Leave out what was not measured"
            )
    return MappingProxyType(found)


def checked_training(training) -> dict:
    """`seconds` and `samples` of a stage's training, those that are given."""
    if training is None:
        return {}
    known = {"seconds", "samples"}
    if not isinstance(training, Mapping) or not set(training) <= known:
        raise ValueError(
            '`training` must be a dict with "seconds", "samples" or both, such as '
            f'{{"seconds": 81.5, "samples": 60000}}. Received: training={training!r}'
        )
    found = {name: _number(value) for name, value in training.items()}
    for name, number in found.items():
        good = number is not None and math.isfinite(number) and number >= 0
        if not good or (name == "samples" and number != int(number)):
            kind = "whole number" if name == "samples" else "number"
            raise ValueError(
                f"`training[{name!r}]` must be a {kind} of at least 0. Received: "
                f"{training[name]!r}. Leave out what was not measured"
            )
    if "samples" in found:
        found["samples"] = int(found["samples"])
    return found


def checked_commands(commands) -> tuple[str, ...]:
    """Command lines, from one str or several."""
    lines = (commands,) if isinstance(commands, str) else commands
    try:
        lines = tuple(lines)
    except TypeError:
        lines = (None,)
    if not all(isinstance(line, str) for line in lines):
        raise ValueError(
            "`commands` must be a str or several, the command lines that make these "
            f"stages again. Received: commands={commands!r}"
        )
    return lines


def _number(value) -> float | None:
    """A number of Python, NumPy or TensorFlow as a float; None for anything else."""
    if isinstance(value, _NOT_NUMBERS):
        return None
    if isinstance(value, numbers.Real):
        return float(value)
    try:
        array = np.asarray(value)
        return float(array) if array.ndim == 0 and array.dtype.kind in "iuf" else None
    except (TypeError, ValueError):
        return None
