r"""Whether random graphs lose channels, and are then as good a model as before.

    python benchmarks/channels_random_graphs.py
    python benchmarks/channels_random_graphs.py --graphs=20 --first=100

Each seed gives a Functional model of ten random steps over the whole table of ops
(`tests/channels/random_nets.py`), with one to two inputs and outputs, that goes through

- `prune_channels(model, ratio=0.6, round_to=2)`, to fewer parameters;
- one forward pass, finite;
- one step of `fit`: finite loss, weights moved;
- a `.keras` file, loaded: the same outputs;
- a float and an int8 `.tflite` file, run by LiteRT: MACs as the report has them, float
  outputs within 1e-4 of the largest, int8 finite.

TensorFlow's converter refuses a few graphs, such as those with a ReLU right after an
exact gelu. They are printed and counted apart, if the model with all its channels is
refused for the same reason.

The first table counts the graphs that came through each stage, the second those with a
kind of op. Exits with 1 if a graph did not come through.
"""

import collections
import logging
import os
import pathlib
import statistics
import sys
import tempfile
import time
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from absl import app, flags
from tabulate import tabulate

import keras_compress as kc
import tflite_export
from keras_compress.graph import read_graph

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests" / "channels"))

import nets
import random_nets

FLAGS = flags.FLAGS
flags.DEFINE_integer("graphs", 200, "How many.", lower_bound=1)
flags.DEFINE_integer("first", 0, "The first one's seed.", lower_bound=0)
flags.DEFINE_integer("length", 10, "Random steps of a graph.", lower_bound=1)

FLOAT_ERROR = 1e-4


class Graph:
    """A random model on its way through the stages."""

    def __init__(self, seed: int, folder: pathlib.Path) -> None:
        self.folder = folder
        self.model = nets.randomized(random_nets.random_model(seed, FLAGS.length))
        self.model.compile(keras.optimizers.SGD(1e-4), "mse")
        self.x = nets.batch(self.model, 16)
        self.errors: dict[str, float] = {}
        self.float_ops = False
        self.passed: set[str] = set()

    def prune(self) -> None:
        """Fewer channels."""
        self.smaller = kc.prune_channels(self.model, ratio=0.6, round_to=2)
        expect(self.smaller.count_params() < self.model.count_params(), "no smaller")

    def run(self) -> None:
        """A forward pass."""
        before = nets.outputs(self.model, self.x)
        after = nets.outputs(self.smaller, self.x)
        shapes = [y.shape for y in before] == [y.shape for y in after]
        expect(shapes and all(np.isfinite(y).all() for y in after), "other outputs")

    def train(self) -> None:
        """A step."""
        weights = [np.array(weight) for weight in self.smaller.trainable_weights]
        targets = [np.zeros((16, 3), "float32") for _ in self.smaller.outputs]
        targets = targets if len(targets) > 1 else targets[0]
        [loss] = self.smaller.fit(self.x, targets, verbose=0).history["loss"]
        pairs = zip(weights, self.smaller.trainable_weights, strict=True)
        moved = any(not np.array_equal(old, new) for old, new in pairs)
        expect(np.isfinite(loss) and moved, f"loss {loss}")

    def save_and_load(self) -> None:
        """The same model from a file."""
        self.smaller.save(self.folder / "m.keras")
        loaded = keras.models.load_model(self.folder / "m.keras")
        pairs = zip(
            nets.outputs(self.smaller, self.x),
            nets.outputs(loaded, self.x),
            strict=True,
        )
        expect(all(np.array_equal(a, b) for a, b in pairs), "loads as another")
        self.smaller = loaded

    def export_float(self) -> None:
        """A float file."""
        error = self._export("none")
        expect(error < FLOAT_ERROR, f"off by {error:.1e}")

    def export_int8(self) -> None:
        """An int8 file."""
        error = self._export("int8", representative_data=self.x, allow_float_ops=True)
        expect(np.isfinite(error), "is not finite")

    def _export(self, quantization: str, **options) -> float:
        """The largest error of the file, as a share of the largest output."""
        path = self.folder / f"{quantization}.tflite"
        options["quantization"] = quantization
        try:
            result = tflite_export.export(self.smaller, path, **options)
        except ValueError as error:
            raise refusal(error, self.model, path, options) from error
        self.float_ops = bool(result.float_ops) and quantization == "int8"
        macs = tflite_export.inspect(path).macs, kc.profile(self.smaller).macs
        expect(macs[0] == macs[1], f"MACs {macs}")
        agreement = tflite_export.compare(self.smaller, path, self.x)
        largest = max(np.abs(y).max() for y in nets.outputs(self.smaller, self.x))
        self.errors[quantization] = agreement.max_abs_diff / float(largest)
        return self.errors[quantization]


