"""How sparse each layer is to be, so that the whole model is as sparse as asked."""

import math

import keras
import numpy as np

from keras_compress.pruning.selection import number_kept
from keras_compress.pruning.sensitivity import Sensitivity, kernels_by_layer


def layerwise_sparsity(
    model: keras.Model,
    target: float,
    method: "str | Sensitivity" = "erk",
    layers=None,
) -> dict[str, float]:
    """The sparsity of each layer, which together make up that of the model.

    Args:
        model: A built model.
        target: Share of all prunable weights to be zero, in [0, 1).
        method: "erk", by which the share of weights that a layer keeps is proportional
            to the sum of its kernel's dimensions over their product, so that small
            layers keep more; or what `sensitivity` measured of this model, by which all
            layers lose equally much of the metric.
        layers: Called with a layer; whether to prune it. By default every layer with a
            kernel, except Embedding and recurrent layers.

    Returns:
        Layer name -> sparsity, below 1. If each layer keeps round(n * (1 - sparsity))
        of its n weights, the model keeps round(N * (1 - target)) of its N.

    Raises:
        ValueError: If the target is outside [0, 1), the method is unknown, the model
            has nothing to prune, or the sensitivity was measured of other layers or up
            to sparsities that are too small for this target.

    Example:

    >>> import keras
    >>> from keras_compress.pruning.layerwise import layerwise_sparsity
    >>> model = keras.Sequential(
    ...     [
    ...         keras.Input((20,)),
    ...         keras.layers.Dense(20, name="large"),
    ...         keras.layers.Dense(5, name="small"),
    ...     ]
    ... )
    >>> layerwise_sparsity(model, 0.8)
    {'large': 0.845, 'small': 0.62}

    Sources: Evci et al. 2020, 1911.11134 (ERK, after Mocanu et al. 2018).
    """
    if not 0 <= target < 1:
        raise ValueError(
            "`target` must be in [0, 1), the share of weights to be zero. Received: "
            f"target={target}"
        )
    kernels = kernels_by_layer(model, layers)
    shapes = [[tuple(v.shape) for v in variables] for variables in kernels.values()]
    sizes = np.array([sum(map(math.prod, layer)) for layer in shapes])
    keep = number_kept(int(sizes.sum()), target)
    if keep < len(sizes):
        raise ValueError(
            "`target` must leave each layer at least one weight. Received: target="
            f"{target}, which leaves {keep} weights to {len(sizes)} layers"
        )
    if isinstance(method, Sensitivity):
        shares = _equal_loss(method, list(kernels), sizes, keep)
    elif method == "erk":
        shares = _erk(shapes, sizes, keep)
    else:
        raise ValueError(
            '`method` must be "erk" or the result of `keras_compress.sensitivity`. '
            f"Received: method={method!r}"
        )
    kept = _whole_numbers(shares * sizes, sizes, keep)
    sparsities = 1 - kept / sizes
    return dict(zip(kernels, sparsities.tolist(), strict=True))


def _erk(shapes: list, sizes, keep: int) -> np.ndarray:
    """The share of weights that each layer keeps."""
    raw = np.array([sum(map(sum, layer)) for layer in shapes]) / sizes
    full = np.zeros(len(sizes), bool)
    while not full.all():
        # Layers that would keep more than they have keep all, the others less.
        scale = (keep - sizes[full].sum()) / (raw * sizes)[~full].sum()
        over = ~full & (raw * scale > 1)
        if not over.any():
            return np.where(full, 1.0, raw * scale)
        full |= over
    return np.ones(len(sizes))


def _equal_loss(measured, names, sizes, keep: int) -> np.ndarray:
    """The shares kept where all layers lose equally much, found by bisection."""
    if set(names) != set(measured.values):
        raise ValueError(
            "The sensitivity must be that of the layers to prune. Received: a "
            f"sensitivity of {sorted(measured.values)} for {sorted(names)}. Measure "
            "this model, with the same `layers`."
        )
    losses = [measured.losses(name) for name in names]
    sparsities = (0.0, *measured.sparsities)
    least = sizes.sum() * (1 - sparsities[-1])
    if keep < np.floor(least):
        raise ValueError(
            f"The sensitivity was measured up to sparsity {sparsities[-1]}, which is "
            f"too little for this target. Received: {keep} of {sizes.sum()} weights "
            "to keep. Measure it at higher sparsities."
        )

    def shares(loss):
        return 1 - np.array([np.interp(loss, steps, sparsities) for steps in losses])

    low, high = 0.0, max(steps[-1] for steps in losses)
    for _ in range(100):
        middle = (low + high) / 2
        enough = (shares(middle) * sizes).sum() > keep
        low, high = (middle, high) if enough else (low, middle)
    return shares(high)


def _whole_numbers(exact, sizes, total: int) -> np.ndarray:
    """The numbers rounded, to 1 at least, so that they add up; the largest remainders
    go up."""
    whole = np.clip(np.floor(exact), 1, sizes).astype("int64")
    order = np.argsort(whole - exact, kind="stable")
    while (missing := total - whole.sum()) != 0:
        step = np.sign(missing)
        free = [i for i in order if 1 <= whole[i] + step <= sizes[i]]
        whole[free[: abs(missing)]] += step
    return whole
