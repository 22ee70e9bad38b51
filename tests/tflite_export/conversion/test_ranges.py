"""Activations that are zero on all representative data, and what is done about them."""

import keras
import numpy as np
import pytest
from keras import layers

import tflite_export
from tflite_export.conversion import quantizer, ranges
from tflite_export.flatbuffer import parse

DEAD = keras.initializers.Constant(-100)


def _conv(units=4, **options):
    options = {"bias_initializer": "normal"} | options
    return layers.Conv2D(units, 3, padding="same", **options)


def _killed(activation="relu"):
    return _conv(activation=activation, bias_initializer=DEAD, name="killed")


def _chain(*stack):
    def build(image):
        for layer in stack:
            image = layer(image)
        return image

    return build


def _join(join, after=None):
    def build(image):
        dead = _killed()(image)
        return _conv()(join([_conv()(image), after(dead) if after else dead]))

    return build


def _squeeze_and_excite(image):
    scale = layers.GlobalAveragePooling2D(keepdims=True)(_killed()(image))
    scale = layers.Dense(4, activation="sigmoid")(scale)
    return _conv()(layers.Multiply()([_conv()(image), scale]))


def _nets():
    return {
        "conv": _chain(_killed(), _conv()),
        "last": _chain(_conv(), _killed()),
        "relu": _chain(_killed(None), layers.ReLU(name="killed_relu"), _conv()),
        "batch_norm": _chain(
            _conv(name="killed"),
            layers.BatchNormalization(beta_initializer=DEAD),
            layers.ReLU(name="killed_relu"),
            _conv(activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
        ),
        "depthwise": _chain(_killed(), layers.DepthwiseConv2D(3), _conv()),
        "dense": _chain(
            _killed(), layers.Flatten(), layers.Dense(5, bias_initializer="normal")
        ),
        "pool": _chain(_killed(), layers.MaxPooling2D(), _conv()),
        "transposed": _chain(_killed(), layers.Conv2DTranspose(3, 3, strides=2)),
        "relu6": _chain(
            _killed("relu6"), _conv(activation="relu6"), _conv(activation="relu6")
        ),
        "softmax": _chain(
            _killed(), layers.Flatten(), layers.Dense(3, activation="softmax")
        ),
        "add": _join(layers.Add()),
        "add_after_conv": _join(layers.Add(), _conv()),
        "multiply": _join(layers.Multiply()),
        "squeeze_and_excite": _squeeze_and_excite,
    }


@pytest.mark.parametrize("name", _nets())
def test_a_dead_activation_is_found_and_the_file_works(name, x, tmp_path):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, _nets()[name](image))
    with pytest.warns(UserWarning, match="killed"):
        result = tflite_export.export(
            model, tmp_path / "m.tflite", representative_data=x
        )
    assert result.dead_layers == (
        ("killed_relu",) if name in ("relu", "batch_norm") else ("killed",)
    )
    assert "killed" in str(result)
    assert not result.float_ops
    assert result.agreement.max_abs_diff < 4 * result.agreement.output_step


def test_without_wider_ranges_the_kernels_refuse_such_a_file(x, tmp_path, monkeypatch):
    model = keras.Sequential([keras.Input((8, 8, 3)), _killed(), _conv()])
    monkeypatch.setattr(quantizer, "with_floors", lambda calibrated: bytes(calibrated))
    path = tmp_path / "m.tflite"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match=r"zero on all.*killed"):
        tflite_export.export(model, path, representative_data=x)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.tflite"]


@pytest.mark.parametrize("kernels", ["xnnpack", "builtin", "reference"])
def test_a_dead_softmax_input_works_with_every_kernel(kernels, x, tmp_path):
    stack = [layers.Flatten(), layers.Dense(3, use_bias=False, activation="softmax")]
    model = keras.Sequential([keras.Input((8, 8, 3)), _killed(), *stack])
    path = tmp_path / "m.tflite"
    with pytest.warns(UserWarning, match="killed"):
        tflite_export.export(model, path, representative_data=x)
    found = tflite_export.predict(path, x, kernels=kernels)
    np.testing.assert_allclose(found, 1 / 3, atol=1 / 256)


def test_an_activation_that_wakes_up_later_is_clipped_and_finite(x, tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 3)), _killed(), _conv()])
    path = tmp_path / "m.tflite"
    with pytest.warns(UserWarning, match="killed"):
        tflite_export.export(model, path, representative_data=x)
    assert np.asarray(model.layers[0](1000 * x)).max() > 0
    assert np.isfinite(tflite_export.predict(path, 1000 * x)).all()


def test_all_zero_data_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match=r"'image' must not be all zero"):
        tflite_export.export(
            model, tmp_path / "m.tflite", representative_data=np.zeros((9, 8, 8, 3))
        )


def test_the_floor_is_one_input_step_times_the_largest_weight(float_file):
    """A convolution of inputs in [-1, 4] with weights up to w: at least 5 w / 255."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    parsed = parse(float_file.read_bytes(), float_file)
    graph = parsed.subgraphs[0]
    operator = graph.operators[0]
    source, weights, result = (
        graph.tensors[i]
        for i in (operator.inputs[0], operator.inputs[1], operator.outputs[0])
    )
    for tensor, low, high in ((source, -1, 4), (result, 0, 1e-9)):
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.min = np.array([low], np.float32)
        tensor.quantization.max = np.array([high], np.float32)
    largest = np.abs(
        np.frombuffer(bytes(parsed.buffers[weights.buffer].data), "<f4")
    ).max()
    content = bytes(flatbuffer_utils.convert_object_to_bytearray(parsed))
    widened = parse(ranges.with_floors(content), "widened").subgraphs[0]
    found = widened.tensors[operator.outputs[0]].quantization
    floor = 5 * largest / 255
    np.testing.assert_allclose([found.min[0], found.max[0]], [-floor, floor], 1e-5)
    kept = widened.tensors[operator.inputs[0]].quantization
    assert (kept.min[0], kept.max[0]) == (-1, 4)
