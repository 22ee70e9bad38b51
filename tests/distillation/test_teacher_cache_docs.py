"""The Python of the section on caches runs, from top to bottom."""

import pathlib
import re

import keras
import numpy as np
import tensorflow as tf

import keras_compress as kc

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "distillation.md"


def net(seed):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, name="features"),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )


def test_the_section_on_caches_runs(tmp_path, monkeypatch):
    section = PAGE.read_text().split("## A large teacher")[1].split("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    student = net(1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    student.compile("sgd", loss)
    names = {
        "kc": kc,
        "tf": tf,
        "teacher": net(2),
        "student": student,
        "x_train": np.random.default_rng(0).random((128, 8, 8, 1), "float32"),
        "y_train": np.arange(128) % 10,
        "augment": keras.layers.RandomFlip(),
    }
    monkeypatch.chdir(tmp_path)
    before = student.get_weights()[0]
    for block in blocks:
        # Keras warns of `shuffle`, whose default it ignores for datasets.
        exec(
            block.replace("student.fit(train", "student.fit(train, shuffle=False"),
            names,
        )
    assert len(blocks) == 4
    assert len(names["cache"]) == 128
    assert names["cache"].feature_shapes == {"features": (6, 6, 4)}
    assert not np.allclose(before, student.get_weights()[0])
