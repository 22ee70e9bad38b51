import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import tflite_export
from tflite_export.conversion import working_file


def _folder(path):
    return sorted(entry.name for entry in path.iterdir())


def test_a_float_file_gives_the_outputs_of_the_model(model, float_file, x):
    expected = np.asarray(model(x, training=False))
    np.testing.assert_allclose(
        tflite_export.predict(float_file, x), expected, atol=1e-5
    )


def test_an_int8_file_is_all_int8_and_reports_its_ops(model, x, tmp_path):
    path = tmp_path / "m.tflite"
    result = tflite_export.export(model, path, representative_data=x)
    assert result.ops["CONV_2D"] == 1
    assert result.ops["FULLY_CONNECTED"] == 1
    assert not result.float_ops
    assert result.bytes == path.stat().st_size
    assert 0 < result.gzip_bytes < result.bytes
    assert "CONV_2D" in str(result)
    assert _folder(tmp_path) == ["m.tflite"]


def test_an_int8_file_is_within_three_steps_of_the_model(model, int8_file, x):
    from tflite_export.compare import output_step

    expected = np.asarray(model(x, training=False))
    difference = np.abs(tflite_export.predict(int8_file, x) - expected)
    # The 255 steps span the calibrated outputs.
    step = (expected.max() - min(expected.min(), 0)) / 255
    assert output_step(int8_file) == pytest.approx(step, rel=0.05)
    assert difference.max() < 3 * step


def test_repeated_exports_are_byte_identical(model, int8_file, x, tmp_path):
    path = tmp_path / "again.tflite"
    tflite_export.export(model, path, representative_data=x)
    assert path.read_bytes() == int8_file.read_bytes()


def test_export_leaves_the_model_and_the_streams_alone(model, x, tmp_path, capfd):
    attributes, weights = set(vars(model)), model.get_weights()
    tflite_export.export(model, tmp_path / "m.tflite", representative_data=x)
    assert set(vars(model)) == attributes
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    print("heard", file=sys.stderr)
    assert capfd.readouterr().err == "heard\n"


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_quantised_inputs_and_outputs_carry_the_same_numbers(
    model, int8_file, x, tmp_path, dtype
):
    path = tmp_path / "m.tflite"
    tflite_export.export(
        model, path, representative_data=x, input_dtype=dtype, output_dtype=dtype
    )
    rows = tflite_export.inspect(path).ops
    assert rows[0].input_dtypes[0] == dtype
    assert rows[-1].output_dtypes == (dtype,)
    np.testing.assert_allclose(
        tflite_export.predict(path, x),
        tflite_export.predict(int8_file, x),
        rtol=1e-5,
        atol=1e-6,
    )


def test_a_layer_normalization_is_refused_by_name_unless_float_is_allowed(x, tmp_path):
    image = keras.Input((8, 8, 3))
    hidden = keras.layers.Conv2D(4, 3)(image)
    outputs = keras.layers.LayerNormalization(name="my_norm")(hidden)
    model = keras.Model(image, outputs)
    path = tmp_path / "m.tflite"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match=r"NEG \(my_norm\)"):
        tflite_export.export(model, path, representative_data=x)
    assert path.read_bytes() == b"old"
    assert _folder(tmp_path) == ["m.tflite"]
    result = tflite_export.export(
        model, path, representative_data=x, allow_float_ops=True
    )
    assert result.float_ops["NEG"] == 1


def _recurrent(kind, **options):
    if kind == "bidirectional":
        return keras.layers.Bidirectional(keras.layers.LSTM(2, **options))
    if kind == "cell":
        return keras.layers.RNN(keras.layers.GRUCell(2), **options)
    if kind == "nested":
        return keras.Sequential([keras.layers.SimpleRNN(2, **options)])
    return keras.layers.GRU(2, **options)


@pytest.mark.parametrize("kind", ["plain", "bidirectional", "cell", "nested"])
def test_a_rolled_recurrent_layer_is_refused_with_the_remedy(kind, tmp_path):
    model = keras.Sequential([keras.Input((5, 3)), _recurrent(kind)])
    data = np.ones((4, 5, 3))
    with pytest.raises(ValueError, match="unroll=True"):
        tflite_export.export(model, tmp_path / "m.tflite", representative_data=data)


def test_an_unrolled_recurrent_layer_converts_to_int8(tmp_path):
    layer = _recurrent("bidirectional", unroll=True)
    model = keras.Sequential([keras.Input((3, 3)), layer])
    data = np.random.default_rng(0).normal(size=(20, 3, 3))
    path = tmp_path / "m.tflite"
    result = tflite_export.export(model, path, representative_data=data)
    assert not result.float_ops
    assert tflite_export.compare(model, path, data).max_abs_diff < 0.1


