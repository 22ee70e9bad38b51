"""Whole models of keras.applications in int8; benchmarks/ has the table of them all."""

import keras
import numpy as np
import pytest

import tflite_export

SIZE = 32


def _images(count):
    """Smooth random images in [0, 255]."""
    coarse = np.random.default_rng(0).uniform(0, 255, size=(count, 8, 8, 3))
    return np.asarray(keras.ops.image.resize(coarse, (SIZE, SIZE)), "float32")


def _model(build, images):
    model = build(
        weights=None,
        input_shape=(SIZE, SIZE, 3),
        classes=10,
        classifier_activation=None,
    )
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(images, training=True)
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "depthwise"),
    # By hand, from the papers: one for each of 11 bottlenecks, one for each of 16.
    [
        (keras.applications.MobileNetV3Small, 11),
        (keras.applications.EfficientNetB0, 16),
    ],
)
def test_a_mobile_network_is_all_int8_and_near_the_model(build, depthwise, tmp_path):
    images = _images(20)
    model, path = _model(build, images), tmp_path / "m.tflite"
    result = tflite_export.export(model, path, representative_data=images)
    assert not result.float_ops
    assert not result.dead_layers
    assert result.ops["DEPTHWISE_CONV_2D"] == depthwise
    expected = np.asarray(model(images))
    error = np.abs(tflite_export.predict(path, images) - expected)
    assert error.mean() < 0.05 * np.ptp(expected)


@pytest.mark.slow
def test_the_layer_normalization_of_convnext_is_refused_in_int8(tmp_path):
    images = _images(4)
    model = _model(keras.applications.ConvNeXtTiny, images)
    with pytest.raises(ValueError, match=r"NEG \(convnext_tiny_stem_layernorm\)"):
        tflite_export.export(model, tmp_path / "m.tflite", representative_data=images)
    assert not list(tmp_path.iterdir())
