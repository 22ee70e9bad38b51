import keras
import numpy as np
import pytest

import tflite_export
from tflite_export.compare import output_step
from tflite_export.predict import dequantise, quantise


def test_the_last_batch_is_padded_and_cut(model, x, tmp_path):
    path = tmp_path / "m.tflite"
    tflite_export.export(model, path, quantization="none", batch_size=8)
    for count in (1, 8, 11):
        expected = np.asarray(model(x[:count], training=False))
        found = tflite_export.predict(path, x[:count])
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_quantise_rounds_and_clips_by_hand():
    detail = {"quantization": (0.5, -3), "dtype": np.int8}
    values = np.array([0.0, 1.1, -1.1, 1000.0, -1000.0], "float32")
    assert quantise(values, detail).tolist() == [-3, -1, -5, 127, -128]
    codes = np.array([-3, -1, 127], "int8")
    assert dequantise(codes, detail).tolist() == [0.0, 1.0, 65.0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.ones((4, 8, 8)), r"shape \(examples, 8, 8, 3\)"),
        (np.ones((8, 8, 3)), r"shape \(examples, 8, 8, 3\)"),
        (np.ones((0, 8, 8, 3)), "at least one"),
        (np.full((1, 8, 8, 3), "a"), "real numbers"),
        ({"picture": np.ones((1, 8, 8, 3))}, r"\['image'\]"),
    ],
)
def test_data_that_does_not_fit_is_named(int8_file, data, message):
    with pytest.raises(ValueError, match=message):
        tflite_export.predict(int8_file, data)


def test_a_quantised_input_refuses_nan(model, x, tmp_path):
    path = tmp_path / "m.tflite"
    tflite_export.export(model, path, representative_data=x, input_dtype="int8")
    with pytest.raises(ValueError, match="must be finite"):
        tflite_export.predict(path, np.full((1, 8, 8, 3), np.nan))


@pytest.mark.parametrize("count", [1, 31, 32, 33, 50])
def test_an_open_batch_takes_any_number_of_examples(model, x, count, tmp_path):
    path = tmp_path / "m.tflite"
    tflite_export.export(model, path, quantization="none", batch_size=None)
    found = tflite_export.predict(path, x[:count])
    expected = np.asarray(model(x[:count], training=False))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_int16_inputs_and_outputs_are_given_in_real_numbers(model, x, tmp_path):
    path = tmp_path / "m.tflite"
    tflite_export.export(
        model,
        path,
        quantization="int16x8",
        representative_data=x,
        input_dtype="int16",
        output_dtype="int16",
    )
    found = tflite_export.predict(path, x)
    assert found.dtype == np.float32
    # What is left is the rounding of the int8 weights.
    np.testing.assert_allclose(found, model(x, training=False), atol=0.02)


@pytest.mark.parametrize("kernels", ["builtin", "reference"])
def test_every_set_of_kernels_computes_the_file(int8_file, x, kernels):
    step = output_step(int8_file)
    expected = tflite_export.predict(int8_file, x)
    found = tflite_export.predict(int8_file, x, kernels=kernels)
    assert np.abs(found - expected).max() <= step * 1.001


def test_unknown_kernels_are_named(int8_file, x):
    with pytest.raises(ValueError, match="must be one of 'xnnpack', 'builtin'"):
        tflite_export.predict(int8_file, x, kernels="gpu")


def test_values_that_the_file_cannot_compute_with_are_named(tmp_path):
    index = keras.Input((), dtype="int32", name="index")
    model = keras.Model(index, keras.layers.Embedding(4, 3)(index))
    path = tmp_path / "m.tflite"
    tflite_export.export(model, path, quantization="none")
    assert tflite_export.predict(path, np.array([3])).shape == (1, 3)
    with pytest.raises(ValueError, match="must hold values that the file can compute"):
        tflite_export.predict(path, np.array([4]))
