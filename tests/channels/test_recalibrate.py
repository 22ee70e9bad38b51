"""Moving statistics measured anew, against NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_compress as kc

EPSILON = 1e-3


def net():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.BatchNormalization(name="first"),
            layers.Dropout(0.5),
            layers.Dense(3, name="dense"),
            layers.BatchNormalization(name="second"),
        ]
    )
    model.get_layer("first").gamma.assign([1.0, 2.0, 0.5, -1.0])
    return model


def data(sizes=(10, 10, 5)):
    random = np.random.default_rng(0)
    return [
        random.normal(i, 1 + i, (n, 4)).astype("float32") for i, n in enumerate(sizes)
    ]


def test_the_statistics_are_those_of_all_examples_and_dropout_rests():
    model = net()
    gamma = np.array(model.get_layer("first").gamma)
    kernel = np.array(model.get_layer("dense").kernel)
    assert kc.recalibrate_batchnorm(model, data()) is model
    everything = np.concatenate(data()).astype("float64")
    first, second = model.get_layer("first"), model.get_layer("second")
    np.testing.assert_allclose(first.moving_mean, everything.mean(0), rtol=1e-5)
    np.testing.assert_allclose(first.moving_variance, everything.var(0), rtol=1e-4)
    by_batch = [
        gamma * (x - x.mean(0)) / np.sqrt(x.var(0) + EPSILON) @ kernel for x in data()
    ]
    hidden = np.concatenate(by_batch)
    np.testing.assert_allclose(second.moving_mean, hidden.mean(0), atol=1e-5)
    np.testing.assert_allclose(second.moving_variance, hidden.var(0), rtol=1e-4)
    np.testing.assert_array_equal(first.gamma, gamma)
    assert (first.momentum, second.momentum) == (0.99, 0.99)


def test_a_frozen_layer_keeps_its_statistics():
    model = net()
    model.get_layer("first").trainable = False
    pairs = [(x, np.zeros((len(x), 3))) for x in data()]
    kc.recalibrate_batchnorm(model, pairs)
    first, second = model.get_layer("first"), model.get_layer("second")
    np.testing.assert_array_equal(first.moving_mean, np.zeros(4))
    everything = np.concatenate(data()) / np.sqrt(1 + EPSILON)
    kernel = np.array(model.get_layer("dense").kernel)
    hidden = everything * np.array(first.gamma) @ kernel
    np.testing.assert_allclose(second.moving_mean, hidden.mean(0), rtol=1e-4)


def test_a_dataset_of_batches_and_a_nested_model():
    inner, x = net(), np.concatenate(data())
    model = keras.Sequential([keras.Input((4,)), inner, layers.Dense(2)])
    dataset = tf.data.Dataset.from_tensor_slices((x, x[:, :2])).batch(8)
    kc.recalibrate_batchnorm(model, dataset)
    moved = inner.get_layer("first").moving_mean
    np.testing.assert_allclose(moved, x.mean(0), rtol=1e-5)


def test_no_batch_is_an_error_and_moves_nothing():
    model = net()
    with pytest.raises(ValueError, match="at least one batch"):
        kc.recalibrate_batchnorm(model, [])
    with pytest.raises(ValueError, match="must be batches"):
        kc.recalibrate_batchnorm(model, data()[0])
    np.testing.assert_array_equal(model.get_layer("first").moving_mean, np.zeros(4))
