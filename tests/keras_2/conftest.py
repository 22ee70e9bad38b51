"""Moves a Keras 2 model and compares what both compute."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from keras_compress.tfmot import from_tfmot


@pytest.fixture
def rng():
    tf_keras.backend.clear_session()
    return np.random.default_rng(0)


@pytest.fixture
def assert_moves(rng):
    """A function that moves a model, checks that it computes the same on random images
    of these shapes (or on these arrays), and returns the moved one."""

    def check(old, *inputs, custom_objects=None):
        randomise(old, rng)
        x = [rng.normal(size=(4, *i)) if isinstance(i, tuple) else i for i in inputs]
        before = old.get_weights()
        new = from_tfmot(old, custom_objects)
        assert difference(old, new, x[0] if len(x) == 1 else x) <= 1e-5
        for was, weight in zip(before, old.get_weights(), strict=True):
            np.testing.assert_array_equal(was, weight)
        return new

    return check


def randomise(model, rng):
    """Weights whose exchange or loss shows; kernels are random from the start."""
    for weight in model.weights:
        if not weight.dtype.is_floating or "kernel" in weight.name:
            continue
        positive = "variance" in weight.name or "gamma" in weight.name
        low, high = (0.5, 1.5) if positive else (-0.6, 0.6)
        weight.assign(rng.uniform(low, high, weight.shape))
    for layer in model.layers:
        if isinstance(layer, tf_keras.layers.Normalization):
            layer.finalize_state()
    return model


def difference(old, new, x):
    """The largest difference between two models, relative where outputs exceed 1."""
    expected = tf.nest.flatten(old(x, training=False))
    found = keras.tree.flatten(new(x, training=False))
    return max(
        float(np.max(np.abs(a - b)) / max(1.0, np.max(np.abs(a))))
        for a, b in zip(expected, found, strict=True)
    )
