import numpy as np
import pytest

import tflite_export
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
