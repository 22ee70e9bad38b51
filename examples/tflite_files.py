"""A model as float32 and int8 .tflite files, and how well they classify."""

import numpy as np

import tflite_export


def export_both(model, folder, stem, data):
    """Writes `stem`_float32.tflite and `stem`_int8.tflite; returns their paths."""
    paths = {}
    for name, options in {
        "float32": {"quantization": "none"},
        "int8": {
            "quantization": "int8",
            "representative_data": data.calibration_images,
        },
    }.items():
        paths[name] = folder / f"{stem}_{name}.tflite"
        tflite_export.export(model, paths[name], **options)
    return paths


def accuracy(path, data):
    """Share of the test images that the file classifies as labelled."""
    logits = tflite_export.predict(path, data.x_test)
    return float(np.mean(np.argmax(logits, axis=1) == data.y_test))
