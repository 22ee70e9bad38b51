"""The Python of the pages runs, from top to bottom, on a small model."""

import pathlib
import re

import keras
import numpy as np
import pytest

import tflite_export

DOCS = pathlib.Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize(
    "page",
    [
        "clustering.md",
        "composition.md",
        "microcontrollers.md",
        "pruning.md",
        "quantization.md",
        "report.md",
        "sensitivity.md",
        "tflite_export.md",
    ],
)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert blocks
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).random((120, 8, 8, 1), "float32")
    y = (x.mean(axis=(1, 2, 3)) > 0.5).astype("int32")
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    loss = "sparse_categorical_crossentropy"
    model.compile("adam", loss, metrics=["accuracy"])
    names = {"model": model, "x_train": x, "y_train": y, "x_test": x, "y_test": y}
    names |= {"x": x, "y": y, "loss": loss, "validation_data": (x, y)}
    monkeypatch.chdir(tmp_path)
    names["tflite_export"] = tflite_export
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    exports = any("tflite_export.export" in block for block in blocks)
    assert bool(list(tmp_path.glob("*.tflite"))) == exports
