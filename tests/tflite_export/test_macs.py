import math

import keras
import pytest
from ai_edge_litert import schema_py_generated as schema

import tflite_export
from tflite_export.macs import op_macs


def _tensor(*shape):
    tensor = schema.TensorT()
    tensor.shape = list(shape)
    return tensor


def _lstm_inputs(batch, steps, features, units, gates):
    used = {1, 2, 3, 4} if gates == 4 else {2, 3, 4}
    return [
        _tensor(batch, steps, features),
        *(_tensor(units, features) if i in used else None for i in range(1, 5)),
        *(_tensor(units, units) if i - 4 in used else None for i in range(5, 9)),
    ]


@pytest.mark.parametrize("gates", [4, 3])
def test_an_lstm_counts_every_gate_at_every_step(gates):
    inputs = _lstm_inputs(batch=2, steps=7, features=5, units=3, gates=gates)
    count = op_macs("UNIDIRECTIONAL_SEQUENCE_LSTM", None, inputs, [])
    assert count == 2 * 7 * gates * (5 * 3 + 3 * 3)


def test_an_lstm_counts_its_projection():
    inputs = _lstm_inputs(batch=1, steps=7, features=5, units=3, gates=4)
    inputs += [None] * 7 + [_tensor(2, 3)]
    count = op_macs("UNIDIRECTIONAL_SEQUENCE_LSTM", None, inputs, [])
    assert count == 7 * (4 * (5 * 3 + 3 * 3) + 2 * 3)


def test_a_simple_recurrent_op_counts_input_and_state_at_every_step():
    inputs = [_tensor(2, 7, 5), _tensor(3, 5), _tensor(3, 3), _tensor(3)]
    count = op_macs("UNIDIRECTIONAL_SEQUENCE_RNN", None, inputs, [])
    assert count == 2 * 7 * (3 * 5 + 3 * 3)


def test_an_op_without_a_product_counts_nothing():
    assert op_macs("ADD", None, [_tensor(1, 4), _tensor(1, 4)], [_tensor(1, 4)]) == 0


def _keras_macs(model):
    """Kernel size times output positions of every layer of a Keras model."""
    total = 0
    for layer in model.layers:
        kernels = []
        if isinstance(layer, keras.Model):
            total += _keras_macs(layer)
        elif isinstance(layer, keras.layers.SeparableConv2D):
            kernels = [layer.depthwise_kernel, layer.pointwise_kernel]
        elif hasattr(layer, "kernel"):
            # (h, w, in / groups, out), (h, w, in, multiplier) or (in, out).
            kernels = [layer.kernel]
        positions = math.prod(layer.output.shape[1:-1]) if kernels else 0
        total += positions * sum(math.prod(kernel.shape) for kernel in kernels)
    return total


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "size"),
    [
        ("MobileNet", 96),
        ("MobileNetV3Small", 96),
        ("EfficientNetB0", 96),
        ("ResNet50", 96),
        ("DenseNet121", 96),
        ("VGG16", 96),
        ("Xception", 96),
        ("NASNetMobile", 96),
        ("ConvNeXtTiny", 96),
    ],
)
def test_macs_of_a_family_agree_with_the_keras_model(family, size, tmp_path):
    create = getattr(keras.applications, family)
    options = {"weights": None, "input_shape": (size, size, 3)}
    model = create(**options, include_top=family != "VGG16")
    path = tmp_path / "m.tflite"
    tflite_export.export(model, path, quantization="none")
    assert tflite_export.inspect(path).macs == _keras_macs(model)


@pytest.mark.slow
def test_mobilenet_v2_has_300_8_million_macs(tmp_path):
    model = keras.applications.MobileNetV2(weights=None)
    path = tmp_path / "m.tflite"
    tflite_export.export(model, path, quantization="none")
    assert math.isclose(tflite_export.inspect(path).macs / 1e6, 300.8, abs_tol=0.05)
