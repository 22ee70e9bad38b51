"""A small network to prune, and what its kernels are after every step."""

import keras
import numpy as np
from keras import layers

STEPS = 12
BATCH = 8


def data():
    random = np.random.default_rng(0)
    x = random.normal(size=(STEPS * BATCH, 6, 6, 3)).astype("float32")
    return x, x[:, 0, 0, :2] + 1


def net(**conv):
    return keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            layers.Conv2D(4, 3, name="conv", **conv),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.Flatten(),
            layers.Dense(10, activation="tanh", name="hidden"),
            layers.Dense(2, name="scores"),
        ]
    )


def kernels(model):
    return [np.array(v) for v in model.weights if v.name == "kernel"]


def kept(model):
    return [np.count_nonzero(kernel) for kernel in kernels(model)]


def expected(model, sparsity):
    return [round(kernel.size * (1 - sparsity)) for kernel in kernels(model)]


class Watch(keras.callbacks.Callback):
    """The kernels after every call of the step."""

    def on_train_begin(self, logs=None):
        self.kernels = []

    def on_train_batch_end(self, batch, logs=None):
        self.kernels.append(kernels(self.model))

    @property
    def kept(self):
        return [[np.count_nonzero(k) for k in step] for step in self.kernels]


def fit(model, *callbacks, epochs=1, **options):
    watch = Watch()
    x, y = data()
    options = {"batch_size": BATCH, "shuffle": False, "verbose": 0} | options
    model.fit(x, y, epochs=epochs, callbacks=[*callbacks, watch], **options)
    return watch
