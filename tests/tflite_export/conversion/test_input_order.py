import keras
import numpy as np
import pytest

import tflite_export
from tflite_export.conversion.input_order import in_model_order
from tflite_export.flatbuffer import read_model

NAMES = ("delta", "alpha", "charlie", "bravo")


@pytest.fixture(scope="module")
def model():
    """The sum of each input times its place."""
    inputs = [keras.Input((size + 1,), name=n) for size, n in enumerate(NAMES)]
    sums = [(i + 1) * keras.ops.sum(tensor, axis=-1) for i, tensor in enumerate(inputs)]
    return keras.Model(inputs, sums[0] + sums[1] + sums[2] + sums[3])


def _order(path):
    parsed = read_model(path)
    signature = parsed.signatureDefs[0]
    names = {entry.tensorIndex: entry.name.decode() for entry in signature.inputs}
    return tuple(names[index] for index in parsed.subgraphs[0].inputs)


@pytest.mark.parametrize("quantization", ["none", "dynamic", "int8"])
def test_the_inputs_of_a_file_have_the_order_of_the_model(
    model, tmp_path, quantization
):
    random = np.random.default_rng(0)
    data = [random.normal(size=(20, i + 1)) for i in range(len(NAMES))]
    path = tmp_path / "m.tflite"
    tflite_export.export(
        model, path, quantization=quantization, representative_data=data
    )
    assert _order(path) == NAMES
    expected = sum((i + 1) * array.sum(-1) for i, array in enumerate(data))
    found = tflite_export.predict(path, data)
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_any_order_can_be_asked_for(model, tmp_path):
    path = tmp_path / "m.tflite"
    tflite_export.export(model, path, quantization="none")
    content = path.read_bytes()
    path.write_bytes(in_model_order(content, NAMES[::-1]))
    assert _order(path) == NAMES[::-1]
    assert in_model_order(path.read_bytes(), NAMES) == content
