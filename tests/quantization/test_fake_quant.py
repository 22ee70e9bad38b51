"""The ranges and the rounding of `FakeQuantize`, against NumPy and TFMOT."""

import importlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_compress.quantization.fake_quant import FakeQuantize
from keras_compress.tfmot import import_tfmot


def layer_of(low=-1.0, high=2.0, site=0, **options):
    """A layer with this range, as calibration sets it."""
    layer = FakeQuantize(**options)
    layer.build()
    if layer.fixed is None:
        layer.set_range(site, low, high, 0.0)
    return layer


def rounded(x, low, high):
    """(values, low end, high end) of a 256-level grid with an exact zero."""
    scale = (high - low) / 255
    zero = np.clip(np.round(-128 - low / scale), -128, 127)
    steps = np.clip(np.round(x / scale + zero), -128, 127)
    return scale * (steps - zero), scale * (-128 - zero), scale * (127 - zero)


def range_of(layer):
    return [float(end) for end in layer.range()]


def values(scale=1.0, shape=(8, 50)):
    return (scale * np.random.default_rng(0).normal(size=shape)).astype("float32")


@pytest.mark.parametrize(
    ("low", "high"), [(-1, 2), (0, 6), (-3, 0), (-0.01, 5), (-1e-4, 1e-3), (-900, 7e4)]
)
def test_values_lie_on_the_grid_of_the_range_with_an_exact_zero(low, high):
    layer = layer_of(low, high)
    x = values(high - low)
    expected, _, _ = rounded(x.astype("float64"), low, high)
    np.testing.assert_allclose(layer(x), expected, atol=1e-5 * (high - low))
    assert layer(np.zeros((1, 1), "float32")).numpy() == 0
    assert len(np.unique(layer(np.linspace(low, high, 5000, dtype="float32")))) == 256


def test_the_gradient_is_one_inside_the_range_and_zero_outside():
    x = tf.Variable([[-2.0, -1.2, -0.9, 0.0, 1.9, 2.3, 90.0]])
    layer = layer_of(-1, 2, update=False)
    _, low, high = rounded(0, -1, 2)
    assert (round(low, 3), round(high, 3)) == (-1.0, 2.0)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x, training=True) * [[1.0, 2, 3, 4, 5, 6, 7]])
    np.testing.assert_array_equal(tape.gradient(loss, x), [[0, 0, 3, 4, 5, 0, 0]])


def test_the_first_batch_sets_the_range():
    layer = FakeQuantize()
    x = values()
    layer(x, training=True)
    np.testing.assert_allclose(range_of(layer), [x.min(), x.max()], rtol=1e-6)


