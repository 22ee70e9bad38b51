"""Numbers that change over one `fit`: constant, linear, cosine."""

import dataclasses
import math

import keras

_PACKAGE = "keras_compress"


@dataclasses.dataclass(frozen=True)
class FitSchedule:
    """A number by the share of the fit that is over, from 0.0 to 1.0.

    Any function of that share may stand for one.
    """

    def get_config(self) -> dict:
        """The arguments of `__init__`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict) -> "FitSchedule":
        """The schedule that `get_config` described."""
        return cls(**config)


@keras.saving.register_keras_serializable(package=_PACKAGE)
@dataclasses.dataclass(frozen=True)
class ConstantValue(FitSchedule):
    """A value that is switched off early.

    Args:
        value: the number.
        until: the share of the fit, in (0, 1], after which it is 0.

    Raises:
        ValueError: `until` is not in (0, 1].

    Example:

    >>> from keras_compress.distillation.fit_schedules import ConstantValue
    >>> weight = ConstantValue(0.9, until=0.75)
    >>> weight(0.5), weight(0.8)
    (0.9, 0.0)

    Reference: Cho and Hariharan 2019, On the Efficacy of Knowledge Distillation,
    arXiv:1910.01348, which stops distilling early.
    """

    value: float
    until: float = 1.0

    def __post_init__(self):
        if not 0 < self.until <= 1:
            raise ValueError(
                "`until` must be in (0, 1], the share of the fit after which the value "
                f"is 0. Received: until={self.until!r}"
            )

    def __call__(self, share: float) -> float:
        """The value at a share of the fit."""
        return self.value if share < self.until or self.until == 1 else 0.0


@dataclasses.dataclass(frozen=True)
class _Change(FitSchedule):
    """From one value to another.

    Args:
        initial: the number up to `begin`.
        final: the number from `end` on.
        begin: share of the fit at which it begins to change.
        end: share of the fit at which it has changed.

    Raises:
        ValueError: not 0 <= `begin` < `end` <= 1.
    """

    initial: float
    final: float
    begin: float = 0.0
    end: float = 1.0

    def __post_init__(self):
        if not 0 <= self.begin < self.end <= 1:
            raise ValueError(
                "`begin` and `end` are shares of the fit, 0 <= begin < end <= 1. "
                f"Received: begin={self.begin!r}, end={self.end!r}"
            )

    def __call__(self, share: float) -> float:
        """The value at a share of the fit."""
        part = min(max((share - self.begin) / (self.end - self.begin), 0.0), 1.0)
        changed = self._changed(part)
        return (1 - changed) * self.initial + changed * self.final

    def _changed(self, part):
        raise NotImplementedError


@keras.saving.register_keras_serializable(package=_PACKAGE)
@dataclasses.dataclass(frozen=True)
class LinearValue(_Change):
    """A value that changes evenly.

    Args:
        initial: the number up to `begin`.
        final: the number from `end` on.
        begin: share of the fit, from 0, at which it begins to change.
        end: share of the fit, up to 1, at which it has changed.

    Raises:
        ValueError: not 0 <= `begin` < `end` <= 1.

    Example:

    >>> from keras_compress.distillation.fit_schedules import LinearValue
    >>> temperature = LinearValue(8.0, 2.0, end=0.5)
    >>> temperature(0.0), temperature(0.25), temperature(1.0)
    (8.0, 5.0, 2.0)
    """

    def _changed(self, part):
        return part


@keras.saving.register_keras_serializable(package=_PACKAGE)
@dataclasses.dataclass(frozen=True)
class CosineValue(_Change):
    """A value that changes along half a cosine: slowly, fast, slowly.

    Args:
        initial: the number up to `begin`.
        final: the number from `end` on.
        begin: share of the fit, from 0, at which it begins to change.
        end: share of the fit, up to 1, at which it has changed.

    Raises:
        ValueError: not 0 <= `begin` < `end` <= 1.

    Example:

    >>> from keras_compress.distillation.fit_schedules import CosineValue
    >>> weight = CosineValue(1.0, 0.0)
    >>> round(weight(0.25), 4), round(weight(0.5), 4)
    (0.8536, 0.5)
    """

    def _changed(self, part):
        return (1 - math.cos(math.pi * part)) / 2


def start_of(value):
    """The first value of a schedule; any other value as it is."""
    return value(0.0) if callable(value) else value
