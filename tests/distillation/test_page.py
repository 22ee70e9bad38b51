"""The Python of docs/distillation.md runs, from top to bottom, on small models."""

import pathlib
import re

import keras
import numpy as np

import keras_compress as kc

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "distillation.md"


def cnn(filters, conv):
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(filters, 3, activation="relu", name=conv),
            keras.layers.GlobalAveragePooling2D(name="features"),
            keras.layers.Dense(8),
        ]
    )


def test_the_python_of_the_page_runs(tmp_path, monkeypatch):
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).random((128, 8, 8, 1), "float32")
    y = np.arange(128, dtype="int32") % 8
    student, teacher = cnn(4, "student_conv"), cnn(8, "block3_conv3")
    monkeypatch.chdir(tmp_path)
    teacher.export("saved_model", format="tf_saved_model", verbose=False)
    student.save("an_earlier_checkpoint.keras")
    before = student.get_weights()
    names = {
        "augment": keras.layers.RandomFlip("horizontal"),
        "kc": kc,
        "keras": keras,
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "preprocess_input": keras.applications.vgg16.preprocess_input,
        "resize": keras.ops.image.resize,
        "resnet": cnn(6, "resnet_conv"),
        "student": student,
        "teacher": teacher,
        "tf": __import__("tensorflow"),
        "vgg": teacher,
        **{"x": x, "x_train": x, "y": y, "y_train": y},
    }
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) > 7
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), names)
    assert len(names["cache"]) == 128
    assert names["cache"].feature_shapes == {"features": (8,)}
    assert not np.array_equal(before[0], student.get_weights()[0])
