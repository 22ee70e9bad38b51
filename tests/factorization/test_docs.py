"""The Python of the page on factorisation runs, from top to bottom."""

import pathlib
import re
import types

import keras
import numpy as np

import keras_compress as kc
from keras_compress.factorization.factorize import factorize

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "factorization.md"


def test_the_python_of_the_page_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    x = np.random.default_rng(0).random((64, 8, 8, 1), "float32")
    y = (x.mean(axis=(1, 2, 3)) > 0.5).astype("int32")
    layers = [
        *(keras.layers.Conv2D(64, 3, activation="relu"), keras.layers.Conv2D(64, 3)),
        *(keras.layers.Flatten(), keras.layers.Dense(128, activation="relu")),
        keras.layers.Dense(2, activation="softmax"),
    ]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
    package = types.SimpleNamespace(factorize=factorize, profile=kc.profile)
    names = {"kc": package, "model": model, "x_train": x, "y_train": y}
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), names)
    params = names["smaller"].count_params()
    assert 0.38 < params / model.count_params() <= 0.4
    assert (
        f"parameters: {model.count_params():,} -> {params:,}" in capsys.readouterr()[0]
    )
