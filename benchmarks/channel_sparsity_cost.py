r"""What `ChannelSparsity` costs in training.

    python benchmarks/channel_sparsity_cost.py
    python benchmarks/channel_sparsity_cost.py --nets=student --steps=20

Nets: the student of the main job for 28x28 images, ResNet50 and MobileNetV2 for 32x32
images. Per net three models train side by side, plain and with either importance, by
the function that `fit` calls for a step. They take turns, in another order each time.
The table has the median wall time of a step, the ratio of the medians to the plain
model's in wall and in processor time, which other work on the machine moves less, and
the wall time of what an epoch adds: scores and strengths.
"""

import collections
import itertools
import os
import pathlib
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags
from tabulate import tabulate

import keras_compress as kc

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "examples"))

import vgg16_models

NETS = ["student", "ResNet50", "MobileNetV2"]
KINDS = ("plain", "group_l2", "bn_scale")
WARM_UP = 3

FLAGS = flags.FLAGS
flags.DEFINE_list("nets", NETS, "Which nets: student, or of keras.applications.")
flags.DEFINE_integer("steps", 40, "Steps to time, of each kind.", lower_bound=1)
flags.DEFINE_integer("batch", 128, "Images of a step.", lower_bound=1)


def build(name: str) -> keras.Model:
    """The net, ready for training without XLA."""
    keras.utils.set_random_seed(0)
    if name == "student":
        model = vgg16_models.build_student()
    else:
        make = getattr(keras.applications, name)
        options = {"input_shape": (32, 32, 3), "classes": 10}
        model = make(weights=None, classifier_activation=None, **options)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, jit_compile=False)
    return model


def seconds(function) -> tuple[float, float]:
    """Of wall and of processor time."""
    started = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - started[0], time.process_time() - started[1]


class Training:
    """A model in the middle of `fit`, one step at a time."""

    def __init__(self, name: str, kind: str) -> None:
        self.model = build(name)
        random = np.random.default_rng(0)
        shape = (FLAGS.batch, *self.model.input_shape[1:])
        x = random.random(shape).astype("float32")
        batch = tf.data.Dataset.from_tensors((x, random.integers(0, 10, FLAGS.batch)))
        self._batches = iter(batch.cache().repeat())
        self.callback = None
        self.model.make_train_function()
        if kind != "plain":
            self.callback = kc.ChannelSparsity(1e-4, kind)
            self.callback.set_model(self.model)
            self.callback.on_train_begin()
            self.callback.on_epoch_begin(0)

    def step(self) -> None:
        """One step of training."""
        float(self.model.train_function(self._batches)["loss"])

    def epoch(self) -> None:
        """What the callback does between two epochs."""
        self.callback.on_epoch_end(0, {})
        self.callback.on_epoch_begin(1)


def rows(name: str) -> list[tuple]:
    """One row per kind of training of this net."""
    trainings = {kind: Training(name, kind) for kind in KINDS}
    times = collections.defaultdict(list)
    orders = itertools.cycle(itertools.permutations(KINDS))
    for turn, order in zip(range(WARM_UP + FLAGS.steps), orders, strict=False):
        for kind in order:
            taken = seconds(trainings[kind].step)
            if turn >= WARM_UP:
                times[kind].append(taken)
    medians = {
        kind: [statistics.median(clock) for clock in zip(*taken, strict=True)]
        for kind, taken in times.items()
    }
    found = []
    for kind in KINDS:
        wall, processor = medians[kind]
        row = (name, kind, f"{1000 * wall:.1f} ms")
        if kind != "plain":
            epochs = [seconds(trainings[kind].epoch)[0] for _ in range(3)]
            ratios = (wall / medians["plain"][0], processor / medians["plain"][1])
            row += (*(f"{r:.3f}" for r in ratios), f"{1000 * min(epochs):.0f} ms")
        found.append(row)
    return found


def main(argv: list[str]) -> None:
    """Print the table."""
    del argv
    table = [row for name in FLAGS.nets for row in rows(name)]
    headers = ("net", "training", "step", "wall", "processor", "once per epoch")
    align = ("left", "left", *("right",) * 4)
    print(tabulate(table, headers, "github", disable_numparse=True, colalign=align))


if __name__ == "__main__":
    app.run(main)
