"""Take one case of `qat_coverage.py` through quantization-aware training.

    python qat_coverage_child.py CASE SIZE EXAMPLES FOLDER
    python qat_coverage_child.py --tfmot CASE SIZE EXAMPLES FOLDER

`benchmarks/qat_coverage.py` runs this in a process of its own for each case, a name in
keras.applications or in qat_coverage_nets.py. FOLDER gets row.json, what became of the
case. With --tfmot it is TFMOT's `quantize_model` on the same model of tf_keras.
"""

import collections
import json
import os
import pathlib
import re
import sys
import time
import warnings

import numpy as np
from applications_coverage import peak_bytes
from qat_coverage_nets import build, examples_for, settle

BATCH = 8


def run_ours(name: str, size: int, count: int, folder: pathlib.Path) -> dict:
    """All stages of one case; "stage" is the one that failed."""
    import keras

    import keras_compress as kc

    start = time.perf_counter()
    model = build(keras, name, size)
    arrays = examples_for(model, count)
    x = arrays if len(arrays) > 1 else arrays[0]
    settle(model, x)
    np.savez(folder / "x.npz", **{str(i): array for i, array in enumerate(arrays)})
    row = {"stage": "quantize_aware"}
    try:
        before = time.perf_counter()
        kc.quantize_aware(model)
        row["aware_seconds"] = time.perf_counter() - before
        aware = kc.quantize_aware(model, calibration_data=x)
        kinds = [
            f"{layer.kind} ({layer.reason})"
            for layer in aware.quantization_report.float_layers
        ]
        row["float_layers"] = dict(collections.Counter(kinds))
        row["stage"] = "fit"
        fit_one_step(keras, aware, arrays)
        row["stage"] = "save and load"
        loaded = reload(keras, aware, x, folder)
        row["stage"] = "export"
        row |= export(loaded, x, folder)
        row["stage"] = "compare"
        row |= compare(loaded, x, arrays, folder)
        row["layers"] = by_layer(loaded, arrays, folder)
        row["stage"] = ""
    # Whatever goes wrong in a case is what the table has to tell.
    except Exception as error:
        row["error"] = one_line(error)
    row["seconds"] = time.perf_counter() - start
    row["peak_bytes"] = peak_bytes()
    return row


def fit_one_step(keras, model, arrays: list[np.ndarray]) -> None:
    """One step of SGD; ValueError unless the loss is finite and weights moved."""
    rows = [array[:BATCH] for array in arrays]
    x = rows if len(rows) > 1 else rows[0]
    targets = np.zeros((BATCH, *model.output.shape[1:]), "float32")
    before = [np.array(weight) for weight in model.trainable_weights]
    model.compile(keras.optimizers.SGD(1e-3), "mse")
    history = model.fit(x, targets, batch_size=BATCH, verbose=0).history
    pairs = zip(before, model.trainable_weights, strict=True)
    still = [w.path for old, w in pairs if np.array_equal(old, w)]
    if not np.isfinite(history["loss"]).all() or len(still) > len(before) / 2:
        raise ValueError(f"loss {history['loss']}, weights that stayed: {still}")


def reload(keras, model, x, folder: pathlib.Path):
    """The model from its `.keras` file; ValueError if it computes something else."""
    path = folder / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    difference = np.abs(loaded.predict(x, verbose=0) - model.predict(x, verbose=0))
    if difference.max() > 0:
        raise ValueError(f"outputs differ by up to {difference.max()} after loading")
    return loaded


def export(model, x, folder: pathlib.Path) -> dict:
    """Write model.tflite in int8 without representative data."""
    import tflite_export

    path, row = folder / "model.tflite", {"refusal": ""}
    try:
        result = tflite_export.export(model, path)
    except ValueError as error:
        if "allow_float_ops" not in str(error):
            raise
        row["refusal"] = " ".join(str(error).split())
        result = tflite_export.export(model, path, allow_float_ops=True)
    return row | {
        "ops": sum(result.ops.values()),
        "float_ops": dict(result.float_ops),
    }


def compare(model, x, arrays: list[np.ndarray], folder: pathlib.Path) -> dict:
    """How near the file is to the model; and the model to itself, a hair beside."""
    import tflite_export

    agreement = tflite_export.compare(model, folder / "model.tflite", x)
    row = {
        "argmax": agreement.argmax,
        "equal": agreement.equal,
        "within_one_step": agreement.within_one_step,
        "output_step": agreement.output_step,
    }
    if agreement.output_step is None or any(a.dtype.kind == "i" for a in arrays):
        return row
    random = np.random.default_rng(1)
    moved = [
        a + np.ptp(a) / 255 * (random.random(a.shape) < 0.01).astype("float32")
        for a in arrays
    ]
    expected = model.predict(x, verbose=0)
    found = model.predict(moved if len(moved) > 1 else moved[0], verbose=0)
    steps = np.abs(expected - found) / agreement.output_step
    return row | {"self": float((steps <= 1.0001).mean())}


def by_layer(model, arrays: list[np.ndarray], folder: pathlib.Path) -> dict:
    """The mean share of equal values of the layers, and the worst within one step."""
    from qat_layers import compare_layers

    path = folder / "model.tflite"
    rows = compare_layers(model, path, [array[:1] for array in arrays])
    found = [row for row in rows if row.found]
    worst = min(found, key=lambda row: row.within_one_step)
    return {
        "ranges": len(rows),
        "not_found": [row.name for row in rows if not row.found],
        "equal": float(np.mean([row.equal for row in found])),
        "within_one_step": worst.within_one_step,
        "worst": worst.name,
    }


def one_line(error: Exception) -> str:
    """The error without the traceback that TensorFlow puts into its text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    inner = [line for line in lines if re.match(r"\w+(Error|Exception): ", line)]
    text = inner[-1] if inner else f"{type(error).__name__}: {' '.join(lines)}"
    return " ".join(text.split())


def run_tfmot(name: str, size: int) -> dict:
    """Whether TFMOT makes the model of tf_keras quantization-aware."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tensorflow_model_optimization as tfmot
    import tf_keras

    start = time.perf_counter()
    row = {"error": ""}
    try:
        model = build(tf_keras, name, size)
        tfmot.quantization.keras.quantize_model(model)
    except Exception as error:
        row["error"] = one_line(error)
    row["seconds"] = time.perf_counter() - start
    return row


def main(arguments: list[str]) -> None:
    warnings.simplefilter("ignore")
    tfmot = arguments[0] == "--tfmot"
    name, size, examples, folder = arguments[tfmot:]
    folder = pathlib.Path(folder)
    if tfmot:
        row = run_tfmot(name, int(size))
    else:
        row = run_ours(name, int(size), int(examples), folder)
    (folder / "row.json").write_text(json.dumps(row))


if __name__ == "__main__":
    main(sys.argv[1:])
