"""Budgets, what is left alone and why, what is kept of the model, and bad input."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

import keras_compress as kc
import tflite_export
from keras_compress.factorization.factorize import factorize


def vgg_like(strides=1):
    image = keras.Input((16, 16, 3), name="image")
    x = image
    for units in (32, 48):
        x = layers.Conv2D(units, 3, strides=strides, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Flatten()(layers.MaxPooling2D(4)(x))
    x = layers.Dense(96, activation="relu", name="hidden")(x)
    return keras.Model(image, layers.Dense(10, name="scores")(x), name="net")


def reasons(model):
    return {row.name: row.reason for row in model.factor_report.layers}


def by_hand(model):
    return sum(int(np.prod(variable.shape)) for variable in model.weights)


@pytest.mark.parametrize("share", [0.15, 0.4, 0.8])
@pytest.mark.parametrize("round_to", [1, 8])
def test_a_budget_is_met_to_one_rounding_step(share, round_to):
    model = vgg_like()
    smaller = factorize(model, params=share, round_to=round_to)
    rows = [row for row in smaller.factor_report.layers if row.rank]
    assert rows
    assert all(row.rank % round_to == 0 for row in rows)
    # The matrix of the largest layer is 768 x 96.
    step = round_to * (768 + 96)
    assert share * by_hand(model) - step < by_hand(smaller) <= share * by_hand(model)
    assert smaller.factor_report.params == (by_hand(model), by_hand(smaller))


def test_the_rows_of_the_report_add_up():
    model = vgg_like()
    smaller = factorize(model, energy=0.6)
    before, after = smaller.factor_report.params
    rows = smaller.factor_report.layers
    assert [row.name for row in rows] == [
        layer.name for layer in model.layers if hasattr(layer, "kernel")
    ]
    assert sum(row.before - row.after for row in rows) == before - after
    replaced = [row for row in rows if row.rank]
    assert len(replaced) > 1
    for row in replaced:
        parts = [smaller.get_layer(name) for name in (f"{row.name}_in", row.name)]
        assert row.after == sum(part.count_params() for part in parts)
        assert row.rank == parts[0].kernel.shape[-1]
    table = str(smaller.factor_report)
    assert f"parameters: {before:,} before, {after:,} after" in table
    assert "hidden" in table


def test_a_kernel_of_full_rank_stays_with_all_energy():
    model = vgg_like()
    same = factorize(model, energy=1.0)
    assert [layer.name for layer in same.layers] == [x.name for x in model.layers]
    assert set(reasons(same).values()) == {"no smaller rank keeps as much energy"}
    for old, new in zip(model.weights, same.weights, strict=True):
        np.testing.assert_array_equal(old, new)


def test_what_is_left_alone_is_listed_with_its_reason():
    image = keras.Input((12, 12, 16))
    x = layers.Conv2D(32, 3, groups=2, name="grouped")(image)
    x = layers.DepthwiseConv2D(3, name="wise")(x)
    x = layers.SeparableConv2D(32, 3, padding="same", name="separable")(x)
    x = layers.Conv2DTranspose(32, 3, name="transposed")(x)
    x = layers.Conv2D(32, 3, kernel_constraint="max_norm", name="normed")(x)
    x = layers.Conv2D(64, 3, name="chosen_not")(x)
    x = layers.Conv2D(32, 3, kernel_initializer="zeros", name="zeros")(x)
    x = layers.BatchNormalization()(layers.GlobalAveragePooling2D()(x))
    x = layers.Reshape((4, 8))(x)
    x = layers.EinsumDense("abc,bd->adc", (16, 8), name="other_axis")(x)
    x = layers.LSTM(16, name="lstm")(x)
    x = layers.Dense(64, name="wide")(x)
    model = keras.Model(image, layers.Dense(2, name="narrow")(x))
    smaller = factorize(
        model, energy=0.4, layers=lambda layer: layer.name != "chosen_not"
    )
    assert reasons(smaller) == {
        "grouped": "grouped",
        "wise": "no way for a DepthwiseConv2D",
        "separable": "no way for a SeparableConv2D",
        "transposed": "no way for a Conv2DTranspose",
        "normed": "its kernel has a constraint",
        "chosen_not": "left out by `layers`",
        "zeros": "its kernel is zero",
        "other_axis": "its kernel is no matrix along the last axis",
        "lstm": "no way for a LSTM",
        "wide": "",
        "narrow": "no rank saves parameters",
    }
    assert "left alone: grouped" in str(smaller.factor_report)


@keras.saving.register_keras_serializable("test_factorize")
class Doubled(layers.Dense):
    def call(self, inputs, training=None):
        return 2 * super().call(inputs, training=training)


def test_a_subclass_of_a_layer_is_left_alone():
    model = keras.Sequential([keras.Input((64,)), Doubled(64, name="own")])
    same = factorize(model, energy=0.4)
    assert reasons(same) == {"own": "no way for a Doubled"}
    x = np.ones((1, 64), "float32")
    np.testing.assert_array_equal(same(x), model(x))


def test_a_layer_that_is_called_twice_becomes_two_layers_that_are():
    x = keras.Input((48,))
    shared = layers.Dense(48, activation="tanh", name="shared")
    model = keras.Model(x, layers.Add()([shared(shared(x)), x]))
    random = np.random.default_rng(0)
    kernel = random.normal(size=(48, 6)) @ random.normal(size=(6, 48)) / 20
    shared.kernel.assign(kernel)
    smaller = factorize(model, energy=1.0)
    assert [tuple(v.shape) for v in smaller.weights] == [(48, 8), (8, 48), (48,)]
    x = random.normal(size=(4, 48)).astype("float32")
    np.testing.assert_allclose(smaller(x), model(x), rtol=1e-5, atol=1e-5)


def test_a_nested_base_is_factorised_too():
    base = vgg_like()
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.Model(base.input, base.get_layer("hidden").output, name="base"),
            layers.Dropout(0.5),
            layers.Dense(10, name="hidden_in"),
        ]
    )
    smaller = factorize(model, params=0.5, round_to=4)
    names = [layer.name for layer in smaller.layers]
    # The user's layers keep their names.
    assert names[-4:] == ["hidden_in_2", "hidden", "dropout", "hidden_in"]
    assert smaller.get_layer("hidden").units == 96
    assert 0.48 < by_hand(smaller) / by_hand(model) <= 0.5
    assert smaller(np.ones((2, 16, 16, 3), "float32")).shape == (2, 10)


def test_layers_keep_their_settings():
    x = keras.Input((64,))
    decay = keras.regularizers.L2(0.1)
    dense = layers.Dense(
        *(64, "relu"),
        kernel_regularizer=decay,
        bias_regularizer=decay,
        activity_regularizer=decay,
        dtype="mixed_float16",
        trainable=False,
        name="dense",
    )
    model = keras.Model(x, dense(x))
    smaller = factorize(model, energy=0.5)
    first, second = smaller.layers[-2:]
    assert (first.name, second.name) == ("dense_in", "dense")
    for part in (first, second):
        assert part.compute_dtype == "float16"
        assert part.kernel_regularizer.l2 == pytest.approx(0.1)
        assert not part.trainable
    assert (first.use_bias, first.activity_regularizer) == (False, None)
    assert second.bias_regularizer.l2 == second.activity_regularizer.l2
    assert keras.activations.serialize(first.activation) == "linear"
    assert keras.activations.serialize(second.activation) == "relu"
    assert dense.activity_regularizer is not None


def test_the_given_model_keeps_its_weights_and_the_new_one_its_own():
    model = vgg_like()
    before = [np.array(v) for v in model.weights]
    smaller = factorize(model, params=0.5)
    for variable in smaller.weights:
        variable.assign(keras.ops.zeros_like(variable))
    for old, variable in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, variable)
    assert smaller.input_shape == model.input_shape
    assert smaller.output_shape == model.output_shape
    assert (smaller.name, smaller.output_names) == (model.name, model.output_names)


def test_the_compile_state_is_carried_and_the_model_learns():
    model = vgg_like()
    model.compile(keras.optimizers.Adam(3e-3), "mse", metrics=["mae"])
    smaller = factorize(model, params=0.4)
    x = np.random.default_rng(0).random((16, 16, 16, 3), "float32")
    history = smaller.fit(x, np.ones((16, 10)), epochs=4, verbose=0).history
    assert set(history) == {"loss", "mae"}
    assert history["loss"][-1] < history["loss"][0]


LOAD = """
import sys
import numpy as np, keras
model = keras.models.load_model(sys.argv[1])
y = model.predict(np.load(sys.argv[2]), verbose=0)
assert not [name for name in sys.modules if name.startswith("keras_compress")]
np.save(sys.argv[3], y)
"""


def test_the_model_loads_without_this_package(tmp_path):
    smaller = factorize(vgg_like(), params=0.4)
    x = np.random.default_rng(0).random((16, 16, 16, 3), "float32")
    smaller.save(tmp_path / "m.keras")
    np.save(tmp_path / "x.npy", x)
    paths = [str(tmp_path / name) for name in ("m.keras", "x.npy", "y.npy")]
    subprocess.run([sys.executable, "-c", LOAD, *paths], check=True, cwd=tmp_path)
    expected = smaller.predict(x, verbose=0)
    np.testing.assert_allclose(np.load(paths[2]), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("strides", [1, 2])
def test_the_int8_file_computes_what_the_model_does(strides, tmp_path):
    """Up to int8, with as many multiply-accumulates as were counted."""
    smaller = factorize(vgg_like(strides), params=0.4)
    x = np.random.default_rng(0).random((64, 16, 16, 3), "float32")
    path = tmp_path / "m.tflite"
    tflite_export.export(smaller, path, representative_data=x)
    assert tflite_export.inspect(path).macs == kc.profile(smaller).macs
    expected = smaller.predict(x, verbose=0)
    found = tflite_export.predict(path, x)
    error = np.sqrt(np.mean((found - expected) ** 2)) / expected.std()
    assert error < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of"),
        ({"params": 0.5, "energy": 0.5}, "exactly one of"),
        ({"params": 0}, r"in \(0, 1\]"),
        ({"energy": 1.5}, r"in \(0, 1\].*energy=1.5"),
        ({"params": "half"}, "params='half'"),
        ({"params": 0.5, "round_to": 0}, "round_to=0"),
        ({"params": 0.5, "round_to": 2.5}, "round_to=2.5"),
    ],
)
def test_wrong_arguments_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        factorize(vgg_like(), **options)


def test_a_budget_out_of_reach_says_how_far_one_can_go_and_what_blocks():
    model = vgg_like()
    least = factorize(model, energy=1e-6)
    share = by_hand(least) / by_hand(model)
    with pytest.raises(ValueError, match=f"{share:.3f} is left.*biases"):
        factorize(model, params=share / 2)
    with pytest.raises(
        ValueError, match=r"1\.000 is left.*hidden: left out by `layers`"
    ):
        factorize(model, params=0.5, layers=lambda layer: False)


def test_a_kernel_that_is_not_finite_is_an_error():
    model = vgg_like()
    kernel = model.get_layer("hidden").kernel
    kernel.assign(keras.ops.full_like(kernel, np.nan))
    with pytest.raises(ValueError, match="'hidden' with 73728 values"):
        factorize(model, params=0.5)


class Own(keras.Model):
    def call(self, x):
        return x


def test_models_that_cannot_be_read_are_errors():
    with pytest.raises(ValueError, match="must be built"):
        factorize(keras.Sequential([layers.Dense(3)]), params=0.5)
    with pytest.raises(ValueError, match="subclassed"):
        factorize(Own(), params=0.5)
    with pytest.raises(ValueError, match=r"keras\.Model"):
        factorize("model", params=0.5)


def test_a_quantization_aware_model_is_an_error():
    with pytest.raises(ValueError, match=r"factorize first.*kc\.strip"):
        factorize(kc.quantize_aware(vgg_like()), params=0.5)
