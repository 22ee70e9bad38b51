"""What `tflite_export.export` costs beside the plain converter, in time and memory.

python benchmarks/export_cost.py

Prints, for a plain CNN, the time of an int8 export and of the plain SavedModel and
TFLiteConverter route with the same 100 examples, alternating in one process, and their
ratio; for MobileNetV2 (alpha 1.0, 96x96) the peak memory of a process that exports it
with 100 examples; and the time of `inspect` on that file of about 4 MB.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import app, flags
from tabulate import tabulate

_REPEATS = flags.DEFINE_integer("repeats", 7, "Exports to time, each way.", 1)
_MEMORY_OF = flags.DEFINE_string("memory_of", None, "Used by the script itself.")

EXAMPLES = 100


def plain_cnn():
    """A CNN for 28x28 images, 94,000 parameters."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    stack = [keras.Input((28, 28, 1))]
    for units in (32, 64, 128):
        stack += [
            layers.Conv2D(units, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
        ]
    return keras.Sequential([*stack, layers.GlobalAveragePooling2D(), layers.Dense(10)])


def raw_route(model, path: str, x: np.ndarray) -> None:
    """The plain converter: a SavedModel with a fixed batch, then int8."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        signature = [tf.TensorSpec((1, *x.shape[1:]), "float32")]
        model.export(folder, input_signature=signature, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([row[None]] for row in x)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        with open(path, "wb") as file:
            file.write(converter.convert())


def our_route(model, path: str, x: np.ndarray) -> None:
    """The same with every check of `export`."""
    import tflite_export

    tflite_export.export(model, path, representative_data=x)


def time_routes(folder: str) -> list[tuple]:
    """Rows of (what, seconds) and their ratio."""
    model = plain_cnn()
    x = np.random.default_rng(0).normal(size=(EXAMPLES, 28, 28, 1)).astype("float32")
    seconds: dict[str, list[float]] = {}
    for repeat in range(_REPEATS.value + 1):
        for route in (raw_route, our_route):
            start = time.perf_counter()
            route(model, os.path.join(folder, f"{route.__name__}.tflite"), x)
            # The first of each loads libraries.
            if repeat:
                seconds.setdefault(route.__name__, []).append(
                    time.perf_counter() - start
                )
    raw, ours = (statistics.median(seconds[r.__name__]) for r in (raw_route, our_route))
    return [
        ("plain converter, plain CNN", f"{raw:.2f} s"),
        ("export, plain CNN", f"{ours:.2f} s"),
        ("ratio", f"{ours / raw:.2f}"),
    ]


def export_mobilenet(path: str) -> None:
    """Export MobileNetV2 and print this process's peak memory in MiB."""
    import keras

    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV2((96, 96, 3), weights=None)
    x = np.random.default_rng(0).uniform(-1, 1, size=(EXAMPLES, 96, 96, 3))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    our_route(model, path, x.astype("float32"))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(before / 1024, after / 1024)


def measure_mobilenet(folder: str) -> list[tuple]:
    """Rows of the peak memory of an export and the time of `inspect`."""
    import tflite_export

    path = os.path.join(folder, "mobilenet.tflite")
    command = [sys.executable, __file__, f"--memory_of={path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    before, after = map(float, done.stdout.split()[-2:])
    times = []
    for _ in range(5):
        start = time.perf_counter()
        profile = tflite_export.inspect(path)
        times.append(time.perf_counter() - start)
    return [
        ("peak memory with the model built", f"{before:,.0f} MiB"),
        ("peak memory of its int8 export", f"{after:,.0f} MiB"),
        (f"inspect, {profile.bytes / 1e6:.1f} MB", f"{statistics.median(times):.2f} s"),
    ]


def main(argv: list[str]) -> None:
    """Print the table."""
    del argv
    if _MEMORY_OF.value:
        export_mobilenet(_MEMORY_OF.value)
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = time_routes(folder) + measure_mobilenet(folder)
    print(tabulate(rows, ("what", "measured"), tablefmt="github"))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    app.run(main)
