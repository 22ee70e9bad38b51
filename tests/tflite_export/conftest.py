import keras
import numpy as np
import pytest

import tflite_export


@pytest.fixture(scope="session")
def x():
    return np.random.default_rng(0).normal(size=(50, 8, 8, 3)).astype("float32")


@pytest.fixture(scope="session")
def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3), name="image"),
            keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Flatten(name="flatten"),
            keras.layers.Dense(5, name="scores"),
        ],
        name="small",
    )


@pytest.fixture(scope="session")
def two_inputs():
    """a @ A + b @ B, with the inputs in an order that is not alphabetical."""
    keras.utils.set_random_seed(1)
    first, second = keras.Input((4,), name="zeta"), keras.Input((4,), name="alpha")
    total = keras.layers.Add()(
        [keras.layers.Dense(3)(first), keras.layers.Dense(3)(second)]
    )
    return keras.Model([first, second], total)


@pytest.fixture(scope="session")
def int8_file(model, x, tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "m.tflite"
    tflite_export.export(model, path, representative_data=x)
    return path


@pytest.fixture(scope="session")
def float_file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("float") / "m.tflite"
    tflite_export.export(model, path, quantization="none")
    return path
