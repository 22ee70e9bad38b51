"""Every quantization, any batch, fake-quant graphs and subclassed models."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tflite_export

# How far outputs of size 1 may be from the model's, by quantization.
DISTANCE = {
    "none": 1e-5,
    "float16": 5e-3,
    "dynamic": 2e-2,
    "int8": 5e-2,
    "int16x8": 2e-2,
}


@pytest.fixture(scope="module")
def wide():
    """Weights of more than 1024 values, which dynamic range quantises."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3), name="image"),
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(16, name="scores"),
        ]
    )


def _relative(model, path, x):
    expected = np.asarray(model(x, training=False))
    found = tflite_export.predict(path, x)
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("batch_size", [1, 4, None])
@pytest.mark.parametrize("quantization", DISTANCE)
def test_the_file_gives_the_outputs_of_the_model(
    wide, x, tmp_path, quantization, batch_size
):
    path = tmp_path / "m.tflite"
    tflite_export.export(
        wide,
        path,
        quantization=quantization,
        representative_data=x,
        batch_size=batch_size,
    )
    assert _relative(wide, path, x) < DISTANCE[quantization]


def test_each_quantization_stores_the_weights_in_its_type(wide, x, tmp_path):
    dtypes, sizes = {}, {}
    for quantization in DISTANCE:
        path = tmp_path / f"{quantization}.tflite"
        result = tflite_export.export(
            wide, path, quantization=quantization, representative_data=x
        )
        sizes[quantization] = result.bytes
        weights = max(
            tflite_export.inspect(path).tensors, key=lambda row: row.constant_bytes
        )
        dtypes[quantization] = weights.dtype
    assert dtypes == {
        "none": "float32",
        "float16": "float16",
        "dynamic": "int8",
        "int8": "int8",
        "int16x8": "int8",
    }
    weights = 16 * 6 * 6 * 16
    assert sizes["none"] - sizes["float16"] == pytest.approx(2 * weights, rel=0.1)
    assert sizes["none"] - sizes["int8"] == pytest.approx(3 * weights, rel=0.1)


def test_int16x8_takes_int16_at_its_ends(wide, x, tmp_path):
    path = tmp_path / "m.tflite"
    tflite_export.export(
        wide,
        path,
        quantization="int16x8",
        representative_data=x,
        input_dtype="int16",
        output_dtype="int16",
    )
    rows = tflite_export.inspect(path).ops
    assert rows[0].input_dtypes[0] == rows[-1].output_dtypes[0] == "int16"
    assert _relative(wide, path, x) < DISTANCE["int16x8"]


def test_int8_without_data_says_what_is_needed(wide, tmp_path):
    for quantization in ("int8", "int16x8"):
        with pytest.raises(ValueError, match=r"x_train\[:300\]"):
            tflite_export.export(wide, tmp_path / "m.tflite", quantization=quantization)


def test_agreement_is_measured_on_the_data_that_was_given(wide, x, tmp_path):
    path = tmp_path / "m.tflite"
    result = tflite_export.export(wide, path, representative_data=x)
    assert result.agreement == tflite_export.compare(wide, path, x)
    assert "argmax equal" in str(result)
    alone = tflite_export.export(wide, path, quantization="none")
    assert alone.agreement is None
    assert "argmax" not in str(alone)


class FakeQuant(keras.layers.Layer):
    def __init__(self, low, high):
        super().__init__()
        self.low = self.add_weight(
            shape=(), initializer=keras.initializers.Constant(low)
        )
        self.high = self.add_weight(
            shape=(), initializer=keras.initializers.Constant(high)
        )

    def call(self, x):
        return tf.quantization.fake_quant_with_min_max_vars(x, self.low, self.high)


@pytest.fixture(scope="module")
def quantization_aware():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            FakeQuant(-4, 4),
            keras.layers.Conv2D(8, 3, activation="relu"),
            FakeQuant(0, 3),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3),
            FakeQuant(-2, 2),
        ]
    )


