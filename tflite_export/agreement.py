"""`Agreement`: how far the outputs of a file are from those of its Keras model."""

from dataclasses import dataclass

import numpy as np
from tabulate import tabulate


@dataclass(frozen=True)
class Grid:
    """The whole numbers that a quantised tensor holds, and what they stand for."""

    scale: float
    zero_point: int
    dtype: str

    def codes(self, values: np.ndarray) -> np.ndarray:
        """The nearest code of each real number, clipped to the type's range."""
        info = np.iinfo(self.dtype)
        codes = np.round(values / self.scale) + self.zero_point
        return np.clip(codes, info.min, info.max)


@dataclass(frozen=True)
class Agreement:
    """Outputs of a `.tflite` file against those of the Keras model.

    `argmax` is the share of positions whose largest entry over the last axis is the
    same, None for outputs with less than two entries there. `output_step` is the scale
    of the quantised output, None for a float file; so are then the three shares of
    values: those `equal` to the Keras outputs rounded to the file's steps, and those
    that lie `within_half_step` and `within_one_step` of the unrounded ones. (Rounding
    alone takes a value half a step away, more where the output's range is left.)
    """

    argmax: float | None
    max_abs_diff: float
    mean_abs_diff: float
    output_step: float | None
    equal: float | None
    within_half_step: float | None
    within_one_step: float | None
    examples: int

    def __str__(self) -> str:
        argmax = "" if self.argmax is None else f"argmax equal {self.argmax:.2%}, "
        result = (
            f"{argmax}max |diff| {self.max_abs_diff:.3g}, "
            f"mean |diff| {self.mean_abs_diff:.3g} over {self.examples} examples"
        )
        if self.output_step is None:
            return f"{result}; float output"
        return (
            f"{result}; output step {self.output_step:.3g}, {self.equal:.2%} equal, "
            f"{self.within_half_step:.2%} within half a step, "
            f"{self.within_one_step:.2%} within one step"
        )


@dataclass(frozen=True)
class Agreements:
    """The `Agreement` of each output by name, and the worst of them all.

    `argmax`, `equal`, `within_half_step` and `within_one_step` are the lowest of the
    outputs that have one, `max_abs_diff` and `mean_abs_diff` the highest.
    """

    outputs: dict[str, Agreement]

    @property
    def argmax(self) -> float | None:
        """The lowest share of equal positions, None where no output has one."""
        return self._lowest("argmax")

    @property
    def equal(self) -> float | None:
        """The lowest share of equal values, None for a float file."""
        return self._lowest("equal")

    @property
    def within_half_step(self) -> float | None:
        """The lowest share within half a step, None for a float file."""
        return self._lowest("within_half_step")

    @property
    def within_one_step(self) -> float | None:
        """The lowest share within one step, None for a float file."""
        return self._lowest("within_one_step")

    @property
    def max_abs_diff(self) -> float:
        """The largest difference of all outputs."""
        return max(item.max_abs_diff for item in self.outputs.values())

    @property
    def mean_abs_diff(self) -> float:
        """The mean difference of the output where it is largest."""
        return max(item.mean_abs_diff for item in self.outputs.values())

    @property
    def examples(self) -> int:
        """How many examples were compared."""
        return next(iter(self.outputs.values())).examples

    def _lowest(self, name: str) -> float | None:
        found = [getattr(item, name) for item in self.outputs.values()]
        return min((value for value in found if value is not None), default=None)

    def __str__(self) -> str:
        header = ("output", "argmax", "max |diff|", "mean |diff|", "step")
        shares = ("equal", "within half a step", "within one step")
        rows = [
            (
                name,
                _percent(item.argmax),
                f"{item.max_abs_diff:.3g}",
                f"{item.mean_abs_diff:.3g}",
                "float" if item.output_step is None else f"{item.output_step:.3g}",
                _percent(item.equal),
                _percent(item.within_half_step),
                _percent(item.within_one_step),
            )
            for name, item in self.outputs.items()
        ]
        align = ("left", *("right",) * 7)
        table = tabulate(
            rows, (*header, *shares), colalign=align, disable_numparse=True
        )
        return f"{table}\nover {self.examples} examples"


def agreement_of(
    expected: np.ndarray, found: np.ndarray, grid: Grid | None
) -> Agreement:
    """The agreement of a file's de-quantised output with the model's output."""
    found = found.astype(np.float64)
    difference = np.abs(expected - found)
    equal = half = one = None
    if grid is not None:
        equal = float((grid.codes(expected) == grid.codes(found)).mean())
        # A hair above, so that float rounding does not push a value over the edge.
        half, one = (
            float((difference <= steps * grid.scale * 1.0001).mean())
            for steps in (0.5, 1)
        )
    argmax = None
    if expected.ndim > 1 and expected.shape[-1] > 1:
        argmax = float((expected.argmax(-1) == found.argmax(-1)).mean())
    return Agreement(
        argmax=argmax,
        max_abs_diff=float(difference.max()),
        mean_abs_diff=float(difference.mean()),
        output_step=None if grid is None else grid.scale,
        equal=equal,
        within_half_step=half,
        within_one_step=one,
        examples=len(found),
    )


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"
