"""int8 files of `export`, of the plain TFLiteConverter and of ai-edge-quantizer.

    python benchmarks/peer_export.py --env_dir=runs/ai_edge_quantizer
    python benchmarks/peer_export.py --nets=student --quick

The main job's student, trained for one epoch, and nets of keras.applications for small
images, with random weights, BatchNormalization as their examples want it and ten
logits. Each is converted with the same 100 examples in three ways:

- export: `tflite_export.export(model, path, representative_data=x)`.
- TFLiteConverter: `from_keras_model` with `Optimize.DEFAULT`, the examples and
  `TFLITE_BUILTINS_INT8`, as TensorFlow's page on integer quantization has it, with
  float32 inputs and outputs.
- ai-edge-quantizer: its recipe `static_wi8_ai8` on the float file of `export`, in an
  environment of its own that pip fills. Its files have int8 inputs and outputs, so two
  ops less, which turn floats into int8 and back.

Every file is compared with the Keras model on other examples. Latency is LiteRT's with
one thread: the files take turns, and the table has the least of the turns' medians,
since other work on the machine can only add to a time. `float ops` counts those that
compute in float. What a way cannot convert stands below.
"""

import os
import pathlib
import subprocess
import tempfile
import venv
from collections.abc import Callable
from dataclasses import dataclass

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from absl import app, flags
from qat_coverage_nets import build, examples_for, settle
from qat_data import images, test_images
from tabulate import tabulate

import tflite_export

FLAGS = flags.FLAGS  # --image_size is that of applications_coverage.
flags.DEFINE_list(
    "nets",
    ["student", "MobileNetV2", "MobileNetV3Small", "EfficientNetB0"],
    "The student, or names in keras.applications.",
)
flags.DEFINE_integer("rounds", 12, "Turns of timing.", lower_bound=1)
flags.DEFINE_bool("quick", False, "One turn of timing, 2,000 images to train on.")
flags.DEFINE_string("env_dir", None, "Keeps the environment for the next run.")

CHILD = pathlib.Path(__file__).with_name("peer_export_child.py")
CALIBRATION, COMPARED = 100, 100
HEADERS = (
    *("model", "by", "bytes", "ops", "float ops", "latency", "to export"),
    *("argmax equal", "within one step", "max diff / range"),
)


@dataclass(frozen=True)
class Case:
    """A model, its examples for calibration, and others to compare files on."""

    name: str
    model: keras.Model
    examples: np.ndarray
    others: np.ndarray


def student() -> Case:
    """The main job's student after one epoch on the labels."""
    import students

    data = images()
    count = 2_000 if FLAGS.quick else len(data.x_train)
    keras.utils.set_random_seed(0)
    model = students.vgg16_models.build_student()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(data.x_train[:count], data.y_train[:count], 128, 1, verbose=0)
    examples = data.calibration_images[:CALIBRATION]
    return Case("student", model, examples, test_images(10_000)[0])


def net(name: str) -> Case:
    """A net of keras.applications."""
    model = build(keras, name, FLAGS.image_size)
    [x] = examples_for(model, CALIBRATION + COMPARED)
    settle(model, x[:32])
    return Case(name, model, x[:CALIBRATION], x[CALIBRATION:])


def by_export(case: Case, path: str) -> None:
    tflite_export.export(case.model, path, representative_data=case.examples)


def by_converter(case: Case, path: str) -> None:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(case.model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([row[None]] for row in case.examples)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    pathlib.Path(path).write_bytes(converter.convert())


def quantizer_python(folder: pathlib.Path) -> pathlib.Path:
    """The Python of an environment with ai-edge-quantizer, made where there is none."""
    python = folder.absolute() / "bin" / "python"
    if not python.exists():
        print(f"Installing ai-edge-quantizer in {folder}", flush=True)
        venv.create(folder, with_pip=True)
        install = [python, "-m", "pip", "install", "--quiet", "ai-edge-quantizer"]
        subprocess.run(install, check=True)
    return python


def by_quantizer(python: pathlib.Path) -> Callable[[Case, str], str]:
    """A way that runs the child in this environment and returns its version."""

    def convert(case: Case, path: str) -> str:
        source, stored = f"{path}.float.tflite", f"{path}.npy"
        tflite_export.export(case.model, source, quantization="none")
        np.save(stored, case.examples)
        command = [python, CHILD, source, stored, path]
        done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
        if done.returncode:
            raise ValueError(done.stderr.strip().splitlines()[-1])
        return done.stdout.split()[-1]

    return convert


def convert_all(case: Case, ways: dict, folder: str) -> tuple[dict, dict]:
    """The file of each way that could convert the model, and why the others not."""
    paths, refused = {}, {}
    for name, way in ways.items():
        path = os.path.join(folder, f"{case.name}_{len(paths)}.tflite")
        try:
            way(case, path)
        # Whatever a peer raises is its result.
        except Exception as error:
            refused[name] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            continue
        paths[name] = path
    return paths, refused


def latencies(paths: dict[str, str]) -> dict[str, float]:
    """Milliseconds of a run of each file, the least of several turns."""
    found = {name: [] for name in paths}
    for _ in range(1 if FLAGS.quick else FLAGS.rounds):
        for name, path in paths.items():
            found[name].append(tflite_export.benchmark(path, threads=1).median_ms)
    return {name: min(times) for name, times in found.items()}


def row(case: Case, name: str, path: str, times: dict[str, float]) -> tuple:
    """The cells of one file."""
    profile = tflite_export.inspect(path)
    agreement = tflite_export.compare(case.model, path, case.others)
    outputs = case.model.predict(case.others, verbose=0)
    step = agreement.within_one_step
    return (
        case.name,
        name,
        f"{profile.bytes:,}",
        len(profile.ops),
        len(profile.float_ops),
        f"{times[name]:.3f} ms",
        f"{times[name] / times['export']:.2f}",
        f"{agreement.argmax:.2%}",
        "" if step is None else f"{step:.2%}",
        f"{agreement.max_abs_diff / np.ptp(outputs):.2%}",
    )


def main(argv: list[str]) -> None:
    """Print the table, and what could not be converted."""
    del argv
    rows, reasons = [], []
    with tempfile.TemporaryDirectory() as folder:
        python = quantizer_python(pathlib.Path(FLAGS.env_dir or f"{folder}/env"))
        quantizer = by_quantizer(python)
        ways = {
            "export": by_export,
            "TFLiteConverter": by_converter,
            "ai-edge-quantizer": quantizer,
        }
        for name in FLAGS.nets:
            case = student() if name == "student" else net(name)
            paths, refused = convert_all(case, ways, folder)
            times = latencies(paths)
            rows += [row(case, way, path, times) for way, path in paths.items()]
            reasons += [f"{name}, {way}: {why}" for way, why in refused.items()]
            print(f"{name}: {', '.join(paths)}", flush=True)
    align = ("left", "left", *["right"] * 8)
    print()
    print(tabulate(rows, HEADERS, "github", disable_numparse=True, colalign=align))
    print("\n" + "\n".join(reasons or ["Every way converted every model."]))


if __name__ == "__main__":
    app.run(main)
