"""Accuracy and size of pruned nets beside TFMOT's, at several sparsities.

    python benchmarks/pruning_accuracy.py
    python benchmarks/pruning_accuracy.py --quick

For each seed the MobileNet-like net of `qat_nets.py` is trained on Fashion-MNIST with
Adam(1e-3). From its weights every method goes on for the same epochs, on the same
images, with Adam and a learning rate that falls to 0 as a cosine, under the same
schedule: PolynomialDecay from 0 to the sparsity over the first 70 % of the steps. That
length is a multiple of the frequency, without which TFMOT would miss the end. TFMOT
prunes no depthwise kernels, so none of the methods does.

- layer: `kc.MagnitudePruning(schedule)`.
- model: the same with `scope="model"` and `max_layer_sparsity=0.98`.
- TFMOT: `prune_low_magnitude` on the same net of tf_keras with the same weights.

Accuracy is that of the Keras model on the test images, sparsity the share of zeros in
the pruned kernels, bytes those of the float .tflite file after gzip -9.
"""

import gzip
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

from absl import app, flags, logging
from qat_data import test_images, training_images
from qat_nets import NETS
from tabulate import tabulate

METHODS = ("layer", "model", "TFMOT")
FREQUENCY = 20

FLAGS = flags.FLAGS
flags.DEFINE_enum("net", "mobile", [*NETS], "Net to train.")
flags.DEFINE_list("sparsities", ["0.5", "0.8", "0.9", "0.95"], "Shares of zeros.")
flags.DEFINE_integer("seeds", 3, "How often, each with another seed.", 1)
flags.DEFINE_integer("epochs", 2, "Epochs of the float net.", 1)
flags.DEFINE_integer("fine_tuning_epochs", 3, "Epochs of each method.", 1)
flags.DEFINE_integer("examples", 60_000, "Training images.", 1)
flags.DEFINE_integer("test_examples", 10_000, "Test images.", 1)
flags.DEFINE_integer("batch_size", 128, "Images in a batch.", 1)
flags.DEFINE_float("fine_tuning_rate", 1e-3, "Its learning rate at the start.", 0)
flags.DEFINE_bool("quick", False, "One seed of the depthwise net at 90 %.")


def steps() -> int:
    """Of the optimizer in the fine-tuning."""
    return FLAGS.fine_tuning_epochs * -(-FLAGS.examples // FLAGS.batch_size)


def end_step() -> int:
    """The last step of the schedule."""
    return int(0.7 * steps()) // FREQUENCY * FREQUENCY


def fit(model, rate, epochs, seed, callbacks=()):
    """Train with Adam and cross-entropy."""
    import keras

    keras.utils.set_random_seed(seed)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    x, y = training_images(FLAGS.examples)
    batch_size = FLAGS.batch_size
    model.fit(x, y, batch_size, epochs, verbose=0, callbacks=list(callbacks))


def pruned(base, sparsity: float, scope: str, seed: int) -> dict:
    """What the callback makes of the float net; unpruned for a sparsity of 0."""
    import keras

    import keras_compress as kc
    import tflite_export

    def chosen(layer):
        return isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)

    model = keras.models.clone_model(base)
    model.set_weights(base.get_weights())
    schedule = kc.PolynomialDecay(0.0, sparsity, 0, end_step(), frequency=FREQUENCY)
    options = {"scope": scope, "layers": chosen}
    if scope == "model":
        options["max_layer_sparsity"] = 0.98
    callbacks = [kc.MagnitudePruning(schedule, **options)] if sparsity else []
    rate = keras.optimizers.schedules.CosineDecay(FLAGS.fine_tuning_rate, steps())
    fit(model, rate, FLAGS.fine_tuning_epochs, seed, callbacks)
    x, y = test_images(FLAGS.test_examples)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "pruned.tflite")
        tflite_export.export(model, path, quantization="none")
        size = len(gzip.compress(pathlib.Path(path).read_bytes(), 9, mtime=0))
    accuracy = model.evaluate(x, y, 500, verbose=0, return_dict=True)["accuracy"]
    zeros = kc.sparsity(model, chosen)
    return {"accuracy": accuracy, "sparsity": zeros, "bytes": size}


def pruned_by_tfmot(base, sparsity: float, seed: int) -> dict:
    """What TFMOT makes of the same net, in a process of its own."""
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        weights = os.path.join(folder, "weights.npz")
        arrays = {
            f"{layer.name}/{index}": value
            for layer in base.layers
            for index, value in enumerate(layer.get_weights())
        }
        np.savez(weights, **arrays)
        names = ("net", "fine_tuning_epochs", "examples", "test_examples")
        names += ("batch_size", "fine_tuning_rate")
        given = {name: FLAGS[name].value for name in names}
        given |= {"weights": weights, "sparsity": sparsity, "seed": seed}
        given |= {"steps": steps(), "end_step": end_step(), "frequency": FREQUENCY}
        script = pathlib.Path(__file__).with_name("pruning_tfmot_child.py")
        done = subprocess.run(
            [sys.executable, script, json.dumps(given)],
            capture_output=True,
            text=True,
            env=os.environ | {"TF_USE_LEGACY_KERAS": "1"},
        )
    if done.returncode:
        raise RuntimeError(f"TFMOT failed on {given}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def row(sparsity: float, method: str, runs: list[dict]) -> tuple:
    """Means, with the standard deviation of the accuracy, and each seed's."""
    scores = [100 * run["accuracy"] for run in runs]
    spread = f" ± {statistics.stdev(scores):.2f}" if len(runs) > 1 else ""
    zeros = statistics.mean(run["sparsity"] for run in runs)
    size = statistics.mean(run["bytes"] for run in runs)
    return (
        *(f"{100 * sparsity:g} %", method),
        f"{statistics.mean(scores):.2f} %{spread}",
        " ".join(f"{score:.2f}" for score in scores),
        *(f"{100 * zeros:.2f} %", f"{size:,.0f}"),
    )


def main(argv: list[str]) -> None:
    """Train everything and print the table."""
    del argv
    logging.set_verbosity(logging.WARNING)
    if FLAGS.quick:
        FLAGS.seeds, FLAGS.sparsities, FLAGS.examples = 1, ["0.9"], 4_000
        FLAGS.net, FLAGS.batch_size, FLAGS.fine_tuning_epochs = "depthwise", 32, 2
    import keras

    ways = [(0.0, "not pruned")]
    ways += [(float(s), method) for s in FLAGS.sparsities for method in METHODS]
    found = {way: [] for way in ways}
    for seed in range(FLAGS.seeds):
        keras.utils.set_random_seed(seed)
        base = NETS[FLAGS.net](keras)
        fit(base, 1e-3, FLAGS.epochs, seed)
        for sparsity, method in ways:
            if method == "TFMOT":
                result = pruned_by_tfmot(base, sparsity, seed)
            else:
                scope = "model" if method == "model" else "layer"
                result = pruned(base, sparsity, scope, seed)
            print(seed, sparsity, method, result, flush=True)
            found[sparsity, method].append(result)
    headers = ("sparsity", "method", "accuracy", "each seed", "zeros", "gzip bytes")
    rows = [row(*way, runs) for way, runs in found.items()]
    print()
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    app.run(main)
