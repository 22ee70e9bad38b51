"""`prune_channels`: a smaller plain model."""

from collections.abc import Callable

import keras
import numpy as np

from keras_compress.channels.budget import (
    measure,
    removal_order,
    rounding,
    to_budget,
    uniform,
)
from keras_compress.channels.groups import Coupling, couple
from keras_compress.channels.importance import as_importance
from keras_compress.channels.report import ChannelReport, PrunedGroup
from keras_compress.channels.surgery import operate
from keras_compress.surgery_checks import exactly_one_share


def prune_channels(
    model: keras.Model,
    *,
    macs: float | None = None,
    params: float | None = None,
    ratio: float | None = None,
    importance: str | Callable = "l2",
    round_to: int = 8,
    min_channels: int | None = None,
    layers: Callable | None = None,
    data=None,
) -> keras.Model:
    """A new, smaller model without the channels that count least.

    Channels that are coupled go together (see `channel_groups`); all weights that made
    or read them go with them. The new model is plain Keras, with weights of its own;
    train it further to win back the accuracy.

    Args:
        model: A built Functional or Sequential model; it is not changed.
        macs: The share of multiply-accumulates to keep, in (0, 1]. Dimensions that the
            inputs leave open count as 224.
        params: The share of parameters to keep, in (0, 1].
        ratio: The share of channels to keep in every group, in (0, 1]. Give exactly one
            of the three. For `macs` and `params` the scores of each group are divided
            by their mean and compared between groups.
        importance: "l2", "l1", "bn_scale", "taylor", "fpgm", "random", "lamp", an
            object of `keras_compress.channels.importance`, or a function (group, model)
            -> scores, one for each of the group's channels, None to keep all.
        round_to: Layers keep multiples of this many channels, or all. 8 suits LiteRT.
        min_channels: What a group keeps at least. By default `round_to`, and half of
            what the group would keep if all lost the same share, where the budget can
            be met so: a layer far narrower than its neighbours does not train well.
        layers: Called with a layer that makes channels; whether they may be removed.
        data: Batches (x, y) for an importance that looks at gradients ("taylor").

    Returns:
        A compiled model if the given one is. Its `channel_report` tells what became of
        each group, and `str()` of it is a table.

    Raises:
        ValueError: If not exactly one share in (0, 1] is given, the share cannot be
            reached, data is missing, or the model is subclassed, not built or
            quantization-aware.

    Example:

    ```python
    smaller = kc.prune_channels(model, macs=0.5)
    print(smaller.channel_report)
    smaller.fit(x_train, y_train)
    ```

    Source: Fang et al. 2023, 2301.12900 (DepGraph).
    """
    what, share = exactly_one_share(macs=macs, params=params, ratio=ratio)
    _check_positive(round_to=round_to)
    even = min_channels is None
    min_channels = round_to if even else min_channels
    _check_positive(min_channels=min_channels)
    importance = as_importance(importance)
    coupling = couple(model, layers)
    scores = _scores(model, coupling, _with_data(importance, model, data))
    rounded = rounding(coupling, scores, round_to, min_channels)
    if what == "ratio":
        kept = uniform(rounded, share)
    else:
        kept = _kept(model, coupling, scores, rounded, what, share, even)
    survivors = _survivors(coupling, scores, kept)
    smaller = operate(model, coupling, survivors)
    smaller.channel_report = _report(coupling, scores, kept)
    return smaller


def _check_positive(**numbers) -> None:
    [(name, number)] = numbers.items()
    if not isinstance(number, int | np.integer) or number < 1:
        raise ValueError(
            f"`{name}` must be a whole number of channels, 1 or more. Received: "
            f"{name}={number!r}"
        )


def _with_data(importance, model, data):
    if not hasattr(importance, "with_data"):
        return importance
    if data is None:
        raise ValueError(
            f"{type(importance).__name__} looks at gradients: give batches of (x, y) "
            "as `data`, for example a tf.data.Dataset. Received: data=None"
        )
    if not model.compiled:
        raise ValueError(
            f"{type(importance).__name__} looks at gradients of the loss: compile the "
            f"model with it. Received: model {model.name!r}, which is not compiled"
        )
    return importance.with_data(model, data)


def _scores(model, coupling: Coupling, importance) -> list[np.ndarray | None]:
    """Each group's scores, made comparable; None for a group that stays whole."""
    scores = []
    for group in coupling.groups:
        found = None if group.frozen else importance(group, model)
        if found is not None:
            found = _checked_scores(group, found)
            if not getattr(importance, "comparable", False):
                mean = np.abs(found).mean()
                found = found / mean if mean else found
        scores.append(found)
    return scores


def _checked_scores(group, scores) -> np.ndarray:
    scores = np.asarray(scores, "float64")
    if scores.shape != (group.size,) or not np.isfinite(scores).all():
        raise ValueError(
            f"`importance` must return {group.size} finite scores for group "
            f"{group.name!r}, one for each of its channels. Received: shape "
            f"{scores.shape}, {np.count_nonzero(~np.isfinite(scores))} not finite"
        )
    return scores


def _kept(model, coupling, scores, rounded, what, share, even) -> np.ndarray:
    cost = measure(coupling, what)
    full = cost(rounded.sizes)
    if not full:
        raise ValueError(f"Model {model.name!r} has no {what} to remove.")
    least = cost(rounded.least) / full
    if least > share * 1.01:
        whole = {g.reason: g.name for g in reversed(coupling.groups) if g.frozen}
        blocked = "; ".join(f"{name}: {reason}" for reason, name in whole.items())
        raise ValueError(
            f"`{what}`={share} cannot be reached: {least:.3f} is left when every group "
            "has the fewest channels that `round_to` and `min_channels` allow. Give a "
            f"larger share, or smaller ones of these two. Whole stay {blocked}"
        )
    # A uniform cut to the share r of the channels leaves about r^2 of the cost.
    evenly = rounded.with_least(0.5 * share**0.5)
    if even and cost(evenly.least) < share * full:
        rounded = evenly
    return to_budget(cost, rounded, removal_order(coupling, scores), share)


def _survivors(coupling: Coupling, scores, kept: np.ndarray) -> np.ndarray:
    """bool array: which channels of the model are kept, the best of each group."""
    survivors = np.ones(len(coupling.group_of), bool)
    for group, score, count in zip(coupling.groups, scores, kept, strict=True):
        if count < group.size:
            worst = np.argsort(score, kind="stable")[: group.size - count]
            survivors[group.channels[worst]] = False
    return survivors


def _report(coupling: Coupling, scores, kept: np.ndarray) -> ChannelReport:
    rows = []
    for group, score, count in zip(coupling.groups, scores, kept, strict=True):
        reason = group.reason or ("" if score is not None else "the importance is None")
        rows.append(PrunedGroup(group.name, group.size, int(count), reason))
    sizes = np.array([group.size for group in coupling.groups])
    costs = [measure(coupling, what) for what in ("macs", "params")]
    pairs = [(round(cost(sizes)), round(cost(kept))) for cost in costs]
    return ChannelReport(tuple(rows), *pairs)
