"""A teacher of two layers, its examples and what it makes of them."""

import keras
import numpy as np

import keras_compress as kc

CLASSES = 12


def net():
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(6, activation="relu", name="hidden"),
            keras.layers.Dense(CLASSES, kernel_initializer="he_normal", name="scores"),
        ]
    )


def examples():
    return np.random.default_rng(0).normal(size=(80, 4)).astype("float32")


def by_hand(teacher, x):
    first, first_bias, last, last_bias = teacher.get_weights()
    hidden = np.maximum(x @ first + first_bias, 0)
    return hidden, hidden @ last + last_bias


def build(teacher, data, path, **options):
    return kc.TeacherCache.build(teacher, data, path, verbose=0, **options)