STAGES = {
    "prune_channels": Graph.prune,
    "forward pass": Graph.run,
    "a step of fit": Graph.train,
    "save, load": Graph.save_and_load,
    "float .tflite": Graph.export_float,
    "int8 .tflite": Graph.export_int8,
}


def expect(met: bool, otherwise: str) -> None:
    """ValueError, unless met."""
    if not met:
        raise ValueError(otherwise)


class RefusedAlike(ValueError):
    """The converter refuses the model with all its channels for the same reason."""


def refusal(error: ValueError, model, path, options: dict) -> ValueError:
    """A `RefusedAlike`, or the error if the model is not refused alike."""
    reason = str(error).partition(": ")[2]
    try:
        tflite_export.export(model, path, **options)
    except ValueError as other:
        if reason and str(other).partition(": ")[2] == reason:
            return RefusedAlike(reason)
    return error


def kinds(model: keras.Model) -> set[str]:
    """What ops the model has."""
    found = [step.operation for step in read_graph(model).steps]
    grouped = any(getattr(op, "groups", 1) > 1 for op in found)
    names = {type(op).__name__ for op in found}
    return names | {"Conv2D with groups"} if grouped else names


def come_through(graph: Graph, seed: int) -> str:
    """ "passed", "refused alike" or "failed"."""
    found = "passed"
    for name, stage in STAGES.items():
        try:
            stage(graph)
            graph.passed.add(name)
        except RefusedAlike as error:
            print(f"seed {seed}, {name}, refused with all channels too: {error}")
            found = "refused alike"
        # Whatever goes wrong is what the table has to tell.
        except Exception as error:
            reason = " ".join(str(error).split())
            print(f"seed {seed}, {name}: {type(error).__name__}: {reason}")
            return "failed"
    return found


def main(argv: list[str]) -> int:
    """Print the tables."""
    del argv
    warnings.simplefilter("ignore")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    start = time.perf_counter()
    results, passed, found = (collections.Counter() for _ in range(3))
    errors = collections.defaultdict(list)
    for seed in range(FLAGS.first, FLAGS.first + FLAGS.graphs):
        keras.utils.clear_session()
        with tempfile.TemporaryDirectory() as folder:
            graph = Graph(seed, pathlib.Path(folder))
            results[come_through(graph, seed)] += 1
        passed.update(graph.passed)
        results["int8 in part float"] += graph.float_ops
        found.update(kinds(graph.model))
        for quantization, error in graph.errors.items():
            errors[quantization].append(error)
    align = ("left", "right")
    rows = [(name, f"{passed[name]} of {FLAGS.graphs}") for name in STAGES]
    print(tabulate(rows, ("stage", "graphs"), "github", colalign=align), end="\n\n")
    rows = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    print(tabulate(rows, ("op", "graphs"), "github", colalign=align), end="\n\n")
    for quantization, values in errors.items():
        print(
            f"{quantization}: largest error, as a share of the largest output: "
            f"median {statistics.median(values):.1e}, worst {max(values):.1e}"
        )
    print(", ".join(f"{name}: {count}" for name, count in results.items()))
    print(f"{time.perf_counter() - start:.0f} s")
    return 1 if results["failed"] else 0


if __name__ == "__main__":
    app.run(main)
