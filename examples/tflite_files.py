"""A model as float32 and int8 .tflite files, and how well they classify."""

import numpy as np

import tflite_export


def export_both(model, folder, stem, data):
    """Writes `stem`_float32.tflite and `stem`_int8.tflite; returns their paths."""
    float32 = folder / f"{stem}_float32.tflite"
    tflite_export.export(model, float32, quantization="none")
    return {"float32": float32, **export_int8(model, folder, stem, data)}


def export_int8(model, folder, stem, data):
    """Writes `stem`_int8.tflite; returns its path, by "int8"."""
    path = folder / f"{stem}_int8.tflite"
    tflite_export.export(model, path, representative_data=data.calibration_images)
    return {"int8": path}


def accuracy(path, data):
    """Share of the test images that the file classifies as labelled."""
    logits = tflite_export.predict(path, data.x_test)
    return float(np.mean(np.argmax(logits, axis=1) == data.y_test))
