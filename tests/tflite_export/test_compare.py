import keras
import numpy as np
import pytest

import tflite_export


def test_agreement_is_that_of_the_outputs_worked_out_by_hand(model, int8_file, x):
    found = tflite_export.predict(int8_file, x)
    expected = np.asarray(model(x, training=False))
    agreement = tflite_export.compare(model, int8_file, x)
    difference = np.abs(found.astype("float64") - expected)
    step = agreement.output_step
    # De-quantised outputs are whole multiples of the step.
    np.testing.assert_allclose(found / step, np.round(found / step), atol=1e-3)
    same = found.argmax(1) == expected.argmax(1)
    assert agreement.argmax == pytest.approx(same.mean())
    assert agreement.max_abs_diff == pytest.approx(difference.max(), rel=1e-4)
    assert agreement.mean_abs_diff == pytest.approx(difference.mean(), rel=1e-4)
    inside = (difference <= step).mean()
    assert agreement.within_one_step == pytest.approx(inside, abs=0.01)
    assert agreement.within_half_step < agreement.within_one_step
    assert agreement.examples == len(x)
    assert "output step" in str(agreement)


def test_a_float_file_has_no_step(model, float_file, x):
    agreement = tflite_export.compare(model, float_file, x)
    assert agreement.argmax == 1
    assert agreement.output_step is None
    assert agreement.within_one_step is None
    assert "float output" in str(agreement)


def test_a_softmax_output_has_a_step_of_one_256th(tmp_path, x):
    layers = [keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")]
    model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
    path = tmp_path / "m.tflite"
    tflite_export.export(model, path, representative_data=x, output_dtype="uint8")
    assert tflite_export.compare(model, path, x).output_step == 1 / 256


def test_another_model_is_refused(float_file, x):
    layers = [keras.layers.Flatten(), keras.layers.Dense(3)]
    other = keras.Sequential([keras.Input((8, 8, 3)), *layers])
    with pytest.raises(ValueError, match="must be an export of `model`"):
        tflite_export.compare(other, float_file, x)
