import keras
import numpy as np
import pytest

import tflite_export
from tflite_export.keras_call import layers_within


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantization": "int4"}, "'none', 'float16', 'dynamic', 'int8', 'int16x8'"),
        ({"quantization": None}, "'none', 'float16'"),
        ({"input_dtype": "int4"}, "`input_dtype` must be one of"),
        ({"input_dtype": "int16"}, "'float32', 'int8', 'uint8' when"),
        ({"quantization": "int16x8", "input_dtype": "int8"}, "'float32', 'int16' when"),
        ({"quantization": "dynamic", "input_dtype": "int8"}, "`input_dtype` must be"),
        ({"quantization": "none", "output_dtype": "int8"}, "`output_dtype` must be"),
        ({"batch_size": 0}, "`batch_size` must be a positive int"),
        ({"batch_size": True}, "`batch_size` must be a positive int"),
        ({"batch_size": 2.0}, "`batch_size` must be a positive int"),
    ],
)
def test_a_wrong_option_is_named(model, x, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        tflite_export.export(
            model, tmp_path / "m.tflite", representative_data=x, **options
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["m.lite", None, 3])
def test_a_path_that_is_no_tflite_name_is_refused(model, x, path):
    with pytest.raises(ValueError, match=r"ends in \.tflite"):
        tflite_export.export(model, path, representative_data=x)


def test_a_missing_folder_and_a_folder_as_file_are_refused(model, x, tmp_path):
    with pytest.raises(FileNotFoundError, match="create it first"):
        tflite_export.export(model, tmp_path / "no" / "m.tflite", representative_data=x)
    (tmp_path / "m.tflite").mkdir()
    with pytest.raises(IsADirectoryError, match="not a folder"):
        tflite_export.export(model, tmp_path / "m.tflite", representative_data=x)


def test_only_a_built_model_with_fixed_inputs_is_taken(tmp_path):
    path = tmp_path / "m.tflite"
    unbuilt = keras.Sequential([keras.layers.Dense(2)])
    loose = keras.Sequential([keras.Input((None, 3)), keras.layers.Dense(2)])
    fixed = keras.Sequential([keras.Input(batch_shape=(4, 3)), keras.layers.Dense(2)])
    named = keras.Sequential([keras.Input((3,), name="a b"), keras.layers.Dense(2)])
    for model, message in (
        ("m.keras", "must be a keras.Model. Received: model=str"),
        (unbuilt, "must be built"),
        (loose, "must be fixed"),
        (fixed, r"must equal `batch_size` \(1\)"),
        (named, "'a b'"),
    ):
        with pytest.raises(ValueError, match=message):
            tflite_export.export(model, path, quantization="none")


def test_integer_inputs_cannot_be_quantised(tmp_path):
    model = keras.Sequential(
        [keras.Input((3,), dtype="int32"), keras.layers.Embedding(10, 2)]
    )
    data = np.ones((4, 3), "int32")
    with pytest.raises(ValueError, match="`input_dtype` must be"):
        tflite_export.export(
            model, tmp_path / "m.tflite", representative_data=data, input_dtype="int8"
        )


def test_layers_within_finds_each_nested_layer_once():
    dense = keras.layers.Dense(2, name="shared")
    inner = keras.Sequential([keras.Input((2,)), dense], name="inner")
    wrapped = keras.layers.TimeDistributed(dense, name="wrapped")
    steps = keras.layers.Reshape((1, 2))(inner(inner.inputs[0]))
    model = keras.Model(inner.inputs, wrapped(steps))
    names = [layer.name for layer in layers_within(model)]
    assert names.count("shared") == names.count("wrapped") == names.count("inner") == 1
