"""Pruning schedules: the sparsity at each step of the optimizer."""

import dataclasses

from keras_compress.optimizer_steps import check_step, is_int


class Schedule:
    """When the masks are made anew, and for which sparsity.

    Called with a step, a schedule returns `(update, sparsity)`, as those of TFMOT do:
    whether masks are made anew when the optimizer has taken that many steps, and the
    share of zeros there. The end step is always one of an update, so the last sparsity
    is reached exactly.
    """

    begin_step: int | float
    end_step: int | float | None
    frequency: int

    @property
    def final(self) -> float:
        """The last sparsity."""
        raise NotImplementedError

    def sparsity(self, step: int) -> float:
        """The share of zeros at a step."""
        raise NotImplementedError

    def __call__(self, step: int) -> tuple[bool, float]:
        """Whether masks are made anew at the step, and the share of zeros."""
        step = int(step)
        self._check_resolved()
        return self.last_update(step) == step, self.sparsity(step)

    def last_update(self, now: int, after: int = -1) -> int | None:
        """The last step of an update in (after, now], or None."""
        if now < self.begin_step:
            return None
        if self.ends and now >= self.end_step:
            step = self.end_step
        else:
            step = now - (now - self.begin_step) % self.frequency
        return step if step > after else None

    @property
    def ends(self) -> bool:
        """Whether masks are frozen after some step."""
        return self.end_step != -1

    @property
    def needs_length(self) -> bool:
        """Whether a step is given as a share of the fit."""
        return self.end_step is None or any(
            isinstance(step, float) for step in (self.begin_step, self.end_step)
        )

    def for_fit(self, start: int, length: int) -> "Schedule":
        """The schedule in steps, for a fit of `length` steps that begins at `start`."""
        if not self.needs_length:
            return self

        def in_steps(step):
            return start + round(step * length) if isinstance(step, float) else step

        end = 1.0 if self.end_step is None else self.end_step
        return dataclasses.replace(
            self, begin_step=in_steps(self.begin_step), end_step=in_steps(end)
        )

    def plot(self, ax=None):
        """Draw the sparsity over the steps.

        Args:
            ax: A matplotlib Axes, or None for a new figure.

        Returns:
            The matplotlib Axes.

        Raises:
            ValueError: If steps are shares of a fit; see `for_fit`.
        """
        from matplotlib import pyplot

        self._check_resolved()
        ax = ax or pyplot.subplots()[1]
        stop = self.end_step if self.ends else self.begin_step + 10 * self.frequency
        margin = max(1, (stop - self.begin_step) // 10)
        steps = range(max(0, self.begin_step - margin), stop + margin + 1)
        sparsities, now = [], 0.0
        for step in steps:
            update, value = self(step)
            now = value if update else now
            sparsities.append(now)
        ax.step(steps, sparsities, where="post")
        ax.set(xlabel="step of the optimizer", ylabel="sparsity", ylim=(0, 1))
        return ax

    def get_config(self) -> dict:
        """The arguments of `__init__`."""
        return dataclasses.asdict(self)

    def _check_resolved(self) -> None:
        if self.needs_length:
            raise ValueError(
                "The schedule has steps that are shares of a fit. Give its length "
                f"first: `schedule.for_fit(start=0, length=1000)`. Received: {self}"
            )

    def _check_steps(self) -> None:
        check_step("begin_step", self.begin_step)
        check_step("end_step", self.end_step, None, -1)
        begin, end = self.begin_step, self.end_step
        known = end not in (None, -1) and isinstance(begin, float) == isinstance(
            end, float
        )
        if known and begin > end:
            raise ValueError(
                "`begin_step` must be at most `end_step`. Received: "
                f"begin_step={begin}, end_step={end}"
            )
        frequency = self.frequency
        if not is_int(frequency) or frequency < 1:
            raise ValueError(
                "`frequency`, the steps between two updates of the masks, must be an "
                f"int of at least 1. Received: frequency={frequency!r}"
            )


@dataclasses.dataclass(frozen=True)
class ConstantSparsity(Schedule):
    """The same sparsity from a step on.

    Masks are made anew every `frequency` steps, so that weights may come back, and are
    frozen after `end_step`.

    Args:
        target_sparsity: Share of zeros in [0, 1).
        begin_step: Step of the optimizer (int), or share of the fit (float), at which
            weights become zero.
        end_step: The last step at which masks are made anew; likewise. -1: never ends.
        frequency: Steps from one update of the masks to the next.

    Raises:
        ValueError: If an argument is out of its range, or `begin_step > end_step`.

    Example:

    >>> import keras_compress as kc
    >>> schedule = kc.ConstantSparsity(0.5, begin_step=100)
    >>> schedule(100), schedule(150)
    ((True, 0.5), (False, 0.5))
    """

    target_sparsity: float
    begin_step: int | float = 0
    end_step: int | float | None = -1
    frequency: int = 100

    def __post_init__(self) -> None:
        check_sparsity("target_sparsity", self.target_sparsity)
        self._check_steps()

    @property
    def final(self) -> float:
        """The target."""
        return self.target_sparsity

    def sparsity(self, step: int) -> float:
        """The target."""
        return self.target_sparsity


@dataclasses.dataclass(frozen=True)
class PolynomialDecay(Schedule):
    """Sparsity that rises fast at first and ever more slowly to its end.

    s = final + (initial - final) * (1 - (step - begin) / (end - begin)) ^ power

    Args:
        initial_sparsity: Share of zeros in [0, 1) at `begin_step`.
        final_sparsity: Share of zeros in [0, 1) from `end_step` on.
        begin_step: Step of the optimizer (int) or share of the fit (float).
        end_step: Likewise; None: the end of the fit. Masks are frozen from here on.
        power: Exponent, above 0.
        frequency: Steps from one update of the masks to the next. The end step is one
            of an update too.

    Raises:
        ValueError: If an argument is out of its range, or `begin_step > end_step`.

    Example:

    >>> import keras_compress as kc
    >>> schedule = kc.PolynomialDecay(0.2, 0.8, begin_step=100, end_step=110)
    >>> [round(schedule(step)[1], 4) for step in (100, 102, 105, 110)]
    [0.2, 0.4928, 0.725, 0.8]

    Source: Zhu and Gupta 2017, 1710.01878.
    """

    initial_sparsity: float
    final_sparsity: float
    begin_step: int | float = 0
    end_step: int | float | None = None
    power: float = 3
    frequency: int = 100

    def __post_init__(self) -> None:
        check_sparsity("initial_sparsity", self.initial_sparsity)
        check_sparsity("final_sparsity", self.final_sparsity)
        if self.end_step == -1:
            raise ValueError(
                "`end_step` of a PolynomialDecay must be a step, a share of the fit, "
                "or None for its end. Received: end_step=-1"
            )
        if not self.power > 0:
            raise ValueError(f"`power` must be above 0. Received: power={self.power}")
        self._check_steps()

    @property
    def final(self) -> float:
        """The sparsity from the end step on."""
        return self.final_sparsity

    def sparsity(self, step: int) -> float:
        """The polynomial, constant before the begin step and after the end step."""
        left = 0.0
        if step < self.end_step:
            steps = self.end_step - self.begin_step
            left = min(1.0, (self.end_step - step) / steps) if steps else 1.0
        change = self.initial_sparsity - self.final_sparsity
        return self.final_sparsity + change * left**self.power


def check_sparsity(name: str, value) -> None:
    """Raise unless the value is a share of zeros that leaves some weights."""
    is_number = isinstance(value, float) or is_int(value)
    if not (is_number and 0 <= value < 1):
        raise ValueError(
            f"`{name}` must be in [0, 1), the share of weights that become zero. "
            f"Received: {name}={value!r}"
        )