def test_a_fake_quant_graph_brings_its_ranges(quantization_aware, x, tmp_path):
    alone, given = tmp_path / "alone.tflite", tmp_path / "given.tflite"
    result = tflite_export.export(
        quantization_aware, alone, input_dtype="uint8", output_dtype="int8"
    )
    assert not result.float_ops
    rows = tflite_export.inspect(alone).ops
    assert rows[0].input_dtypes[0] == "uint8"
    assert tflite_export.compare(quantization_aware, alone, x).output_step == (
        pytest.approx(4 / 255, rel=1e-3)
    )
    # Data does not change the ranges, it is compared with.
    tflite_export.export(quantization_aware, alone)
    result = tflite_export.export(quantization_aware, given, representative_data=x / 9)
    assert alone.read_bytes() == given.read_bytes()
    assert result.agreement.examples == len(x)


@pytest.mark.parametrize("quantization", ["dynamic", "float16", "int16x8"])
def test_a_fake_quant_graph_becomes_int8_or_float(
    quantization_aware, x, tmp_path, quantization
):
    with pytest.raises(ValueError, match="fake-quant"):
        tflite_export.export(
            quantization_aware,
            tmp_path / "m.tflite",
            quantization=quantization,
            representative_data=x,
        )


class PerChannelDense(keras.layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 3))

    def call(self, x):
        most = tf.reduce_max(tf.abs(self.kernel), 0)
        return x @ tf.quantization.fake_quant_with_min_max_vars_per_channel(
            self.kernel, -most, most, narrow_range=True
        )


def test_a_per_channel_fake_quant_op_on_a_dense_kernel_is_explained(tmp_path):
    model = keras.Sequential([keras.Input((6,)), PerChannelDense(), FakeQuant(-3, 3)])
    with pytest.raises(ValueError, match="Round the kernel with plain ops"):
        tflite_export.export(model, tmp_path / "m.tflite")


class Subclassed(keras.Model):
    """x -> Dense(x), or of a dict or list the sum of two, or of two arguments."""

    def __init__(self):
        super().__init__(name="mine")
        self.dense = keras.layers.Dense(3)

    def call(self, x, other=None):
        if isinstance(x, dict):
            x = self.dense(x["a"]) + 2 * self.dense(x["b"])
        elif isinstance(x, (list, tuple)):
            x = self.dense(x[0]) + 2 * self.dense(x[1])
        elif other is not None:
            x = self.dense(x) + self.dense(other)
        else:
            x = self.dense(x)
        return {"scores": x}


@pytest.mark.parametrize("kind", ["array", "dict", "list"])
def test_a_built_subclassed_model_exports(kind, tmp_path):
    random = np.random.default_rng(0)
    first, second = random.normal(size=(2, 20, 4)).astype("float32")
    data = {"array": first, "dict": {"a": first, "b": second}, "list": [first, second]}
    x = data[kind]
    model = Subclassed()
    expected = np.asarray(model(x)["scores"])
    path = tmp_path / "m.tflite"
    result = tflite_export.export(model, path, representative_data=x)
    assert not result.float_ops
    found = tflite_export.predict(path, x)
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_a_subclassed_model_with_two_arguments_is_refused_with_the_remedy(tmp_path):
    model = Subclassed()
    model(np.ones((2, 4)), np.ones((2, 4)))
    exported = tflite_export.export(model, tmp_path / "one.tflite", quantization="none")
    assert exported.ops == {"FULLY_CONNECTED": 1}

    class TwoArguments(keras.Model):
        def call(self, first, second):
            return first + second

    model = TwoArguments()
    model(np.ones((2, 4)), np.ones((2, 4)))
    with pytest.raises(ValueError, match=r"wrap it: `x = keras\.Input"):
        tflite_export.export(model, tmp_path / "m.tflite", quantization="none")
