"""The Python of the export pages runs, from top to bottom, on a small model."""

import pathlib
import re

import keras
import numpy as np
import pytest

import tflite_export

DOCS = pathlib.Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize(
    "page", ["tflite_export.md", "microcontrollers.md", "quantization.md"]
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
    names = {"model": model, "x_train": x, "y_train": y, "x_test": x, "y_test": y}
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(compile(block, page, "exec"), {"tflite_export": tflite_export} | names)
    assert list(tmp_path.glob("*.tflite"))
