"""What a layer keeps when it is wrapped."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_compress.quantization.affine import (
    AffineWrapper,
    FoldedBatchNormalization,
)
from keras_compress.quantization.wrapper import QuantizeWrapper


def data(*shape):
    return np.random.default_rng(0).normal(size=(4, *shape)).astype("float32")


def on_grid(kernel):
    scale = np.abs(kernel).max(tuple(range(kernel.ndim - 1)), keepdims=True) / 127
    return np.round(kernel / scale) * scale


def test_the_regularisers_weigh_the_kernel_as_it_is_stored():
    layer = layers.Dense(3, kernel_regularizer="l2", bias_regularizer="l1")
    wrapper = QuantizeWrapper(layer)
    wrapper(data(5))
    layer.bias.assign([1, -2, 3])
    expected = 0.01 * np.sum(np.square(layer.kernel.numpy())) + 0.01 * 6
    assert float(sum(wrapper.losses)) == pytest.approx(expected, rel=1e-6)


def test_an_activity_regulariser_weighs_what_the_rounded_kernel_makes():
    layer = layers.Dense(3, activity_regularizer=keras.regularizers.L2(0.1))
    model = keras.Sequential([keras.Input((5,)), QuantizeWrapper(layer)])
    x = data(5)
    expected = 0.1 * np.sum(np.square(x @ on_grid(layer.kernel.numpy()))) / len(x)
    for _ in range(2):
        model(x)
        assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)


def test_a_constraint_stays_on_the_kernel():
    layer = layers.Dense(3, kernel_constraint="non_neg")
    model = keras.Sequential([keras.Input((5,)), QuantizeWrapper(layer)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    assert layer.kernel.numpy().min() < 0
    model.fit(data(5), np.ones((4, 3)), verbose=0)
    assert layer.kernel.numpy().min() == 0


def test_a_frozen_layer_stays_frozen():
    wrapper = QuantizeWrapper(layers.Dense(3, trainable=False))
    wrapper(data(5))
    assert not wrapper.trainable_variables
    assert len(wrapper.non_trainable_variables) == 2


def test_freezing_the_wrapper_freezes_the_layer():
    wrapper = QuantizeWrapper(layers.Dense(3))
    wrapper(data(5))
    wrapper.trainable = False
    assert not wrapper.layer.trainable_variables


def test_a_mask_passes_a_dense_layer():
    inputs = keras.Input((6, 3))
    dense = QuantizeWrapper(layers.Dense(4))(layers.Masking()(inputs))
    model = keras.Model(inputs, layers.GlobalAveragePooling1D()(dense))
    x = data(6, 3)
    x[:, 4:] = 0
    kernel = on_grid(model.layers[2].layer.kernel.numpy())
    np.testing.assert_allclose(model(x), (x[:, :4] @ kernel).mean(1), atol=1e-5)


def test_a_layer_is_not_rounded_while_the_wrapper_is_off():
    wrapper = QuantizeWrapper(layers.Dense(3), enabled=False)
    x = data(5)
    np.testing.assert_array_equal(wrapper(x), wrapper.layer(x))
    wrapper.enabled = True
    assert np.abs(wrapper(x) - wrapper.layer(x)).max() > 1e-4


def test_a_layer_of_mixed_precision_computes_in_half_with_the_float32_grid():
    """In half precision the grid itself would be off by up to an eighth of a step."""
    wrapper = QuantizeWrapper(layers.Dense(64, dtype="mixed_float16"))
    wrapper.build((None, 256))
    kernel = wrapper.layer.kernel
    assert kernel.dtype == "float32"
    found = wrapper(np.eye(256, dtype="float16"))
    assert found.dtype == "float16"
    expected = on_grid(kernel.numpy()).astype("float16")
    np.testing.assert_array_equal(found, expected)


def test_the_configuration_makes_the_same_wrapper():
    layer = layers.Conv2D(4, 3, strides=2, kernel_regularizer="l2")
    wrapper = QuantizeWrapper(layer, weight_bits=5, enabled=False, name="w")
    copy = QuantizeWrapper.from_config(wrapper.get_config())
    assert copy.get_config() == wrapper.get_config()
    assert (copy.weight_bits, copy.enabled, copy.name) == (5, False, "w")
    assert copy.layer.strides == (2, 2)


@pytest.mark.parametrize("wrapped", [layers.Dense(7), layers.Conv2D(7, 3, 2)])
def test_the_output_shape_is_the_layers(wrapped):
    wrapper = QuantizeWrapper(wrapped)
    shape = (None, 9, 9, 3)
    assert wrapper.compute_output_shape(shape) == wrapped.compute_output_shape(shape)


def batch_norm(**options):
    return layers.BatchNormalization(**options)


def normalization(**options):
    layer = layers.Normalization(**options)
    layer.adapt(np.random.default_rng(1).normal(3, 2, (90, 3)))
    return layer


def settle(layer):
    random = np.random.default_rng(2)
    for weight in layer.weights:
        if weight.name in ("gamma", "beta", "moving_mean", "moving_variance"):
            weight.assign(random.uniform(0.5, 2, weight.shape))


AFFINE = {
    "batch_norm": batch_norm,
    "without_gamma": lambda: batch_norm(scale=False),
    "without_beta": lambda: batch_norm(center=False),
    "bare": lambda: batch_norm(scale=False, center=False, epsilon=0.1),
    "rescaling": lambda: layers.Rescaling(1 / 3, offset=-2),
    "rescaling_channels": lambda: layers.Rescaling([1, 2, 3], offset=[4, 5, 6]),
    "normalization": normalization,
    "normalization_given": lambda: layers.Normalization(
        mean=[1, 2, 3], variance=[4, 5, 6]
    ),
    "normalization_inverted": lambda: normalization(invert=True),
}


@pytest.mark.parametrize("shape", [(3,), (5, 3), (4, 5, 3), (2, 4, 5, 3)])
@pytest.mark.parametrize("name", AFFINE)
def test_an_affine_layer_computes_the_same(name, shape):
    wrapper = AffineWrapper(AFFINE[name]())
    wrapper.build((None, *shape))
    settle(wrapper.layer)
    x = data(*shape)
    assert wrapper(x).shape == x.shape
    np.testing.assert_allclose(wrapper(x), wrapper.layer(x), rtol=1e-5, atol=1e-5)


def test_batch_normalization_trains_as_it_does_alone():
    wrapper, alone = AffineWrapper(batch_norm()), batch_norm()
    x = data(4, 5, 3)
    for _ in range(2):
        found, expected = wrapper(x, training=True), alone(x, training=True)
        np.testing.assert_array_equal(found, expected)
    for a, b in zip(wrapper.layer.weights, alone.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_masked_steps_do_not_count_in_the_statistics():
    inputs = keras.Input((6, 3))
    model = keras.Model(inputs, AffineWrapper(batch_norm())(layers.Masking()(inputs)))
    x = data(6, 3)
    x[:, 4:] = 0
    model(x, training=True)
    expected = 0.01 * x[:, :4].mean((0, 1))
    np.testing.assert_allclose(
        model.layers[-1].layer.moving_mean, expected, rtol=1e-4, atol=1e-6
    )


def test_frozen_batch_normalization_lets_gradients_through():
    wrapper = AffineWrapper(batch_norm())
    x = tf.Variable(data(4, 5, 3))
    wrapper(x)
    settle(wrapper.layer)
    wrapper.trainable = False
    mean = wrapper.layer.moving_mean.numpy()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(wrapper(x, training=True))
    scale = wrapper.layer.gamma / np.sqrt(wrapper.layer.moving_variance + 1e-3)
    np.testing.assert_allclose(
        tape.gradient(loss, x), np.broadcast_to(scale, x.shape), rtol=1e-5
    )
    np.testing.assert_array_equal(wrapper.layer.moving_mean, mean)


def test_large_statistics_hold_in_half_precision():
    wrapper = AffineWrapper(batch_norm(dtype="mixed_float16"))
    wrapper.build((None, 4, 5, 3))
    wrapper.layer.moving_mean.assign([300.0] * 3)
    wrapper.layer.moving_variance.assign([1e6] * 3)
    x = (300 + 1000 * data(4, 5, 3)).astype("float16")
    found, expected = wrapper(x), wrapper.layer(x)
    assert found.dtype == expected.dtype == "float16"
    np.testing.assert_allclose(found, expected, atol=4e-3)


def test_a_bias_of_many_steps_is_rounded_as_in_double_precision():
    # In float32 it would depend on the arrangement of the graph, and change on loading.
    random = np.random.default_rng(0)
    mean, beta = random.normal(size=(2, 4096)).astype("float32")
    gamma, variance = random.uniform(0.5, 2, size=(2, 4096)).astype("float32")
    step = random.uniform(1e-6, 1e-5, 4096).astype("float32")
    norm = layers.BatchNormalization(epsilon=1e-3)
    norm.build((None, 4096))
    norm.set_weights([gamma, beta, mean, variance])
    zeros = keras.ops.zeros((4096,))
    found = FoldedBatchNormalization(norm)(keras.ops.zeros((1, 4096)), zeros, step)
    scale = gamma / np.sqrt(variance.astype("float64") + 1e-3)
    grid = step.astype("float64") * scale
    expected = np.round((beta - mean * scale) / grid) * grid
    np.testing.assert_array_less(np.abs(found[0] - expected), 0.5 * grid)
