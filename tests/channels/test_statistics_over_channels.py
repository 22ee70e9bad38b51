"""Normalisations over all channels: exact if what goes has a twin that stays."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_compress as kc

from .nets import batch, outputs, randomized


def model_with(norm, units=8):
    x = keras.Input((6, 6, 3))
    y = norm(layers.Conv2D(units, 3, name="maker")(x))
    return randomized(keras.Model(x, layers.Conv2D(2, 1, name="reader")(y)))


def twins(model, half):
    """The channels of `half` compute what the others do, and nobody reads them."""
    maker, reader = model.get_layer("maker"), model.get_layer("reader")
    kernel, bias = np.array(maker.kernel), np.array(maker.bias)
    kernel[..., half], bias[half] = kernel[..., ~half], bias[~half]
    maker.set_weights([kernel, bias])
    read = np.array(reader.kernel)
    read[:, :, half] = 0
    reader.kernel.assign(read)


@pytest.mark.parametrize(
    "norm",
    [
        layers.LayerNormalization(),
        layers.RMSNormalization(),
        layers.LayerNormalization(axis=[1, 2, 3]),
        layers.GroupNormalization(4),
        layers.GroupNormalization(8),
        layers.GroupNormalization(1),
    ],
    ids=lambda norm: f"{type(norm).__name__}",
)
def test_channels_with_a_twin_go_and_outputs_stay(norm):
    model = model_with(type(norm).from_config(norm.get_config()))
    half = np.arange(8) % 2 == 1
    twins(model, half)

    def score(group, model):
        places = group.axes[0].index[:, 0]
        return 1.0 - half[places]

    smaller = kc.prune_channels(model, ratio=0.5, importance=score, round_to=1)
    assert smaller.get_layer("maker").filters == 4
    x = batch(model)
    [expected], [found] = outputs(model, x), outputs(smaller, x)
    # epsilon = 1e-3 of the statistics is the same before and after.
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_groups_of_a_group_normalization_stay_equally_large():
    model = model_with(layers.GroupNormalization(4))
    [group] = [g for g in kc.channel_groups(model) if not g.frozen]
    np.testing.assert_array_equal(group.axes[0].index, [[0, 2, 4, 6], [1, 3, 5, 7]])
    smaller = kc.prune_channels(model, ratio=0.5, round_to=1)
    assert smaller.layers[2].groups == 4
    one_each = kc.prune_channels(
        model_with(layers.GroupNormalization(8)), ratio=0.5, round_to=1
    )
    assert one_each.layers[2].groups == one_each.layers[1].filters == 4
