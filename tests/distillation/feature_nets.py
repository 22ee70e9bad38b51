"""Small models whose layer "conv" is compared, and how they are trained."""

import keras
import numpy as np
from keras import layers

import keras_compress as kc

X = np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype("float32")
Y = np.random.default_rng(1).integers(0, 4, 16).astype("int32")


def sequential(seed, width=5):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(width, 3, padding="same", activation="relu", name="conv"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4, name="head"),
        ]
    )


def functional(seed, width=5):
    model = sequential(seed, width)
    return keras.Model(model.inputs, model.outputs)


def nested(seed, width=5):
    keras.utils.set_random_seed(seed)
    body = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(width, 3, padding="same", activation="relu", name="conv"),
        ],
        name="body",
    )
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            body,
            layers.GlobalAveragePooling2D(),
            layers.Dense(4, name="head"),
        ]
    )


class Subclassed(keras.Model):
    def __init__(self, width=5):
        super().__init__()
        self.blocks = [
            layers.Conv2D(width, 3, padding="same", activation="relu", name="conv"),
            layers.GlobalAveragePooling2D(),
        ]
        self.head = layers.Dense(4, name="head")

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def subclassed(seed, width=5):
    keras.utils.set_random_seed(seed)
    model = Subclassed(width)
    model(X[:1])
    return model


MODELS = [sequential, functional, nested, subclassed]


def conv_of(model):
    """What "conv" returns, from its weights alone."""
    kernel, bias = model.get_weights()[:2]
    return np.maximum(keras.ops.conv(X, kernel, padding="same") + bias, 0)


def compiled(model, optimizer=None, **options):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or keras.optimizers.SGD(0.0), loss, **options)
    return model


def fit(student, teacher, objectives, student_loss_weight=0.0, **options):
    callback = kc.Distillation(teacher, objectives, student_loss_weight)
    options = {"batch_size": 16, "verbose": 0} | options
    return student.fit(X, Y, callbacks=[callback], **options).history


class Fails(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise RuntimeError("stop here")


def taps_on(*models):
    return [m.name for m in models for m in [m, *m.layers] if "call" in vars(m)]
