"""A slice of a tanh beside a wider tensor, which TensorFlow's int8 pass refuses."""

import keras
import numpy as np
import pytest
from keras import layers

import tflite_export
from tflite_export.conversion import quantizer


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(0, 3, (16, 8, 8, 3)).astype("float32")


@pytest.fixture
def model():
    image = keras.Input((8, 8, 3))
    tanh = layers.Conv2D(6, 1, activation="tanh")(image)
    swapped = [tanh[..., 3:], layers.ReLU()(tanh[..., :3])]
    wide = layers.Conv2D(6, 3, padding="same")(layers.Concatenate()(swapped))
    return keras.Model(image, layers.Concatenate()([wide, tanh]))


def test_it_becomes_a_whole_int8_file_that_agrees(model, x, tmp_path):
    path = tmp_path / "m.tflite"
    result = tflite_export.export(model, path, representative_data=x)
    assert not result.float_ops
    found, expected = tflite_export.predict(path, x), model.predict(x, verbose=0)
    step = (expected.max() - expected.min()) / 255
    assert step > 1 / 128
    assert np.abs(found - expected).max() < 4 * step


def test_left_to_its_own_ranges_the_pass_still_refuses_it(
    model, x, tmp_path, monkeypatch
):
    """If not, TensorFlow has mended it, and the second try can go."""
    mend = quantizer.with_same_scales
    monkeypatch.setattr(
        quantizer, "with_same_scales", lambda content, inputs_too=False: mend(content)
    )
    with pytest.raises(ValueError, match="cannot be converted: RuntimeError"):
        tflite_export.export(model, tmp_path / "m.tflite", representative_data=x)
