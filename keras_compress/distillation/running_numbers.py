"""Numbers of one `fit`: schedules as variables, so that nothing is traced again."""

from collections.abc import Callable

import keras

from keras_compress.distillation.objective import check_number


class RunningNumbers:
    """Gives the numbers that change over a fit as variables, and moves them.

    Args:
        given: by name a number, or a schedule: a function of the share of the fit.
        factor: multiplies the number named "weight": a function of the epoch, from 0.

    Attributes:
        values: by name the number, or the variable of a schedule.
        changes: whether a schedule is among them.
    """

    def __init__(self, given: dict, factor: Callable | None = None):
        self._given = given
        self._factor = factor
        self.values = {
            name: keras.Variable(1.0, trainable=False, dtype="float32", name=name)
            if self._is_variable(name)
            else value
            for name, value in given.items()
        }
        self.changes = any(map(callable, given.values()))

    def set_time(self, share: float, epoch: int) -> None:
        """Give the variables their values at a share of the fit, from 0 to 1."""
        for name, value in self._given.items():
            if not self._is_variable(name):
                continue
            if callable(value):
                value = value(share)
                check_number(name, value, above=name == "temperature")
            if self._factor and name == "weight":
                value *= self._factor(epoch)
            self.values[name].assign(value)

    def _is_variable(self, name):
        has_factor = self._factor is not None and name == "weight"
        return callable(self._given[name]) or has_factor
