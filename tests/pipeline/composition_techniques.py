"""Every combination of techniques, and the fit that has them all at once."""

import itertools

import keras
import numpy as np

import keras_compress as kc

from .composition_nets import STEPS, compiled, data, net, teacher

EPOCHS = 3
CLUSTERS = 4
SPARSITY = 0.5
# Masks are final, and clusters begin, in the middle of the second epoch.
MIDDLE = STEPS + 1

CALLBACKS = ("distillation", "pruning", "clustering", "quantization")
TECHNIQUES = (*CALLBACKS, "channels")


def combinations(sizes, techniques=TECHNIQUES) -> list[tuple[str, ...]]:
    """All sets of so many techniques."""
    return [c for size in sizes for c in itertools.combinations(techniques, size)]


def name_of(techniques) -> str:
    """What pytest prints for a combination."""
    return "-".join(techniques)


def student(techniques, optimizer=None, **options) -> keras.Model:
    """The compiled model that a combination trains."""
    model = net(8, seed=2)
    if "channels" in techniques:
        wide = net(16, seed=2)
        model = kc.prune_channels(wide, ratio=0.5, round_to=2)
        assert kc.profile(model).macs < 0.6 * kc.profile(wide).macs
    if "quantization" in techniques:
        model = kc.quantize_aware(model, calibration_data=data()[0])
    return compiled(model, optimizer, **options)


def callbacks(techniques) -> list:
    """One callback for each technique that has one, in the order of `techniques`."""
    make = {
        "distillation": lambda: kc.Distillation(teacher()),
        "pruning": lambda: kc.MagnitudePruning(
            kc.PolynomialDecay(0.2, SPARSITY, 0, MIDDLE, frequency=2)
        ),
        "clustering": lambda: kc.WeightClustering(CLUSTERS, begin_step=MIDDLE),
        "quantization": lambda: kc.QuantizationSchedule(
            freeze_ranges_at=STEPS + 2, freeze_batchnorm_at=STEPS + 2
        ),
    }
    return [make[technique]() for technique in techniques if technique in make]


def fit(model, *callbacks, epochs=EPOCHS, **options) -> dict:
    """The history of a fit that sees the examples in their order."""
    x, y = data()
    settings = {"batch_size": len(x) // STEPS, "shuffle": False, "verbose": 0}
    settings |= {"epochs": epochs} | options
    return model.fit(x, y, callbacks=list(callbacks), **settings).history


class StopBefore(keras.callbacks.Callback):
    """Ends `fit` as a process that is killed does."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


class LossesByHand(keras.callbacks.Callback):
    """Both losses of every step by NumPy, from the weights that the step begins with.

    It must be the last callback of the list.
    """

    def __init__(self, temperature=4.0, weight=0.9, student_weight=0.1) -> None:
        super().__init__()
        self.temperature, self.weight = temperature, weight
        self.student_weight = student_weight
        self.examples = data()
        self.answers = np.array(teacher()(self.examples[0]))
        self.history = {"distillation_loss": [], "loss": []}

    def on_epoch_begin(self, epoch, logs=None):
        self.distilled, self.total = [], []

    def on_train_batch_begin(self, batch, logs=None):
        size = len(self.answers) // STEPS
        x, y, answers = (
            array[batch * size : (batch + 1) * size]
            for array in (*self.examples, self.answers)
        )
        before = [np.array(variable) for variable in self.model.variables]
        scores = np.array(self.model(x, training=True))
        for variable, value in zip(self.model.variables, before, strict=True):
            variable.assign(value)
        soft, target = (
            _log_softmax(array / self.temperature) for array in (scores, answers)
        )
        divergence = (np.exp(target) * (target - soft)).sum(-1).mean()
        labels = -_log_softmax(scores)[np.arange(size), y].mean()
        self.distilled.append(self.weight * self.temperature**2 * divergence)
        self.total.append(self.distilled[-1] + self.student_weight * labels)

    def on_epoch_end(self, epoch, logs=None):
        self.history["distillation_loss"].append(np.mean(self.distilled))
        self.history["loss"].append(np.mean(self.total))


def _log_softmax(scores):
    scores = scores.astype("float64")
    return scores - np.log(np.exp(scores).sum(-1, keepdims=True))
