import keras
import numpy as np
import pytest

import tflite_export
from tflite_export.agreement import Grid, agreement_of
from tflite_export.compare import output_grids


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
    (grid,) = output_grids(int8_file).values()
    low, high = -128 - grid.zero_point, 127 - grid.zero_point
    rounded = np.clip(np.round(expected / step), low, high) * step
    assert agreement.equal == pytest.approx(np.isclose(rounded, found).mean())
    assert 0.3 < agreement.equal < 1
    assert "output step" in str(agreement)


@pytest.mark.parametrize("kernels", ["builtin", "reference"])
def test_the_kernels_are_those_asked_for(kernels, model, int8_file, x):
    found = tflite_export.compare(model, int8_file, x, kernels=kernels)
    outputs = tflite_export.predict(int8_file, x, kernels=kernels)
    expected = np.abs(outputs - model.predict(x, verbose=0)).max()
    assert found.max_abs_diff == pytest.approx(expected, rel=1e-4)
    with pytest.raises(ValueError, match="kernels='xla'"):
        tflite_export.compare(model, int8_file, x, kernels="xla")


def test_a_float_file_has_no_step(model, float_file, x):
    agreement = tflite_export.compare(model, float_file, x)
    assert agreement.argmax == 1
    assert agreement.output_step is None
    assert agreement.within_one_step is None
    assert agreement.equal is None
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


def test_shares_are_those_worked_out_by_hand():
    grid = Grid(scale=0.5, zero_point=-3, dtype="int8")
    expected = np.array([[0.1, 0.3], [1.0, 500.0], [0.26, -0.9], [2.0, 3.0]])
    found = np.array([[0.0, 0.0], [1.5, 65.0], [0.5, -0.5], [2.0, 3.0]])
    agreement = agreement_of(expected, found, grid)
    # 0.3 rounds to 0.5 and -0.9 to -1; 500 is clipped to (127 + 3) / 2 = 65.
    assert agreement.equal == 5 / 8
    assert agreement.within_half_step == 4 / 8
    assert agreement.within_one_step == 7 / 8
    # [0, 0] has its largest entry first.
    assert agreement.argmax == 3 / 4
    assert agreement.max_abs_diff == 435
    assert agreement.mean_abs_diff == pytest.approx(436.54 / 8)


def test_one_number_for_each_example_has_no_argmax(x, tmp_path):
    layers = [keras.layers.Flatten(), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
    path = tmp_path / "m.tflite"
    tflite_export.export(model, path, quantization="none")
    agreement = tflite_export.compare(model, path, x)
    assert agreement.argmax is None
    assert "argmax" not in str(agreement)


def _heads(structure):
    data = keras.Input((8, 8, 3), name="image")
    flat = keras.layers.Flatten()(data)
    first = keras.layers.Dense(5, activation="softmax", name="zeta")(flat)
    second = keras.layers.Dense(2, name="alpha")(flat)
    return keras.Model(data, structure(first, second))


@pytest.mark.parametrize(
    ("structure", "names"),
    [
        (lambda a, b: [a, b], {"zeta", "alpha"}),
        (lambda a, b: [a, [b]], {"zeta", "alpha"}),
        (lambda a, b: {"b": a, "a": b}, {"a", "b"}),
        (lambda a, b: [a, a], {"output_0", "output_1"}),
    ],
)
def test_outputs_in_any_structure_are_compared_by_name(structure, names, x, tmp_path):
    model = _heads(structure)
    path = tmp_path / "m.tflite"
    tflite_export.export(model, path, quantization="none")
    agreements = tflite_export.compare(model, path, x)
    assert set(agreements.outputs) == names
    # The heads differ by far more than this, so a mix-up would show.
    assert agreements.max_abs_diff < 1e-5
    assert agreements.equal is None


def test_the_agreement_of_several_outputs_is_that_of_the_worst(x, tmp_path):
    model = _heads(lambda a, b: [a, b])
    path = tmp_path / "m.tflite"
    tflite_export.export(model, path, representative_data=x, output_dtype="uint8")
    agreements = tflite_export.compare(model, path, x)
    found = tflite_export.predict(path, x)
    expected = dict(zip(("zeta", "alpha"), model(x, training=False), strict=True))
    worst = max(np.abs(found[name] - expected[name]).max() for name in found)
    assert agreements.max_abs_diff == pytest.approx(worst, rel=1e-4)
    for share in ("argmax", "equal", "within_half_step", "within_one_step"):
        each = [getattr(item, share) for item in agreements.outputs.values()]
        assert getattr(agreements, share) == min(each)
    zeta, alpha = (agreements.outputs[name] for name in ("zeta", "alpha"))
    assert zeta.output_step == 1 / 256
    assert alpha.output_step > zeta.output_step
    text = str(agreements)
    assert "zeta" in text and "over 50 examples" in text
    assert max(map(len, text.splitlines())) <= 120


def test_int16_outputs_have_a_step(model, x, tmp_path):
    path = tmp_path / "m.tflite"
    options = {"quantization": "int16x8", "output_dtype": "int16"}
    tflite_export.export(model, path, representative_data=x, **options)
    agreement = tflite_export.compare(model, path, x)
    largest = np.abs(np.asarray(model(x, training=False))).max()
    assert agreement.output_step == pytest.approx(largest / 32767, rel=0.02)
    assert agreement.max_abs_diff < 0.02


def test_a_file_with_other_outputs_is_refused(float_file, x):
    model = _heads(lambda a, b: [a, b])
    with pytest.raises(ValueError, match="with the model's outputs"):
        tflite_export.compare(model, float_file, x)
