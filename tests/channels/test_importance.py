"""Scores of a group's channels against NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_compress as kc
from keras_compress.channels.importance import Lamp, Random, as_importance

from .nets import randomized


def net():
    """Conv(5) -> BatchNormalization -> Flatten -> Dense: one group of 5 channels."""
    x = keras.Input((3, 3, 2))
    y = layers.Conv2D(5, 2, name="conv")(x)
    y = layers.BatchNormalization(name="norm")(y)
    y = layers.Dense(2, name="dense")(layers.Flatten()(y))
    return randomized(keras.Model(x, y))


def group_of(model):
    [group] = [g for g in kc.channel_groups(model) if not g.frozen]
    return group


def parts(model, function=lambda variable: np.array(variable, "float64")):
    """The rows of conv, norm and dense that belong to each channel."""
    conv = function(model.get_layer("conv").kernel).reshape(-1, 5).T
    norm = function(model.get_layer("norm").gamma).reshape(5, 1)
    dense = function(model.get_layer("dense").kernel).reshape(4, 5, 2)
    return conv, norm, np.moveaxis(dense, 1, 0).reshape(5, -1)


@pytest.mark.parametrize(("name", "p"), [("l1", 1), ("l2", 2)])
def test_norms_are_means_over_the_layers_of_sums_of_powers(name, p):
    model = net()
    expected = np.mean([(np.abs(w) ** p).sum(1) for w in parts(model)], axis=0)
    scores = as_importance(name)(group_of(model), model)
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_the_scale_of_batch_normalization():
    model = net()
    expected = np.abs(np.array(model.get_layer("norm").gamma))
    scores = as_importance("bn_scale")(group_of(model), model)
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    x = keras.Input((3,))
    model = keras.Model(x, layers.Dense(2)(layers.Dense(8)(x)))
    assert as_importance("bn_scale")(group_of(model), model) is None
    same = kc.prune_channels(model, ratio=0.5, importance="bn_scale", round_to=1)
    assert same.count_params() == model.count_params()
    assert "the importance is None" in str(same.channel_report)


def test_the_sum_of_distances_to_the_other_channels():
    model = net()
    conv = parts(model)[0]
    expected = [sum(np.linalg.norm(a - b) for b in conv) for a in conv]
    scores = as_importance("fpgm")(group_of(model), model)
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_lamp_divides_by_the_sum_of_the_scores_not_below():
    model = net()
    group = group_of(model)
    scores = as_importance("l1")(group, model)
    expected = [s / scores[scores >= s].sum() for s in scores]
    np.testing.assert_allclose(Lamp("l1")(group, model), expected, rtol=1e-6)


def test_random_scores_depend_on_the_seed_alone():
    model = net()
    group = group_of(model)
    first, again = (Random(3)(group, model) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, Random(4)(group, model))


def test_taylor_is_the_product_of_weights_and_gradients_on_each_batch():
    x = keras.Input((4,))
    first, second = layers.Dense(6, use_bias=False), layers.Dense(2, use_bias=False)
    model = keras.Model(x, second(first(x)))
    model.compile(loss="mse")
    random = np.random.default_rng(0)
    batches = [(random.normal(size=(n, 4)), random.normal(size=(n, 2))) for n in (8, 3)]
    a, b = (np.array(layer.kernel, "float64") for layer in (first, second))
    made, read = np.zeros(6), np.zeros(6)
    for bx, by in batches:
        slope = 2 * (bx @ a @ b - by) / by.size
        made += np.abs(a * (bx.T @ slope @ b.T)).sum(0)
        read += np.abs(b * ((bx @ a).T @ slope)).sum(1)
    taylor = as_importance("taylor")
    scores = taylor.with_data(model, batches)(group_of(model), model)
    np.testing.assert_allclose(scores, (made + read) / 2, rtol=1e-4)
    dataset = tf.data.Dataset.from_tensor_slices(batches[0]).batch(4)
    smaller = kc.prune_channels(
        model, ratio=0.5, importance="taylor", data=dataset, round_to=1
    )
    assert smaller.layers[1].units == 3


def test_taylor_without_data_or_loss_is_an_error_that_says_what_to_give():
    model = net()
    with pytest.raises(ValueError, match="give batches"):
        kc.prune_channels(model, ratio=0.5, importance="taylor")
    with pytest.raises(ValueError, match="compile"):
        kc.prune_channels(model, ratio=0.5, importance="taylor", data=[])
    model.compile(loss="mse")
    with pytest.raises(ValueError, match="at least one batch"):
        kc.prune_channels(model, ratio=0.5, importance="taylor", data=[])


@pytest.mark.parametrize(
    ("importance", "message"),
    [
        ("l3", "must be one of 'l1'"),
        (lambda group, model: np.ones(2), "5 finite scores"),
        (lambda group, model: np.full(5, np.nan), "5 not finite"),
    ],
)
def test_a_wrong_importance_is_an_error(importance, message):
    with pytest.raises(ValueError, match=message):
        kc.prune_channels(net(), ratio=0.5, importance=importance)
