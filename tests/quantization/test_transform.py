"""Into quantization-aware training and out of it: what is kept and what is refused."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_compress as kc
from keras_compress.quantization.affine import AffineWrapper
from keras_compress.quantization.fake_quant import FakeQuantize
from keras_compress.quantization.wrapper import QuantizeWrapper

OURS = (QuantizeWrapper, AffineWrapper, FakeQuantize)


def small_model(**options):
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, name="conv", **options)(inputs)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(x))
    x = layers.BatchNormalization(name="alone")(layers.MaxPooling2D()(x))
    x = layers.Dropout(0.5, name="drop")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(5, name="scores")(x), name="small")


def images(count=20):
    random = np.random.default_rng(0)
    return random.normal(size=(count, 8, 8, 3)).astype("float32")


def on_grid(kernel, bits=8):
    axes = tuple(range(kernel.ndim - 1))
    largest = np.abs(kernel).max(axes, keepdims=True)
    steps = np.float32(2 ** (bits - 1) - 1)
    rounded = np.round(kernel / (largest / steps)) * (largest / steps)
    return rounded if bits == 8 else on_grid(rounded)


def snapshot(model):
    parts = list(model._flatten_layers())
    return (
        model.to_json(),
        str(model.get_compile_config()) if model.compiled else "",
        [(id(part), sorted(set(vars(part)) - {"_losses"})) for part in parts],
        [np.array(v).tobytes() for v in model.variables],
        [v.trainable for v in model.variables],
    )


def test_the_given_model_is_never_changed():
    model = small_model()
    model.compile("adam", "mse", metrics=["mae"])
    before = snapshot(model)
    aware = kc.quantize_aware(model, calibration_data=images(), weight_bits=4)
    aware.fit(images(), np.ones((20, 5)), verbose=0)
    stripped = kc.strip(aware)
    aware_state = snapshot(aware)
    stripped.set_weights([w + 1 for w in stripped.get_weights()])
    kc.strip(aware)
    assert snapshot(model) == before
    assert snapshot(aware) == aware_state


def test_names_of_inputs_outputs_and_layers_are_kept():
    inputs = {k: keras.Input((4,), name=k) for k in ("a", "b")}
    x = layers.Dense(3, name="first")(layers.Concatenate()(list(inputs.values())))
    heads = {"age": layers.Dense(1, name="age")(x), "sex": layers.ReLU(name="sex")(x)}
    model = keras.Model(inputs, heads, name="people")
    aware = kc.quantize_aware(model)
    for new in (aware, kc.strip(aware)):
        assert new.name == "people"
        assert new.output_names == model.output_names == ["age", "sex"]
        assert set(new.input) == {"a", "b"} and set(new.output) == {"age", "sex"}
        new.get_layer("first")
    aware.compile("sgd", {"age": "mse", "sex": "mae"})
    x = {k: np.ones((4, 4)) for k in inputs}
    aware.fit(x, {"age": np.ones((4, 1)), "sex": np.ones((4, 3))}, verbose=0)


@pytest.mark.parametrize(
    "net",
    [
        lambda x: [x, layers.Dense(2)(x)],
        lambda x: [y := layers.Dense(2)(x), y],
        lambda x: [y := layers.Dense(2)(x), layers.ReLU()(y)],
        lambda x: ops.split(layers.Dense(4)(x), 2, axis=-1),
        lambda x: layers.Dense(2, activation="softmax")(x),
        lambda x: layers.Flatten()(layers.Dense(4)(x)),
    ],
    ids=["input", "twice", "inner", "split", "softmax", "passed"],
)
def test_unusual_outputs_are_near_the_models_and_keep_their_names(net):
    inputs = keras.Input((4,), name="x")
    model = keras.Model(inputs, net(inputs))
    x = np.random.default_rng(0).normal(size=(50, 4)).astype("float32")
    aware = kc.quantize_aware(model, calibration_data=x)
    for new in (aware, kc.strip(aware)):
        pairs = zip(new.output_names, model.output_names, strict=True)
        assert all(found in (name, "x_range") for found, name in pairs)
        outputs = (keras.tree.flatten(m(x)) for m in (new, model))
        for found, exact in zip(*outputs, strict=True):
            np.testing.assert_allclose(found, exact, atol=0.05)


def test_the_compile_state_is_carried():
    model = small_model()
    model.compile(keras.optimizers.SGD(0.125), "mse", steps_per_execution=2)
    for new in (aware := kc.quantize_aware(model), kc.strip(aware)):
        assert float(new.optimizer.learning_rate) == 0.125
        assert (new.loss, new.steps_per_execution) == ("mse", 2)
    assert not kc.quantize_aware(small_model()).compiled


def test_only_layers_that_the_predicate_takes_are_quantised():
    aware = kc.quantize_aware(
        small_model(), layers=lambda layer: not isinstance(layer, layers.Dense)
    )
    assert isinstance(aware.get_layer("conv"), QuantizeWrapper)
    rows = {row.name: row for row in aware.quantization_report.layers}
    assert (rows["scores"].treatment, rows["scores"].reason) == (
        "float",
        "left out by `layers`",
    )
    assert not any(
        isinstance(layer, QuantizeWrapper) and isinstance(layer.layer, layers.Dense)
        for layer in aware.layers
    )


def test_the_report_has_a_row_for_each_layer_and_prints_as_a_table():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    model = keras.Model(inputs, layers.LayerNormalization(name="norm")(x))
    report = kc.quantize_aware(model).quantization_report
    assert [(r.name, r.kind, r.treatment) for r in report.layers] == [
        ("conv", "Conv2D", "linear"),
        ("conv_activation", "Activation", "joined"),
        ("norm", "LayerNormalization", "float"),
    ]
    assert [row.name for row in report.float_layers] == ["norm"]
    text = str(report)
    assert "3 layers, 1 of them in float" in text
    assert "LiteRT has no int8 form of this normalization" in text


@pytest.mark.parametrize("bits", range(2, 9))
def test_kernels_are_rounded_to_the_bits_that_are_asked_for(bits):
    model = small_model()
    stripped = kc.strip(kc.quantize_aware(model, weight_bits=bits))
    for name in ("conv", "scores"):
        kernel = model.get_layer(name).get_weights()[0]
        found = stripped.get_layer(name).get_weights()[0]
        np.testing.assert_allclose(found, on_grid(kernel, bits), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("bits", [1, 9, 0, -8, True, 8.0, "8", None])
def test_other_bits_are_refused(bits):
    with pytest.raises(ValueError, match=r"`weight_bits` must be an int from 2 to 8"):
        kc.quantize_aware(small_model(), weight_bits=bits)


def test_a_predicate_that_takes_nothing_is_refused_with_the_layers():
    with pytest.raises(ValueError, match=r"(?s)At least one layer.*conv.*left out"):
        kc.quantize_aware(small_model(), layers=lambda layer: False)


def test_a_model_without_kernels_is_refused():
    model = keras.Sequential([keras.Input((4,)), layers.ReLU()], name="bare")
    with pytest.raises(ValueError, match=r"(?s)At least one layer.*'bare'"):
        kc.quantize_aware(model)


@pytest.mark.parametrize("bad", [lambda: small_model().get_layer("conv"), lambda: None])
def test_what_is_no_model_is_refused(bad):
    with pytest.raises(ValueError, match=r"must be a keras\.Model"):
        kc.quantize_aware(bad())
    with pytest.raises(ValueError, match=r"must be a keras\.Model"):
        kc.strip(bad())


def test_a_quantised_model_is_refused_even_inside_another():
    aware = kc.quantize_aware(small_model())
    outer = keras.Sequential([keras.Input((8, 8, 3)), aware, layers.Dense(2)])
    for model in (aware, outer):
        with pytest.raises(ValueError, match=r"already; train it.*kc\.strip"):
            kc.quantize_aware(model)


def test_subclassed_and_unbuilt_models_are_refused():
    class Own(keras.Model):
        def call(self, x):
            return x

    model = Own()
    model(images())
    with pytest.raises(ValueError, match=r"keras\.Model\(inputs, outputs\)"):
        kc.quantize_aware(model)
    with pytest.raises(ValueError, match=r"must be built: give it a keras\.Input"):
        kc.quantize_aware(keras.Sequential([layers.Dense(2)]))


def test_strip_refuses_a_model_that_is_not_quantised():
    with pytest.raises(ValueError, match=r"made by `kc\.quantize_aware`.*'small'"):
        kc.strip(small_model())


def test_a_stripped_model_can_be_made_quantization_aware_again():
    aware = kc.quantize_aware(small_model(), calibration_data=images())
    again = kc.quantize_aware(kc.strip(aware), calibration_data=images())
    np.testing.assert_allclose(again(images()), aware(images()), atol=1e-5)


def test_a_stripped_model_loads_where_there_is_only_keras(tmp_path):
    aware = kc.quantize_aware(small_model(activation="silu"), calibration_data=images())
    stripped = kc.strip(aware)
    assert all(type(x).__module__.startswith("keras.") for x in stripped.operations)
    stripped.save(tmp_path / "m.keras")
    np.save(tmp_path / "x.npy", images())
    code = (
        "import sys, numpy as np, keras\n"
        "model = keras.saving.load_model('m.keras')\n"
        "np.save('y.npy', model(np.load('x.npy')))\n"
        "assert 'keras_compress' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    np.testing.assert_allclose(
        np.load(tmp_path / "y.npy"), stripped(images()), atol=1e-6
    )


def test_a_stripped_model_computes_as_the_aware_one_with_its_ranges_off():
    model = small_model()
    for weight in model.weights:
        weight.assign(weight + 0.1)
    aware = kc.quantize_aware(model, calibration_data=images())
    stripped = kc.strip(aware)
    for layer in aware.layers:
        if isinstance(layer, FakeQuantize):
            layer.enabled = False
    np.testing.assert_allclose(stripped(images()), aware(images()), atol=1e-5)
    assert np.abs(stripped(images()) - model(images())).max() > 1e-4


def test_frozen_layers_stay_frozen():
    model = small_model()
    model.get_layer("conv").trainable = False
    model.get_layer("alone").trainable = False
    for new in (aware := kc.quantize_aware(model), kc.strip(aware)):
        names = {v.path.split("/")[-2] for v in new.trainable_variables}
        assert names in ({"norm", "scores"}, {"norm", "scores_raw"})
    aware.compile("sgd", "mse")
    frozen = [aware.get_layer(n).layer.get_weights() for n in ("conv", "alone")]
    aware.fit(images(), np.ones((20, 5)), verbose=0)
    for before, name in zip(frozen, ("conv", "alone"), strict=True):
        for a, b in zip(before, aware.get_layer(name).layer.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_regularisers_weigh_the_same():
    options = {"kernel_regularizer": "l2", "bias_regularizer": "l1"}
    model = small_model(**options, activity_regularizer="l2", activation="relu")
    aware = kc.quantize_aware(model, calibration_data=images())
    model(images()), aware(images())
    losses = [float(sum(m.losses)) for m in (aware, model)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_dropout_draws_what_it_would_have_drawn():
    model = keras.Sequential(
        [keras.Input((50,)), layers.Dropout(0.5), layers.Dense(50, use_bias=False)]
    )
    model.layers[1].set_weights([np.eye(50)])
    x = np.ones((4, 50), "float32")
    aware = kc.quantize_aware(model, calibration_data=2 * x)
    found, exact = aware(x, training=True), model(x, training=True)
    np.testing.assert_array_equal(found != 0, exact != 0)
