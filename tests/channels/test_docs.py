"""The Python of the page on channels runs, from top to bottom, on a small model."""

import pathlib
import re

import keras
import numpy as np

import keras_compress as kc

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "channels.md"


def test_the_python_of_the_page_runs():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    x = np.random.default_rng(0).random((64, 8, 8, 1), "float32")
    y = (x.mean(axis=(1, 2, 3)) > 0.5).astype("int32")
    layers = [
        *(keras.layers.Conv2D(64, 3), keras.layers.BatchNormalization()),
        *(keras.layers.ReLU(), keras.layers.Conv2D(64, 3), keras.layers.Flatten()),
        keras.layers.Dense(2, activation="softmax"),
    ]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
    names = {"kc": kc, "model": model, "x_train": x, "y_train": y}
    names["batches"] = np.split(x, 4)
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), names)
    share = kc.profile(names["smaller"]).macs / kc.profile(model).macs
    assert 0.45 < share < 0.55