@pytest.mark.slow
def test_the_int8_pass_gives_the_same_bytes_for_graphs_it_is_unsteady_on(tmp_path):
    """Without a choice among several passes, every second file or so is another."""
    layer = _recurrent("bidirectional", unroll=True)
    model = keras.Sequential([keras.Input((3, 3)), layer])
    data = np.random.default_rng(0).normal(size=(20, 3, 3))
    path, contents = tmp_path / "m.tflite", set()
    for _ in range(6):
        tflite_export.export(model, path, representative_data=data)
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_an_op_that_litert_lacks_is_named(tmp_path):
    image = keras.Input((4,))
    model = keras.Model(image, keras.ops.erfinv(image))
    with pytest.raises(ValueError, match="Erfinv"):
        tflite_export.export(model, tmp_path / "m.tflite", quantization="none")
    assert _folder(tmp_path) == []


def test_several_inputs_keep_their_names_and_data(two_inputs, tmp_path):
    random = np.random.default_rng(0)
    data = [random.normal(size=(30, 4)), 100 * random.normal(size=(30, 4))]
    by_list, by_dict = tmp_path / "list.tflite", tmp_path / "dict.tflite"
    tflite_export.export(two_inputs, by_list, representative_data=data)
    named = {"alpha": data[1], "zeta": data[0]}
    tflite_export.export(two_inputs, by_dict, representative_data=named)
    assert by_list.read_bytes() == by_dict.read_bytes()
    agreement = tflite_export.compare(two_inputs, by_list, data)
    assert agreement.max_abs_diff < 4 * agreement.output_step
    np.testing.assert_array_equal(
        tflite_export.predict(by_list, data), tflite_export.predict(by_list, named)
    )


def test_several_outputs_come_by_name(tmp_path):
    inputs = keras.Input((4,))
    outputs = [keras.layers.Dense(2, name="zz"), keras.layers.Dense(2, name="aa")]
    model = keras.Model(inputs, [layer(inputs) for layer in outputs])
    data = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    path = tmp_path / "m.tflite"
    tflite_export.export(model, path, quantization="none")
    found = tflite_export.predict(path, data)
    assert set(found) == {"zz", "aa"}
    for layer in outputs:
        expected = data @ np.asarray(layer.kernel)
        np.testing.assert_allclose(found[layer.name], expected, atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_half_precision_model_exports_in_float32(policy, x, tmp_path):
    inner = keras.Sequential(
        [keras.layers.Conv2D(4, 3, dtype=policy), keras.layers.ReLU(dtype=policy)]
    )
    layers = [keras.layers.Flatten(dtype=policy), keras.layers.Dense(3, dtype=policy)]
    model = keras.Sequential([keras.Input((8, 8, 3)), inner, *layers])
    model.compile("sgd", "mse")
    path = tmp_path / "m.tflite"
    result = tflite_export.export(model, path, representative_data=x)
    assert not result.float_ops
    assert model.layers[-1].compute_dtype == policy.removeprefix("mixed_")
    kernel, bias = (np.asarray(w) for w in inner.layers[0].weights)
    patches = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    hidden = np.maximum(np.einsum("nijchw,hwco->nijo", patches, kernel) + bias, 0)
    expected = hidden.reshape(len(x), -1) @ np.asarray(model.layers[-1].kernel)
    found = tflite_export.predict(path, x)
    assert np.abs(found - expected).max() < 0.03 * np.abs(expected).max()


def test_datasets_give_the_file_that_the_array_gives(model, int8_file, x, tmp_path):
    path = tmp_path / "m.tflite"
    dataset = tf.data.Dataset.from_tensor_slices((x, np.zeros(len(x)))).batch(16)
    tflite_export.export(model, path, representative_data=dataset)
    assert path.read_bytes() == int8_file.read_bytes()


def test_a_failed_load_check_keeps_the_old_file(model, x, tmp_path, monkeypatch):
    path = tmp_path / "m.tflite"
    path.write_bytes(b"old")
    monkeypatch.setattr(working_file, "load_failure", lambda path: "died with signal 6")
    with pytest.raises(ValueError, match="died with signal 6"):
        tflite_export.export(model, path, representative_data=x)
    assert path.read_bytes() == b"old"
    assert _folder(tmp_path) == ["m.tflite"]


def test_a_file_that_is_replaced_works_after_the_old_one_was_used(model, x, tmp_path):
    path = tmp_path / "m.tflite"
    for batch_size in (1, 4):
        tflite_export.export(model, path, quantization="none", batch_size=batch_size)
        assert tflite_export.predict(path, x[:6]).shape == (6, 5)
        assert tflite_export.inspect(path).ops[0].output_shape[0] == batch_size


def test_importing_the_package_does_not_import_tensorflow():
    code = "import sys, tflite_export; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
