"""Graphs that crash the converter, or might."""

import keras
import numpy as np
import pytest

import tflite_export
from tflite_export.conversion import checks, isolation


class Loop(keras.layers.Layer):
    def call(self, x):
        return keras.ops.fori_loop(0, 3, lambda i, x: 0.5 * x, x)


def test_a_loop_converts_in_a_child_process(tmp_path, monkeypatch):
    monkeypatch.setattr(isolation, "convert", None)
    model = keras.Sequential([keras.Input((4,)), Loop()])
    path = tmp_path / "m.tflite"
    result = tflite_export.export(model, path, quantization="none")
    assert result.ops["WHILE"] == 1
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    np.testing.assert_allclose(tflite_export.predict(path, x), x / 8, rtol=1e-6)


def test_child_and_parent_write_the_same_bytes(
    model, x, int8_file, tmp_path, monkeypatch
):
    monkeypatch.setattr(isolation, "_HARMLESS", frozenset())
    path = tmp_path / "m.tflite"
    tflite_export.export(model, path, representative_data=x)
    assert path.read_bytes() == int8_file.read_bytes()


def test_a_converter_that_crashes_is_reported(tmp_path, monkeypatch):
    """A rolled LSTM, which is refused before it gets here, ends the converter."""
    monkeypatch.setattr(checks, "_check_recurrent", lambda model, settings: None)
    model = keras.Sequential([keras.Input((5, 3)), keras.layers.LSTM(4)])
    path = tmp_path / "m.tflite"
    path.write_bytes(b"old")
    x = np.random.default_rng(0).normal(size=(9, 5, 3))
    with pytest.raises(ValueError, match=r"converter crashed \(signal .*While"):
        tflite_export.export(model, path, representative_data=x)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.tflite"]


def test_an_error_in_the_child_is_passed_on(tmp_path):
    image = keras.Input((4,))
    model = keras.Model(image, keras.ops.erfinv(image))
    with pytest.raises(ValueError, match="Erfinv"):
        tflite_export.export(model, tmp_path / "m.tflite", quantization="none")
