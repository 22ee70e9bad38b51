"""A small classifier and its data."""

import keras
import numpy as np
import tensorflow as tf

import keras_compress as kc

CLASSES = 5
TEMPERATURE = 3.0

TEMPERATURE = 3.0


def small_model(seed, units=6, name=None):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(units, activation="relu"),
            keras.layers.Dense(CLASSES, kernel_regularizer=keras.regularizers.L2(0.01)),
        ],
        name=name,
    )


def make_data(n=32):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 8)).astype("float32")
    return x, rng.integers(0, CLASSES, n).astype("int32"), rng.random(n, "float32")


def compiled(model, **options):
    model.compile(
        keras.optimizers.SGD(0.1),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **options,
    )
    return model


def objective():
    return kc.SoftTargets(temperature=TEMPERATURE, weight=0.7)


def forward(weights, x):
    first, first_bias, last, last_bias = weights
    return tf.nn.relu(x @ first + first_bias) @ last + last_bias
