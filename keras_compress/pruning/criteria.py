"""Criteria: how much each weight counts, beside its magnitude.

Those that look at gradients get one float32 score per weight, which every step of the
optimizer updates.
"""

import dataclasses

import numpy as np
from keras import ops


@dataclasses.dataclass(frozen=True)
class Magnitude:
    """|w|.

    Source: Han et al. 2015, 1506.02626.
    """

    needs_gradients = False

    def scores(self, weights: np.ndarray, collected: np.ndarray | None) -> np.ndarray:
        """The scores of a kernel's weights, of its shape."""
        return np.abs(weights)


@dataclasses.dataclass(frozen=True)
class Taylor:
    """The sum of |w * g| over the steps since the last update of the masks.

    Source: Molchanov et al. 2017, 1611.06440.
    """

    needs_gradients = True
    starts_anew = True

    def collect(self, collected, weights, gradients):
        """The score after one more step."""
        return collected + ops.abs(weights * gradients)

    def scores(self, weights: np.ndarray, collected: np.ndarray | None) -> np.ndarray:
        """The collected scores."""
        return collected


@dataclasses.dataclass(frozen=True)
class Movement(Taylor):
    """The sum of -w * g over the steps of the fit: weights that move away from zero.

    Source: Sanh, Wolf and Rush 2020, 2005.07683.
    """

    starts_anew = False

    def collect(self, collected, weights, gradients):
        """The score after one more step."""
        return collected - weights * gradients


_CRITERIA = {"magnitude": Magnitude, "taylor": Taylor, "movement": Movement}


def as_criterion(criterion) -> "Magnitude | Taylor":
    """The criterion of that name, or the object itself.

    Raises:
        ValueError: If it is neither.
    """
    if isinstance(criterion, Magnitude | Taylor):
        return criterion
    if isinstance(criterion, str) and criterion in _CRITERIA:
        return _CRITERIA[criterion]()
    raise ValueError(
        f"`criterion` must be one of {', '.join(map(repr, _CRITERIA))}. "
        f"Received: criterion={criterion!r}"
    )
