"""Ranges set from data before training, and data that does not fit."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_compress as kc
from keras_compress.quantization.fake_quant import FakeQuantize


def small_model():
    inputs = keras.Input((4,), name="x")
    hidden = layers.Dense(6, activation="relu", name="hidden")(inputs)
    return keras.Model(inputs, layers.Dense(3, name="scores")(hidden))


def rows(count=100, width=4, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(count, width)).astype("float32")


def ranges(model):
    return {
        layer.name: [float(end) for end in layer.range()]
        for layer in model.layers
        if isinstance(layer, FakeQuantize)
    }


def on_grid(kernel):
    scale = np.abs(kernel).max(0, keepdims=True) / 127
    return np.round(kernel / scale) * scale


def values(model, x):
    """What stands at each range of the model, with rounded kernels, by NumPy."""
    hidden, scores = (model.get_layer(name) for name in ("hidden", "scores"))
    y = np.maximum(x @ on_grid(hidden.get_weights()[0]) + hidden.get_weights()[1], 0)
    z = y @ on_grid(scores.get_weights()[0]) + scores.get_weights()[1]
    return {"x_range": x, "hidden_activation_range": y, "scores": z}


def test_ranges_are_the_extremes_of_all_data():
    model, x = small_model(), rows()
    found = ranges(kc.quantize_aware(model, calibration_data=x))
    expected = {k: [v.min(), v.max()] for k, v in values(model, x).items()}
    assert found.keys() == expected.keys()
    for name, ends in expected.items():
        np.testing.assert_allclose(found[name], ends, rtol=1e-5, atol=1e-6)


def test_the_percentile_is_averaged_over_batches_of_32():
    model, x = small_model(), rows(96)
    aware = kc.quantize_aware(model, calibration_data=x, percentile=90.0)
    for name, found in values(model, x).items():
        ends = [np.percentile(b, (10, 90)) for b in np.split(found, 3)]
        np.testing.assert_allclose(
            ranges(aware)[name], np.mean(ends, axis=0), rtol=1e-4, atol=1e-5
        )


def test_the_hundredth_percentile_of_one_batch_is_its_extremes():
    model, x = small_model(), rows(30)
    found = ranges(kc.quantize_aware(model, calibration_data=x, percentile=100))
    expected = ranges(kc.quantize_aware(model, calibration_data=x))
    for name, ends in expected.items():
        np.testing.assert_allclose(found[name], ends, rtol=1e-5)


def test_outputs_are_near_the_models_before_any_training():
    model, x = small_model(), rows()
    aware = kc.quantize_aware(model, calibration_data=x)
    np.testing.assert_allclose(aware(x), model(x), atol=0.03)


def test_a_calibrated_range_moves_slowly_in_training():
    model, x = small_model(), rows()
    aware = kc.quantize_aware(model, calibration_data=x)
    before = ranges(aware)["x_range"]
    aware(3 * x, training=True)
    expected = [0.99 * end + 0.01 * 3 * end for end in before]
    np.testing.assert_allclose(ranges(aware)["x_range"], expected, rtol=1e-5)


def test_a_layer_whose_values_are_all_zero_gets_a_range():
    model, x = small_model(), rows()
    model.get_layer("hidden").set_weights([np.zeros((4, 6)), np.zeros(6)])
    aware = kc.quantize_aware(model, calibration_data=x)
    low, high = ranges(aware)["hidden_activation_range"]
    assert (low, round(high, 6)) == (0, 1e-3)
    model.get_layer("hidden").set_weights([np.zeros((4, 6)), np.full(6, -2.56)])
    aware = kc.quantize_aware(model, calibration_data=x)
    low, high = ranges(aware)["hidden_activation_range"]
    assert (low, round(high, 6)) == (0, 0.01)


def test_the_model_is_calibrated_as_it_infers():
    inputs = keras.Input((4,), name="x")
    hidden = layers.Dropout(0.5)(layers.BatchNormalization()(inputs))
    model = keras.Model(inputs, layers.Dense(3)(hidden))
    x = rows() + 5
    aware = kc.quantize_aware(model, calibration_data=x)
    found = ranges(aware)["batch_normalization_range"]
    np.testing.assert_allclose(found, [0, x.max() / np.sqrt(1.001)], rtol=1e-5)
    moving = aware.get_layer("batch_normalization").layer.moving_mean
    np.testing.assert_array_equal(moving, np.zeros(4))


def batched(*parts):
    return tf.data.Dataset.from_tensor_slices(parts if len(parts) > 1 else parts[0])


@pytest.mark.parametrize(
    "data",
    [
        lambda x: x.astype("float64"),
        lambda x: tf.constant(x),
        lambda x: {"x": x},
        lambda x: [x],
        lambda x: batched(x).batch(32),
        lambda x: batched(x, np.ones(100)).batch(7),
        lambda x: batched(x, np.ones(100), np.ones(100)).batch(100),
        lambda x: batched({"x": x}).batch(32),
        lambda x: batched({"x": x}, np.ones(100)).batch(32),
    ],
    ids=[
        "float64",
        "tensor",
        "dict",
        "list",
        "dataset",
        "dataset_with_y",
        "dataset_with_weights",
        "dataset_of_dicts",
        "dataset_of_dicts_with_y",
    ],
)
def test_data_may_come_in_any_of_these_ways(data):
    model, x = small_model(), rows()
    expected = ranges(kc.quantize_aware(model, calibration_data=x))
    found = ranges(kc.quantize_aware(model, calibration_data=data(x)))
    for name, ends in expected.items():
        np.testing.assert_allclose(found[name], ends, rtol=1e-5)


def two_inputs():
    zeta, alpha = keras.Input((4,), name="zeta"), keras.Input((2,), name="alpha")
    both = layers.Concatenate()([layers.Dense(3)(zeta), layers.Dense(3)(alpha)])
    return keras.Model([zeta, alpha], layers.Dense(2)(both))


@pytest.mark.parametrize(
    "data",
    [
        lambda a, b: [a, b],
        lambda a, b: (a, b),
        lambda a, b: {"alpha": b, "zeta": a},
        lambda a, b: batched((a, b), np.ones(100)).batch(32),
        lambda a, b: batched({"alpha": b, "zeta": a}).batch(32),
    ],
    ids=["list", "tuple", "dict", "dataset", "dataset_of_dicts"],
)
def test_several_inputs_are_told_apart(data):
    zeta, alpha = rows(), 10 + rows(width=2)
    aware = kc.quantize_aware(two_inputs(), calibration_data=data(zeta, alpha))
    np.testing.assert_allclose(
        ranges(aware)["zeta_range"], [zeta.min(), zeta.max()], rtol=1e-6
    )
    np.testing.assert_allclose(ranges(aware)["alpha_range"], [0, alpha.max()])


def with_nan(value=np.nan):
    x = rows()
    x[70, 2] = value
    return x


BAD = {
    "nan": (lambda: with_nan(), "'x' must be finite"),
    "infinite": (lambda: with_nan(-np.inf), "'x' must be finite"),
    "nan_in_a_dataset": (lambda: batched(with_nan()).batch(10), "'x' must be finite"),
    "width": (lambda: rows(width=5), r"shape \(examples, 4\).*\(32, 5\)"),
    "rank": (lambda: np.ones((9, 4, 1)), r"shape \(examples, 4\).*\(9, 4, 1\)"),
    "one_example": (lambda: np.ones(4), r"shape \(examples, 4\).*\(4,\)"),
    "not_batched": (lambda: batched(rows()), r"shape \(examples, 4\).*\(4,\)"),
    "empty": (lambda: rows(0), "at least one example"),
    "empty_dataset": (lambda: batched(rows()).take(0).batch(2), "at least one example"),
    "strings": (lambda: np.full((9, 4), "a"), "must hold numbers"),
    "two_arrays": (lambda: [rows(), rows()], r"one array for each input .*\['x'\]"),
    "other_name": (lambda: {"y": rows()}, r"one array for each input .*\['x'\]"),
    "complex": (lambda: rows().astype("complex64"), "must hold numbers"),
    "path": (lambda: "x.npy", "must be an array.*x.npy"),
    "generator": (lambda: (x for x in [rows()]), "must be an array.*generator"),
}


@pytest.mark.parametrize("name", BAD)
def test_data_that_does_not_fit_is_refused_with_the_remedy(name):
    data, message = BAD[name]
    model = small_model()
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        kc.quantize_aware(model, calibration_data=data())
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_arrays_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match=r"same number of examples.*\[99, 100\]"):
        kc.quantize_aware(two_inputs(), calibration_data=[rows(), rows(99, 2)])


@pytest.mark.parametrize("percentile", [50, 0, 101, -1, float("nan"), "99", True])
def test_other_percentiles_are_refused(percentile):
    with pytest.raises(ValueError, match="`percentile` must be over 50"):
        kc.quantize_aware(small_model(), calibration_data=rows(), percentile=percentile)


def test_a_percentile_without_data_is_refused():
    with pytest.raises(ValueError, match="`percentile` needs `calibration_data`"):
        kc.quantize_aware(small_model(), percentile=99.9)
