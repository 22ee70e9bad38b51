"""Accuracy of quantization-aware training beside float, post-training and TFMOT.

    python benchmarks/qat_accuracy.py
    python benchmarks/qat_accuracy.py --quick
    python benchmarks/qat_accuracy.py --nets=depthwise --seeds=5

Trains both nets of `qat_nets.py` on Fashion-MNIST. For each seed one float net is
trained with Adam(1e-3), and from its weights every method goes on for the same epochs,
on the same images, with Adam and a small learning rate that falls to 0 as a cosine, its
BatchNormalization frozen for the second half:

- float: in float, exported in float.
- post-training: that float net, exported to int8 with 300 training images
  (`tflite_export.export`); at 4 bits its kernels rounded and its ranges calibrated by
  `quantize_aware`, without training.
- keras_compress: `quantize_aware` with 500 training images as calibration data, ranges
  frozen for the second half as well; exported without data.
- TFMOT: `quantize_model` on the same net of tf_keras with the same weights, at 4 bits
  its experimental `DefaultNBitQuantizeScheme`; the plain converter.

Every accuracy is that of the .tflite file on the test images. The second table compares
the files of keras_compress with the trained models they came from. What is measured is
kept in `--output_dir`, and another run goes on from there.
"""

import json
import os
import pathlib
import shutil
import statistics
import time

from absl import app, flags
from qat_methods import KERNELS, SHARES, Recipe, Run
from qat_nets import NETS
from tabulate import tabulate

# (method, weight bits) in the order of the table.
METHODS = (
    *(("float", 32), ("post-training", 8), ("keras_compress", 8), ("TFMOT", 8)),
    *(("post-training", 4), ("keras_compress", 4), ("TFMOT", 4)),
)
ACCURACY = (
    *("net", "method", "weight bits", "accuracy of the file", "each seed"),
    *("float ops", "bytes"),
)
PARITY = ("net", "weight bits", "kernels", *(name.replace("_", " ") for name in SHARES))

FLAGS = flags.FLAGS
flags.DEFINE_list("nets", [*NETS], "Nets to train.")
flags.DEFINE_integer("seeds", 3, "How often, each with another seed.", 1)
flags.DEFINE_integer("epochs", 2, "Epochs of the float net.", 1)
flags.DEFINE_integer("fine_tuning_epochs", 1, "Epochs of each method.", 1)
flags.DEFINE_integer("examples", 60_000, "Training images.", 500)
flags.DEFINE_integer("test_examples", 10_000, "Test images.", 1)
flags.DEFINE_integer("batch_size", 128, "Images in a batch.", 1)
flags.DEFINE_float("fine_tuning_rate", 5e-4, "Its learning rate at the start.", 0)
flags.DEFINE_bool("quick", False, "One seed of the depthwise net on 6,000 images.")
flags.DEFINE_bool("resume", True, "Go on from what `--output_dir` holds.")
flags.DEFINE_string("output_dir", "qat_accuracy", "Where results and files are kept.")


class Results:
    """What was measured, by net, seed, method and bits, kept in a JSON file."""

    def __init__(self, folder: str, recipe: Recipe, resume: bool) -> None:
        if not resume:
            shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder, exist_ok=True)
        self._path = pathlib.Path(folder, "results.json")
        self._known: dict[str, object] = {}
        if self._path.exists():
            self._known = json.loads(self._path.read_text())
        if self._known.setdefault("recipe", vars(recipe)) != vars(recipe):
            raise SystemExit(
                f"{self._path} is of another recipe: {self._known['recipe']}. Give "
                f"another --output_dir, or --noresume. Received: {recipe}"
            )

    def once(self, run: Run, net: str, seed: int, method: tuple[str, int]) -> dict:
        """What is known of the method, or else what the run measures."""
        key = "/".join(map(str, (net, seed, *method)))
        if key not in self._known:
            started = time.perf_counter()
            found = run.measure(*method)
            found["seconds"] = round(time.perf_counter() - started, 1)
            self._known[key] = found
            half_written = self._path.with_suffix(".part")
            half_written.write_text(json.dumps(self._known, indent=1))
            os.replace(half_written, self._path)
            print(f"{key}: {found}", flush=True)
        return self._known[key]


def percent(values: list[float]) -> str:
    """The mean in percent, with the standard deviation where there are several."""
    spread = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.2f} %{spread}"


def accuracy_row(net: str, method: tuple, runs: list[dict]) -> tuple:
    """Mean and standard deviation, each seed's accuracy, and the file."""
    scores = [run["accuracy"] for run in runs]
    each = " ".join(f"{100 * score:.2f}" for score in scores)
    float_ops = max(run["float_ops"] for run in runs)
    return net, *method, percent(scores), each, float_ops, f"{runs[0]['bytes']:,}"


def parity_row(net: str, bits: int, kernels: str, runs: list[dict]) -> tuple:
    """The lowest share of any seed."""
    shares = (min(run[kernels][name] for run in runs) for name in SHARES)
    return net, bits, kernels, *(f"{100 * share:.2f} %" for share in shares)


def main(argv: list[str]) -> None:
    """Train what is not known yet and print the tables."""
    del argv
    if FLAGS.quick:
        FLAGS.nets, FLAGS.seeds = ["depthwise"], 1
        FLAGS.examples, FLAGS.batch_size, FLAGS.test_examples = 6_000, 32, 1_000
        FLAGS.output_dir += "_quick"
    recipe = Recipe(**{name: FLAGS[name].value for name in Recipe.__annotations__})
    results = Results(FLAGS.output_dir, recipe, FLAGS.resume)
    accuracies, parities = [], []
    for net in FLAGS.nets:
        found = {method: [] for method in METHODS}
        for seed in range(FLAGS.seeds):
            run = Run(net, seed, recipe, FLAGS.output_dir)
            for method in METHODS:
                found[method].append(results.once(run, net, seed, method))
        for method, runs in found.items():
            accuracies.append(accuracy_row(net, method, runs))
            for kernels in KERNELS if method[0] == "keras_compress" else ():
                parities.append(parity_row(net, method[1], kernels, runs))
    for headers, rows in ((ACCURACY, accuracies), (PARITY, parities)):
        print()
        print(tabulate(rows, headers, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    app.run(main)
