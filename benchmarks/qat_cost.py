"""What quantization-aware training costs beside float training, in time and memory.

    python benchmarks/qat_cost.py
    python benchmarks/qat_cost.py --steps=20

Takes the MobileNet-like and the depthwise net of `qat_nets.py` with batches of 128.
Both ways alternate in one process: the table has the median wall time of a step of
each, the median of the ratios of neighbouring steps, and the ratio of the processor
times, which other work on the machine does not move. Peak memory is that of a process
that takes 10 steps of one way, and what the steps add to it. TFMOT does the same on
tf_keras in processes of its own and is compared with tf_keras in float. Then the time
to make MobileNetV2 (224x224) quantization-aware.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
from absl import app, flags
from qat_nets import NETS
from tabulate import tabulate

_STEPS = flags.DEFINE_integer("steps", 100, "Training steps to time, each way.", 1)
_NETS = flags.DEFINE_list("nets", [*NETS], "Nets to measure.")
_TFMOT = flags.DEFINE_bool("tfmot", True, "Measure TFMOT as well.")
_TASK = flags.DEFINE_enum(
    "task", None, ["time", "memory", "rewrite"], "Used by the script itself."
)
_NET = flags.DEFINE_string("net", None, "Used by the script itself.")
_WAY = flags.DEFINE_string("way", None, "Used by the script itself.")
_LIBRARY = flags.DEFINE_string("library", None, "Used by the script itself.")

BATCH = 128
WARM_UP = 5
MEMORY_STEPS = 10
WAYS = ("float", "aware")
ADDED = ("steps add, float", "steps add, aware", "ratio of these")
LIBRARIES = {"keras_compress": "Keras 3, keras_compress", "tfmot": "tf_keras, TFMOT"}


class Library:
    """A Keras and what makes a model of it quantization-aware."""

    def __init__(self, name: str) -> None:
        if name == "tfmot":
            import tensorflow_model_optimization as tfmot
            import tf_keras

            self.keras = tf_keras
            self.aware = tfmot.quantization.keras.quantize_model
        else:
            import keras

            import keras_compress as kc

            self.keras, self.aware = keras, kc.quantize_aware

    def compiled(self, net: str, way: str):
        """The net, in "float" or "aware", ready for training without XLA."""
        keras = self.keras
        keras.utils.set_random_seed(0)
        model = NETS[net](keras)
        if way == "aware":
            model = self.aware(model)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(1e-3), loss, jit_compile=False)
        return model


def batch():
    """Random images and labels as tensors."""
    import tensorflow as tf

    random = np.random.default_rng(0)
    x = random.random((BATCH, 28, 28, 1)).astype("float32")
    return tf.constant(x), tf.constant(random.integers(0, 10, BATCH))


def time_steps(library: Library) -> dict:
    """Median milliseconds of a step, and ratios of wall and of processor time."""
    models = {way: library.compiled(_NET.value, way) for way in WAYS}
    x, y = batch()
    wall, cpu = ({way: [] for way in models} for _ in range(2))
    for step in range(WARM_UP + _STEPS.value):
        for way, model in models.items():
            started = time.perf_counter(), time.process_time()
            model.train_on_batch(x, y)
            if step >= WARM_UP:
                wall[way].append(time.perf_counter() - started[0])
                cpu[way].append(time.process_time() - started[1])
    ratios = {
        name: statistics.median(
            aware / plain
            for aware, plain in zip(seconds["aware"], seconds["float"], strict=True)
        )
        for name, seconds in (("wall", wall), ("processor", cpu))
    }
    medians = {way: 1000 * statistics.median(seconds) for way, seconds in wall.items()}
    return {**medians, **ratios}


def peak_memory(library: Library) -> dict:
    """MiB at most, and how many of them the training steps added."""
    model = library.compiled(_NET.value, _WAY.value)
    x, y = batch()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(MEMORY_STEPS):
        model.train_on_batch(x, y)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak": peak / 1024, "added": (peak - before) / 1024}


def rewrite(library: Library) -> dict:
    """Seconds to make MobileNetV2 quantization-aware."""
    model = library.keras.applications.MobileNetV2(weights=None)
    started = time.perf_counter()
    library.aware(model)
    return {"seconds": time.perf_counter() - started}


def child(library: str, task: str, **options) -> dict:
    """What a process of its own measures."""
    command = [sys.executable, __file__, f"--library={library}", f"--task={task}"]
    command += [f"--{name}={value}" for name, value in options.items()]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    if library == "tfmot":
        environment["TF_USE_LEGACY_KERAS"] = "1"
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(library: str) -> tuple[list, list, list]:
    """The rows of the three tables of a library."""
    title, steps, memory = LIBRARIES[library], [], []
    for net in _NETS.value:
        found = child(library, "time", net=net, steps=_STEPS.value)
        milliseconds = [f"{found[way]:.1f} ms" for way in WAYS]
        ratios = [f"{found[name]:.2f}" for name in ("wall", "processor")]
        steps.append((net, title, *milliseconds, *ratios))
        peaks = [child(library, "memory", net=net, way=way) for way in WAYS]
        memory.append((net, title, *_compared(peaks, "peak")))
        memory[-1] += _compared(peaks, "added")
    seconds = child(library, "rewrite")["seconds"]
    return steps, memory, [(title, f"{seconds:.1f} s")]


def _compared(peaks: list[dict], name: str) -> tuple:
    plain, aware = (found[name] for found in peaks)
    return f"{plain:.0f} MiB", f"{aware:.0f} MiB", f"{aware / plain:.2f}"


def main(argv: list[str]) -> None:
    """Print the tables."""
    del argv
    if _TASK.value:
        task = {"time": time_steps, "memory": peak_memory, "rewrite": rewrite}
        print(json.dumps(task[_TASK.value](Library(_LIBRARY.value))))
        return
    measured = [measure(name) for name in LIBRARIES if name != "tfmot" or _TFMOT.value]
    headers = (
        ("net", "library", "float step", "aware step", "ratio", "ratio, processor"),
        ("net", "library", "float peak", "aware peak", "ratio", *ADDED),
        ("library", "MobileNetV2 made quantization-aware in"),
    )
    for header, tables in zip(headers, zip(*measured, strict=True), strict=True):
        rows = [row for table in tables for row in table]
        print(tabulate(rows, header, tablefmt="github", disable_numparse=True))
        print()


if __name__ == "__main__":
    app.run(main)
