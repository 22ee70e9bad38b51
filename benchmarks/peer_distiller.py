"""Distillation beside Keras' own Distiller: the first loss, and what a step costs.

    python benchmarks/peer_distiller.py
    python benchmarks/peer_distiller.py --steps=5 --rounds=2

A student of 78,000 parameters learns from an untrained CNN of 0.6 million, for 28x28
images in batches of 128, on random images. `keras.distillation.Distiller` and
`kc.Distillation` get the same weights, images, weights of the losses (0.1 for the
labels, 0.9 for the teacher) and Adam:

- logits: `LogitsDistillation(4, keras.losses.KLDivergence())` and `SoftTargets(4)`,
  which are the same formula. The Distiller with its default, the string
  "kl_divergence", is shown as well: it compares logits as if they were probabilities.
- logits and features: beside it the mean squared difference of two layers of equal
  shape, `FeatureDistillation("mse", ...)`, for which the Distiller runs the student a
  second time, and `FeatureMatch`.

First loss: of the first step, beside the same calculated in NumPy from the outputs of
both models. Cost: the ways take turns, fit by fit; the median time of a step, and the
median over the rounds of the ratio of the medians within a round, for wall and for
processor time. The last columns are the same ratios of two equal Distillers: what other
work on the machine does to them.
"""

import os
import statistics
import time
from dataclasses import dataclass, field

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags
from keras import distillation, layers
from tabulate import tabulate

import keras_compress as kc

_STEPS = flags.DEFINE_integer("steps", 15, "Steps of each fit.", lower_bound=4)
_ROUNDS = flags.DEFINE_integer("rounds", 16, "Fits of each way.", lower_bound=1)

BATCH_SIZE = 128
WARM_UP = 3
CLOCKS = ("wall", "processor")
TEMPERATURE = 4.0
LABELS_WEIGHT = 0.1
TEACHER_WEIGHT = 1 - LABELS_WEIGHT
FEATURES = "features"  # the layer of both models, 7x7x64
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
KL = keras.losses.KLDivergence()


def cnn(width: int, depth: int, seed: int) -> keras.Model:
    """Convolutions with BatchNormalization for 28x28 images; ten logits."""
    keras.utils.set_random_seed(seed)
    image = keras.Input((28, 28, 1))
    x = image
    for strides in (2, 2):
        for place in range(depth):
            step = strides if place == 0 else 1
            x = layers.Conv2D(width, 3, step, "same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Conv2D(64, 1, activation="relu", name=FEATURES)(x)
    pooled = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(10)(pooled))


def teacher() -> keras.Model:
    """A CNN of 0.6 million parameters."""
    return cnn(width=96, depth=4, seed=1)


def student() -> keras.Model:
    """A CNN of 78,000 parameters."""
    return cnn(width=52, depth=2, seed=0)


def batches(steps: int) -> tf.data.Dataset:
    """The same random images in each fit."""
    random = np.random.default_rng(0)
    x = random.normal(size=(steps * BATCH_SIZE, 28, 28, 1)).astype("float32")
    y = random.integers(0, 10, len(x))
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH_SIZE).cache()
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.prefetch(2).with_options(options)


def by_distiller(*losses):
    """A compiled model and its callbacks: Keras' Distiller with these losses."""
    model = distillation.Distiller(
        teacher=teacher(),
        student=student(),
        distillation_losses=list(losses),
        distillation_loss_weights=[1.0] * len(losses),
        student_loss_weight=LABELS_WEIGHT,
    )
    model.compile("adam", LOSS)
    return model, []


def by_callback(*objectives):
    """A compiled model and its callbacks: `kc.Distillation` with these objectives."""
    model = student()
    model.compile("adam", LOSS)
    return model, [kc.Distillation(teacher(), list(objectives), LABELS_WEIGHT)]


def keras_logits(loss=KL):
    return distillation.LogitsDistillation(TEMPERATURE, loss)


def keras_features():
    return distillation.FeatureDistillation("mse", FEATURES, FEATURES)


def our_logits():
    return kc.SoftTargets(TEMPERATURE, TEACHER_WEIGHT)


def our_features():
    return kc.FeatureMatch(FEATURES, FEATURES, TEACHER_WEIGHT)


THEIRS, OURS = "Distiller", "kc.Distillation"
WAYS = {
    "logits": {
        THEIRS: lambda: by_distiller(keras_logits()),
        OURS: lambda: by_callback(our_logits()),
    },
    "logits and features": {
        THEIRS: lambda: by_distiller(keras_logits(), keras_features()),
        OURS: lambda: by_callback(our_logits(), our_features()),
    },
}


