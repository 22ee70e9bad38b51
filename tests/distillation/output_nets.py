"""Classifiers that do not move, and NumPy's word for what they lose."""

import keras
import numpy as np
import pytest

import keras_compress as kc

# Keras' own, on a head that no objective and no compiled loss reaches.
unreached_heads = pytest.mark.filterwarnings("ignore:Gradients do not exist")

X = np.random.default_rng(0).normal(size=(16, 8)).astype("float32")
Y = np.random.default_rng(1).integers(0, 4, 16).astype("int32")


def softmax(logits):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def soft(teacher, student, temperature=4.0):
    t, s = softmax(teacher / temperature), softmax(student / temperature)
    return temperature**2 * np.mean(np.sum(t * np.log(t / s), axis=-1))


def classifier(seed, activation=None, units=4):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(units, activation=activation)]
    )


def two_headed(seed, classes=4):
    """Dict outputs: class scores and one number."""
    keras.utils.set_random_seed(seed)
    x = keras.Input((8,))
    outputs = {
        "scores": keras.layers.Dense(classes, name="scores")(x),
        "size": keras.layers.Dense(1, name="size")(x),
    }
    return keras.Model(x, outputs)


def distilled(student, teacher, objectives, y=Y, **options):
    """`distillation_loss` of the first step, in which the student does not move."""
    if not student.compiled:
        student.compile(keras.optimizers.SGD(0.0))
    callback = kc.Distillation(teacher, objectives, student_loss_weight=0.0, **options)
    history = student.fit(X, y, batch_size=16, callbacks=[callback], verbose=0)
    return history.history["distillation_loss"][0]


def logits(model, x=X):
    """Of a model of one Dense layer, whatever its activation."""
    return x @ np.asarray(model.layers[-1].kernel)
