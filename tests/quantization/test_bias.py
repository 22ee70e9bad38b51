"""The bias in inference: on the int32 grid of the file, folded or not."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_compress as kc
import tflite_export
from keras_compress.quantization.affine import FoldedBatchNormalization
from keras_compress.quantization.fake_quant import FakeQuantize
from keras_compress.quantization.grid import bias_on_grid, weight_scale
from keras_compress.quantization.wrapper import QuantizeWrapper

KINDS = {
    "conv": lambda **options: layers.Conv2D(5, 3, **options),
    "depthwise": lambda **options: layers.DepthwiseConv2D(
        3, depth_multiplier=2, **options
    ),
    "transpose": lambda **options: layers.Conv2DTranspose(5, 3, **options),
    "dense": lambda **options: layers.Dense(5, **options),
}


def images(count=64):
    random = np.random.default_rng(0)
    return random.uniform(-30, 30, (count, 6, 6, 3)).astype("float32")


def settle(model):
    """Large biases and statistics, so that rounding them can be seen."""
    random = np.random.default_rng(1)
    for weight in model.weights:
        if weight.name in ("bias", "beta", "gamma", "moving_variance"):
            weight.assign(random.uniform(0.5, 2, weight.shape))
        elif weight.name == "moving_mean":
            weight.assign(random.normal(0, 1, weight.shape))


def aware(kind, norm, bits=8, **options):
    parts = [KINDS[kind](name="linear", **options)]
    parts += [layers.BatchNormalization(name="norm")] if norm else []
    model = keras.Sequential([keras.Input((6, 6, 3)), *parts, layers.Flatten()])
    settle(model)
    return kc.quantize_aware(model, calibration_data=images(), weight_bits=bits)


def scale_of_the_bias(model, bits):
    """In NumPy: scale of the inputs times that of the stored kernel, per channel."""
    [inputs] = [x for x in model.layers if isinstance(x, FakeQuantize)][:1]
    low, high = map(float, inputs.range())
    [(kernel, axes)] = model.get_layer("linear").kernels()
    largest = np.abs(np.asarray(kernel, "float64")).max(axes).reshape(-1)
    return (high - low) / 255 * largest / 127


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_a_bias_is_a_whole_number_of_its_scale_in_inference(kind, bits):
    model = aware(kind, norm=False, bits=bits)
    wrapper = model.get_layer("linear")
    bias = wrapper.layer.bias.numpy().astype("float64")
    scale = scale_of_the_bias(model, bits)
    zeros = np.zeros((1, 6, 6, 3), "float32")
    found = wrapper(zeros, model.layers[1].scale()).numpy().reshape(-1, len(bias))[0]
    np.testing.assert_allclose(found, np.round(bias / scale) * scale, rtol=1e-6)
    assert np.abs(found - bias).max() > 0
    trained = wrapper(zeros, model.layers[1].scale(), training=True).numpy()
    np.testing.assert_allclose(trained.reshape(-1, len(bias))[0], bias, rtol=1e-6)


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_normalization_adds_is_a_whole_number_as_well(kind, use_bias):
    model = aware(kind, norm=True, use_bias=use_bias)
    wrapper, norm = model.get_layer("linear"), model.get_layer("norm").layer
    values = {v.name: v.numpy().astype("float64") for v in norm.weights}
    factor = values["gamma"] / np.sqrt(values["moving_variance"] + norm.epsilon)
    bias = wrapper.layer.bias.numpy() if use_bias else 0.0
    folded = values["beta"] + (bias - values["moving_mean"]) * factor
    scale = scale_of_the_bias(model, 8) * factor
    expected = np.round(folded / scale) * scale
    zeros = np.zeros((1, 6, 6, 3), "float32")
    outputs = wrapper(zeros, model.layers[1].scale(), folds=True)
    found = model.get_layer("norm")(*outputs).numpy().reshape(-1, len(factor))[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6)
    assert np.abs(expected - folded).max() > 5e-5


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_the_file_holds_these_integers(kind, norm, tmp_path):
    """Every output of the file equals the model's, but for a tie of its rounding."""
    model = aware(kind, norm)
    path = tmp_path / "m.tflite"
    assert not tflite_export.export(model, path).float_ops
    agreement = tflite_export.compare(model, path, images())
    assert agreement.within_one_step == 1
    assert agreement.equal >= 0.99


def test_a_normalization_trains_as_it_does_alone():
    wrapper = FoldedBatchNormalization(layers.BatchNormalization())
    alone = layers.BatchNormalization()
    x, channels = images(), np.ones(3, "float32")
    found = wrapper(x, channels, channels, training=True)
    np.testing.assert_array_equal(found, alone(x, training=True))
    for a, b in zip(wrapper.layer.weights, alone.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_masked_steps_do_not_count_in_the_statistics():
    inputs = keras.Input((6, 3))
    ones = np.ones(3, "float32")
    wrapper = FoldedBatchNormalization(layers.BatchNormalization())
    model = keras.Model(inputs, wrapper(layers.Masking()(inputs), ones, ones))
    x = np.random.default_rng(0).normal(size=(8, 6, 3)).astype("float32")
    x[:, 4:] = 0
    model(x, training=True)
    expected = 0.01 * x[:, :4].mean((0, 1))
    np.testing.assert_allclose(
        wrapper.layer.moving_mean, expected, rtol=1e-4, atol=1e-6
    )


def test_a_bias_without_a_scale_stays_as_it_is():
    bias = np.array([1.26, -0.3, 5.0], "float32")
    found = bias_on_grid(bias, np.array([0.5, 0.0, 0.0], "float32"))
    np.testing.assert_array_equal(found, np.array([1.5, -0.3, 5.0], "float32"))


def test_nothing_is_rounded_while_rounding_is_off():
    model = aware("conv", norm=True)
    for layer in model.layers:
        if isinstance(layer, (FakeQuantize, QuantizeWrapper)):
            layer.enabled = False
    plain = kc.strip(aware("conv", norm=True))
    plain.get_layer("linear").kernel.assign(model.get_layer("linear").layer.kernel)
    np.testing.assert_allclose(model(images()), plain(images()), rtol=1e-5, atol=1e-5)


def test_a_kernel_of_few_bits_has_the_scale_of_its_int8_integers():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 4)).astype("float32")
    for bits in (2, 4, 8):
        largest = np.abs(kernel).max((0, 1, 2), keepdims=True)
        expected = largest / (2 ** (bits - 1) - 1)
        np.testing.assert_allclose(
            weight_scale(kernel, (0, 1, 2), bits), expected, rtol=1e-6
        )
