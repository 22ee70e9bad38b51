"""Channels that nobody reads are removed, and the outputs stay what they were."""

import numpy as np
import pytest

import keras_compress as kc

from .nets import CASES, batch, build, outputs


def worthless(group, share=0.5):
    """Which of the group's channels are made worthless; the same at each call."""
    random = np.random.default_rng((7, group.size, int(group.channels[0])))
    chosen = np.zeros(group.size, bool)
    chosen[random.permutation(group.size)[: int(group.size * share)]] = True
    return chosen


def make_worthless(model):
    """Zeros for all weights that read the chosen channels, or make or shift them."""
    for group in kc.channel_groups(model):
        for axis in () if group.frozen else group.axes:
            values = np.moveaxis(np.array(axis.variable), axis.axis, 0)
            values[axis.index[worthless(group)].reshape(-1)] = 0
            axis.variable.assign(np.moveaxis(values, 0, axis.axis))


def removed(model, importance):
    return kc.prune_channels(model, ratio=0.5, importance=importance, round_to=1)


def score(group, model):
    return 1.0 - worthless(group)


@pytest.mark.parametrize(
    ("net", "shape"), CASES, ids=lambda item: getattr(item, "__name__", "")
)
def test_worthless_channels_go_and_outputs_stay(net, shape):
    model = build(net, shape)
    make_worthless(model)
    x = batch(model)
    expected = outputs(model, x)
    smaller = removed(model, score)
    assert smaller.count_params() < 0.8 * model.count_params()
    for before, after in zip(expected, outputs(smaller, x), strict=True):
        assert np.abs(before).max() > 1e-3
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)