def test_the_range_is_the_mean_of_the_first_batches_then_moves_by_a_hundredth():
    layer = FakeQuantize()
    batches = [values(k + 1) for k in range(101)]
    lows, highs = zip(*((x.min(), x.max()) for x in batches), strict=True)
    for count, x in enumerate(batches[:100], start=1):
        layer(x, training=True)
        expected = [np.mean(lows[:count]), np.mean(highs[:count])]
        np.testing.assert_allclose(range_of(layer), expected, rtol=1e-4)
    old = range_of(layer)
    layer(batches[100], training=True)
    expected = [0.99 * old[0] + 0.01 * lows[100], 0.99 * old[1] + 0.01 * highs[100]]
    np.testing.assert_allclose(range_of(layer), expected, rtol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_calibrated_range_moves_and_rounds_as_tfmots_does():
    import_tfmot()
    quant_ops = importlib.import_module(
        "tensorflow_model_optimization.python.core.quantization.keras.quant_ops"
    )
    low, high = tf.Variable(-1.0), tf.Variable(2.0)
    layer = layer_of(-1, 2)
    for count in range(3):
        x = tf.constant(values(count + 1))
        expected = quant_ops.MovingAvgQuantize(x, low, high, ema_decay=0.99)
        found = layer(x, training=True)
        np.testing.assert_allclose(range_of(layer), [low.numpy(), high.numpy()], 1e-6)
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_range_contains_zero(sign):
    layer = FakeQuantize()
    layer(sign * np.array([[3.0, 4.0]], "float32"), training=True)
    assert range_of(layer) == [0, 4] if sign == 1 else [-4, 0]


def test_inference_moves_nothing():
    layer = layer_of()
    before = layer.get_weights()
    layer(values(100), training=False)
    layer(values(100))
    np.testing.assert_array_equal(layer.get_weights(), before)


@pytest.mark.parametrize("how", [{"update": False}, {"trainable": False}])
def test_a_frozen_range_stays_and_goes_on_rounding(how):
    layer = layer_of(**how)
    x = values(100)
    expected, _, _ = rounded(x.astype("float64"), -1, 2)
    np.testing.assert_allclose(layer(x, training=True), expected, atol=1e-5)
    assert range_of(layer) == [-1, 2]


def test_a_layer_that_is_not_enabled_passes_values_and_learns_their_range():
    layer = FakeQuantize(enabled=False)
    x = values()
    np.testing.assert_array_equal(layer(x, training=True), x)
    np.testing.assert_allclose(range_of(layer), [x.min(), x.max()], rtol=1e-6)


def test_a_fixed_range_never_moves():
    layer = layer_of(fixed=(0, 255 / 256))
    x = np.array([[-1, 0.1, 0.5, 3]], "float32")
    expected = [[0, 26 / 256, 0.5, 255 / 256]]
    np.testing.assert_allclose(layer(x, training=True), expected, atol=1e-6)
    assert range_of(layer) == [0, 255 / 256]


def test_sites_are_learned_apart_and_rounded_to_the_range_of_all():
    layer = FakeQuantize(sites=3)
    x = values()
    for _ in range(4):
        layer(x, training=True)
        layer(5 * x, site=1, training=True)
        layer(abs(x), site=2, training=True)
    np.testing.assert_allclose(layer.minimum, [x.min(), 5 * x.min(), abs(x).min()])
    np.testing.assert_allclose(layer.maximum, [x.max(), 5 * x.max(), abs(x).max()])
    np.testing.assert_allclose(range_of(layer), [5 * x.min(), 5 * x.max()])
    expected, _, _ = rounded(x.astype("float64"), 5 * x.min(), 5 * x.max())
    np.testing.assert_allclose(layer(x), expected, atol=1e-5)


def test_a_range_is_a_256th_of_what_comes_before_the_activation():
    layer = FakeQuantize()
    source = np.array([[-8.0, -2.0, 0.0, 0.0]], "float32")
    layer(np.maximum(source, 0), source, training=True)
    assert range_of(layer) == [0, 8 / 256]


def test_a_range_is_a_thousandth_where_all_is_zero():
    layer = FakeQuantize()
    zeros = np.zeros((2, 4), "float32")
    np.testing.assert_array_equal(layer(zeros, zeros, training=True), zeros)
    np.testing.assert_allclose(range_of(layer), [0, 1e-3])


def test_the_floor_does_not_touch_a_range_that_is_wider():
    layer = FakeQuantize()
    source = values()
    layer(np.maximum(source, 0), source, training=True)
    np.testing.assert_allclose(range_of(layer), [0, source.max()], rtol=1e-6)


def test_half_precision_comes_out_as_it_came_rounded_in_float32():
    layer = FakeQuantize(dtype="mixed_float16")
    x = values().astype("float16")
    found = layer(x, training=True)
    assert found.dtype == "float16"
    assert {v.dtype for v in layer.weights} == {"float32"}
    wide = x.astype("float64")
    expected, _, _ = rounded(wide, wide.min(), wide.max())
    np.testing.assert_array_equal(found, expected.astype("float16"))


def test_a_mask_passes():
    inputs = keras.Input((6, 3))
    found = FakeQuantize()(keras.layers.Masking()(inputs))
    x = values(shape=(2, 6, 3))
    x[:, 4:] = 0
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling1D()(found))
    model.layers[2].set_range(0, -4.0, 4.0, 0.0)
    expected = rounded(x[:, :4].astype("float64"), -4, 4)[0].mean(1)
    np.testing.assert_allclose(model(x), expected, atol=1e-5)


def test_the_configuration_and_the_range_are_saved(tmp_path):
    inputs = keras.Input((4,))
    layer = FakeQuantize(2, update=False, name="range")
    model = keras.Model(inputs, layer(inputs, site=1))
    layer.set_range(1, -3.0, 5.0, 0.5)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras").get_layer("range")
    assert loaded.get_config() == layer.get_config()
    assert (loaded.sites, loaded.fixed, loaded.enabled, loaded.update) == (
        2,
        None,
        True,
        False,
    )
    assert range_of(loaded) == [-3, 5]


@pytest.mark.parametrize("cap", [None, 6.0])
def test_training_computes_what_the_relu_gives_without_computing_it(cap):
    """Values, gradients and ranges of rounding x are those of rounding relu(x)."""
    x = tf.Variable(values(3.0, (16, 40)))
    assert float(tf.reduce_max(x)) > 6
    found, expected = FakeQuantize(), FakeQuantize()
    weights = values()[0, :40]
    results = []
    for layer, given in ((found, True), (expected, False)):
        with tf.GradientTape() as tape:
            relu = tf.nn.relu(x) if cap is None else tf.nn.relu6(x)
            options = {"source": x, "cap": cap} if given else {}
            y = layer(relu, training=True, **options)
            loss = tf.reduce_sum(y * weights)
        results.append((y, tape.gradient(loss, x), range_of(layer)))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def test_the_scale_is_that_of_the_int8_tensor_and_zero_while_nothing_is_rounded():
    layer = layer_of(-1, 2)
    x = values()
    assert float(layer(x, only_scale=True)) == pytest.approx(3 / 255)
    layer.enabled = False
    assert float(layer(x, only_scale=True)) == 0
    fixed = FakeQuantize(fixed=(0, 255 / 256))
    assert float(fixed(x, only_scale=True)) == pytest.approx(1 / 256)