def calculated_losses() -> dict[str, float]:
    """The loss of the first step in NumPy, in float64, by what is distilled."""
    x, y = next(iter(batches(1).as_numpy_iterator()))
    (s, s_features), (t, t_features) = (
        _outputs(student(), x, training=True),
        _outputs(teacher(), x, training=False),
    )
    own = -_log_softmax(s)[np.arange(len(y)), y].mean()
    log_t, log_s = _log_softmax(t / TEMPERATURE), _log_softmax(s / TEMPERATURE)
    divergence = (np.exp(log_t) * (log_t - log_s)).sum(-1).mean()
    logits = LABELS_WEIGHT * own + TEACHER_WEIGHT * TEMPERATURE**2 * divergence
    squares = np.square(t_features - s_features).mean()
    return {"logits": logits, "logits and features": logits + TEACHER_WEIGHT * squares}


def _outputs(model, x, training: bool) -> list[np.ndarray]:
    """Logits and features, in float64."""
    taps = [model.output, model.get_layer(FEATURES).output]
    found = keras.Model(model.input, taps)(x, training=training)
    return [np.asarray(values, "float64") for values in found]


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def first_loss(make) -> float:
    """The loss that a fit of one step logs."""
    model, callbacks = make()
    options = {"callbacks": callbacks, "shuffle": False, "verbose": 0}
    history = model.fit(batches(1), **options).history
    # The Distiller's own "loss" is the same as its "total_loss".
    return history["loss"][0]


@dataclass
class Times(keras.callbacks.Callback):
    """Seconds from the end of one step to that of the next, by both clocks."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def __post_init__(self):
        super().__init__()

    def on_train_batch_end(self, batch, logs=None):
        self.wall.append(time.perf_counter())
        self.processor.append(time.process_time())

    def steps(self, clock: str) -> np.ndarray:
        """Without the first ones, which trace and warm up."""
        return np.diff(getattr(self, clock))[WARM_UP - 1 :]


def step_times(ways: dict) -> dict[str, list[Times]]:
    """The times of each round, by way; a model is trained on from round to round."""
    data = batches(_STEPS.value)
    made = {way: make() for way, make in ways.items()}
    found = {way: [] for way in ways}
    for turn in range(_ROUNDS.value):
        # The one that begins a round does not do so each time.
        for way in [*ways][:: -1 if turn % 2 else 1]:
            model, callbacks = made[way]
            times = Times()
            model.fit(data, callbacks=[*callbacks, times], shuffle=False, verbose=0)
            found[way].append(times)
    return found


def loss_rows() -> list[tuple]:
    """One row for each way: its first loss and the calculated one."""
    calculated = calculated_losses()
    ways = [(what, name, way) for what in WAYS for name, way in WAYS[what].items()]
    default = "kl_divergence"
    name = f'{THEIRS}, loss="{default}"'
    ways.insert(1, ("logits", name, lambda: by_distiller(keras_logits(default))))
    return [
        (what, name, f"{first_loss(make):.5f}", f"{calculated[what]:.5f}")
        for what, name, make in ways
    ]


def cost_row(what: str) -> tuple:
    """What a step costs of one thing that is distilled."""
    again = f"{THEIRS} again"
    found = step_times(WAYS[what] | {again: WAYS[what][THEIRS]})
    medians = {
        (way, clock): [float(np.median(times.steps(clock))) for times in rounds]
        for way, rounds in found.items()
        for clock in CLOCKS
    }
    cells = [
        f"{1000 * statistics.median(medians[way, CLOCKS[0]]):.1f} ms"
        for way in (THEIRS, OURS)
    ]
    for way in (OURS, again):
        for clock in CLOCKS:
            pairs = zip(medians[THEIRS, clock], medians[way, clock], strict=True)
            cells.append(f"{statistics.median(b / a for a, b in pairs):.3f}")
    return (what, *cells)


def main(argv: list[str]) -> None:
    """Print both tables."""
    del argv
    print("Loss of the first step:\n", flush=True)
    headers = ("distilled", "by", "first loss", "calculated")
    print(tabulate(loss_rows(), headers, tablefmt="github", disable_numparse=True))
    print(f"\nMedian training step, batch {BATCH_SIZE}:\n", flush=True)
    headers = (
        *("distilled", THEIRS, OURS, "ratio", "ratio, processor"),
        *("equal ones", "equal ones, processor"),
    )
    rows = [cost_row(what) for what in WAYS]
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    app.run(main)
