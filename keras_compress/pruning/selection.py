"""Which units are kept: the largest, of each layer or of the whole model."""

import numpy as np

# Size of the sample among which a threshold is sought, and how far around its place.
_SAMPLE = 10_000
_MARGIN = 0.03


def number_kept(units: int, sparsity: float) -> int:
    """round(units * (1 - sparsity)).

    Example:

    >>> number_kept(10, 0.8)
    2
    """
    return round(units * (1 - sparsity))


def largest(scores: np.ndarray, keep: int) -> np.ndarray:
    """The mask of the `keep` largest scores; of equal ones the first are kept.

    Args:
        scores: float array of any shape. NaN counts as larger than all others, so a
            weight that has become NaN is not hidden behind a mask.
        keep: How many.

    Returns:
        bool array of the same shape.

    Example:

    >>> largest(np.array([3.0, 1.0, 3.0, 3.0]), 2).tolist()
    [True, False, True, False]
    """
    flat = scores.reshape(-1)
    if keep >= flat.size:
        return np.ones(scores.shape, bool)
    if keep <= 0:
        return np.zeros(scores.shape, bool)
    if np.isnan(flat.sum()):
        flat = np.where(np.isnan(flat), np.inf, flat)
    threshold = _nth_largest(flat, keep)
    mask = flat > threshold
    equal = np.flatnonzero(flat == threshold)
    mask[equal[: keep - np.count_nonzero(mask)]] = True
    return mask.reshape(scores.shape)


def keep_best(units: list, sparsity: float) -> list:
    """The masks of each layer's best units.

    A unit with an infinite score is kept beyond that number.
    """
    return [_best(scores, sparsity) for scores in units]


def keep_best_of_all(units: list, sparsity: float, max_layer_sparsity: float) -> list:
    """The masks of the best units of all layers, compared with one another.

    Args:
        units: one array of scores for each layer.
        sparsity: share of all units to drop.
        max_layer_sparsity: the largest share to drop of any layer.
    """
    if max_layer_sparsity < 1:
        units = [_capped(scores, max_layer_sparsity) for scores in units]
    flat = np.concatenate([scores.reshape(-1) for scores in units])
    mask = _best(flat, sparsity)
    parts = np.split(mask, np.cumsum([scores.size for scores in units])[:-1])
    return [p.reshape(scores.shape) for p, scores in zip(parts, units, strict=True)]


def _best(scores, sparsity):
    keep = max(number_kept(scores.size, sparsity), np.count_nonzero(scores == np.inf))
    return largest(scores, keep)


def _nth_largest(flat, n):
    """The n-th largest of many values, sought between two values of a sample."""
    if flat.size > 10 * _SAMPLE:
        sample = np.sort(flat[:: flat.size // _SAMPLE])
        place = len(sample) * (1 - n / flat.size)
        low = sample[max(0, int(place - _MARGIN * len(sample)))]
        high = sample[min(len(sample) - 1, int(place + _MARGIN * len(sample)))]
        above = np.count_nonzero(flat > high)
        between = flat[(flat >= low) & (flat <= high)]
        if above < n <= above + between.size:
            flat, n = between, n - above
    return np.partition(flat, flat.size - n)[flat.size - n]


def _capped(scores, max_layer_sparsity):
    """Scores that are infinite for what the layer must keep."""
    must = largest(scores, number_kept(scores.size, max_layer_sparsity))
    return np.where(must, np.inf, scores)
