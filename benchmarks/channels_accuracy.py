"""Accuracy after the removal of channels, beside random channels and a new net.

    python benchmarks/channels_accuracy.py --examples=30000
    python benchmarks/channels_accuracy.py --quick

The main job's student (five convolutions with BatchNormalization) is trained on
Fashion-MNIST. From its weights every method goes to each share of the MACs, measures
BatchNormalization's statistics anew (`kc.recalibrate_batchnorm`) and trains on for the
same epochs:

- l2: `kc.prune_channels(model, macs=share)`.
- sparse, l2: the same, of a net trained with `kc.ChannelSparsity` for as many epochs.
- random: `importance="random"`.
- from scratch: the net that l2 left, with new weights, trained for the epochs of both
  trainings together.

Adam, with a learning rate that falls to 0 as a cosine; accuracy on the test images.
"""

import os
import statistics

import keras
import numpy as np
from absl import app, flags, logging
from qat_data import test_images, training_images
from tabulate import tabulate

import keras_compress as kc

FLAGS = flags.FLAGS
flags.DEFINE_list("shares", ["0.5", "0.35", "0.2"], "Shares of MACs to keep.")
flags.DEFINE_integer("seeds", 3, "How often, each with another seed.", 1)
flags.DEFINE_integer("epochs", 4, "Epochs of the whole net.", 1)
flags.DEFINE_integer("fine_tuning_epochs", 4, "Epochs after the removal.", 1)
flags.DEFINE_float("fine_tuning_rate", 3e-3, "Learning rate after the removal.", 0)
flags.DEFINE_integer("examples", 60_000, "Training images.", 1)
flags.DEFINE_float("strength", 1e-4, "Of ChannelSparsity.", 0)
flags.DEFINE_bool("quick", False, "One seed, one share, 2,000 images.")

METHODS = ("l2", "sparse, l2", "random", "from scratch")
RATE = 3e-3


def trained(model, rate, epochs, seed, callbacks=()):
    """The model, trained."""
    import students

    keras.utils.set_random_seed(seed)
    batches = students.shuffled_batches(*training_images(FLAGS.examples))
    rate = keras.optimizers.schedules.CosineDecay(rate, epochs * len(batches))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    options = {"epochs": epochs, "shuffle": False, "verbose": 0}
    model.fit(batches, callbacks=list(callbacks), **options)
    return model


def batches_of(images):
    """In the batch size of the training."""
    return np.split(images, range(128, len(images), 128))


def accuracy(model) -> float:
    """On the test images, in percent."""
    x, y = test_images(10_000)
    return 100 * model.evaluate(x, y, 500, verbose=0, return_dict=True)["accuracy"]


def smaller_nets(base, sparse, share: float, seed: int):
    """(method, the net it makes, trained)."""
    from keras_compress.channels.importance import Random

    epochs, rate = FLAGS.fine_tuning_epochs, FLAGS.fine_tuning_rate
    images, _ = training_images(FLAGS.examples)
    for method, model, importance in (
        ("l2", base, "l2"),
        ("sparse, l2", sparse, "l2"),
        ("random", base, Random(seed)),
    ):
        smaller = kc.prune_channels(
            model, macs=share, importance=importance, round_to=4
        )
        if method == "l2":
            keras.utils.set_random_seed(seed)
            anew = smaller.from_config(smaller.get_config())
        kc.recalibrate_batchnorm(smaller, batches_of(images[:2560]))
        yield method, trained(smaller, rate, epochs, seed)
    yield "from scratch", trained(anew, RATE, FLAGS.epochs + epochs, seed)


def main(argv: list[str]) -> None:
    """Train everything and print the table."""
    del argv
    logging.set_verbosity(logging.WARNING)
    import vgg16_models

    if FLAGS.quick:
        FLAGS.seeds, FLAGS.shares, FLAGS.examples = 1, ["0.5"], 2_000
    found = {(float(s), method): [] for s in FLAGS.shares for method in METHODS}
    whole, costs = [], {}
    for seed in range(FLAGS.seeds):
        keras.utils.set_random_seed(seed)
        base = vgg16_models.build_student()
        sparse = keras.models.clone_model(base)
        sparse.set_weights(base.get_weights())
        base = trained(base, RATE, FLAGS.epochs, seed)
        sparsity = kc.ChannelSparsity(FLAGS.strength)
        sparse = trained(sparse, RATE, FLAGS.epochs, seed, [sparsity])
        whole.append(accuracy(base))
        print(f"seed {seed}: {whole[-1]:.2f} whole, {accuracy(sparse):.2f} sparse")
        macs = kc.profile(base).macs
        for share in map(float, FLAGS.shares):
            for method, smaller in smaller_nets(base, sparse, share, seed):
                found[share, method].append(accuracy(smaller))
                costs.setdefault((share, method), kc.profile(smaller).macs / macs)
                score = found[share, method][-1]
                print(f"{seed} {share} {method} {score:.2f}", flush=True)
        keras.utils.clear_session()
    rows = [("100 %", "whole", *spread(whole), "1.000")]
    for (share, method), scores in found.items():
        cost = f"{costs[share, method]:.3f}"
        rows.append((f"{100 * share:g} %", method, *spread(scores), cost))
    headers = ("MACs", "method", "accuracy", "each seed", "MACs left, seed 0")
    print()
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True))


def spread(scores: list[float]) -> tuple[str, str]:
    """Mean and standard deviation; each seed's."""
    deviation = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
    each = " ".join(f"{score:.2f}" for score in scores)
    return f"{statistics.mean(scores):.2f} %{deviation}", each


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    app.run(main)
