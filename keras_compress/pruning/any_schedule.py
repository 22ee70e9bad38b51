"""Everything that may stand for a pruning schedule."""

import dataclasses
from collections.abc import Callable

from keras_compress.optimizer_steps import is_int
from keras_compress.pruning.schedules import (
    ConstantSparsity,
    PolynomialDecay,
    Schedule,
    check_sparsity,
)

_TFMOT = "tensorflow_model_optimization"


@dataclasses.dataclass(frozen=True)
class CallableSchedule:
    """A function of the step that returns `(update, sparsity)`."""

    function: Callable

    needs_length = False
    final = None
    ends = False

    def for_fit(self, start: int, length: int) -> "CallableSchedule":
        """Itself."""
        return self

    def __call__(self, step: int) -> tuple[bool, float]:
        """The function's values, as Python's."""
        update, sparsity = self.function(step)
        return bool(update), float(sparsity)

    def sparsity(self, step: int) -> float:
        """The function's share of zeros, checked."""
        sparsity = self(step)[1]
        check_sparsity("sparsity", sparsity)
        return sparsity

    def last_update(self, now: int, after: int | None = None) -> int | None:
        """The last step of an update in (after, now]; of `now` alone by default."""
        first = now if after is None else after + 1
        steps = (step for step in range(now, first - 1, -1) if self(step)[0])
        return next(steps, None)


KEEP = "keep"


def as_schedule(schedule) -> "Schedule | CallableSchedule | str":
    """The schedule that an argument stands for.

    Args:
        schedule: A float, `"keep"`, a schedule, one of TFMOT's, or a function of the
            step that returns `(update, sparsity)`.

    Raises:
        ValueError: If it is none of these, or a sparsity outside [0, 1).
    """
    if isinstance(schedule, Schedule):
        return schedule
    if isinstance(schedule, str) and schedule == KEEP:
        return KEEP
    if isinstance(schedule, float) or is_int(schedule):
        return ConstantSparsity(schedule)
    ours = {kind.__name__: kind for kind in (ConstantSparsity, PolynomialDecay)}
    kind = type(schedule)
    if kind.__module__.startswith(_TFMOT) and kind.__name__ in ours:
        # TFMOT's would miss an end step that is no multiple of the frequency.
        return ours[kind.__name__](**schedule.get_config()["config"])
    if callable(schedule):
        return CallableSchedule(schedule)
    raise ValueError(
        '`schedule` must be a sparsity in [0, 1), "keep", a kc.ConstantSparsity, a '
        "kc.PolynomialDecay, or a function of the step that returns (update, "
        f"sparsity). Received: {schedule!r}"
    )
