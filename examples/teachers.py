"""Where the main job's teacher comes from: stored outputs, weights, or training."""

import dataclasses
import json

import numpy as np
import students
import tflite_files
import train_vgg16_teacher
import vgg16_models
from measured import measure

import keras_compress as kc

_FACTS = students.TEACHER_CACHE.with_suffix(".json")
_NAME = "VGG16 teacher"


def stored(model, seconds, *, data, folder):
    """The rows of the stored teacher.

    Its weights are not stored, so sizes and accuracies are those that were measured
    when it was trained; the latency is measured here, on an untrained VGG16.
    """
    del model, seconds
    cache = kc.TeacherCache(students.TEACHER_CACHE)
    facts = json.loads(_FACTS.read_text())
    accuracy = float(np.mean(cache.look_up(data.x_test).argmax(1) == data.y_test))
    print(
        f"Teacher: stored outputs of a VGG16 trained on these images, test accuracy "
        f"{accuracy:.2%} ({students.TEACHER_CACHE.name}; --teacher=train trains it "
        "from scratch)."
    )
    untrained = vgg16_models.build_teacher()
    vgg16_models.normalize_activations(untrained, data.x_train[:64])
    rows = []
    for row in measure(
        f"{_NAME}, stored",
        tflite_files.export_both(untrained, folder, "teacher_untrained", data),
        data,
        parameters=untrained.count_params(),
        accuracies={key: facts[key]["test_accuracy"] for key in ("float32", "int8")},
    ):
        sizes = {key: facts[row.format][key] for key in ("bytes", "gzip_bytes")}
        rows.append(dataclasses.replace(row, **sizes))
    return rows


def trained(data, *, quick):
    """VGG16, trained as examples/train_vgg16_teacher.py does."""
    return train_vgg16_teacher.train_from_flags(data, epochs=1 if quick else None)


def from_weights(data, path):
    """VGG16 with the weights that examples/train_vgg16_teacher.py left."""
    teacher = vgg16_models.build_teacher(len(data.class_names))
    vgg16_models.load_teacher_weights(teacher, path)
    return teacher


def measured(teacher, seconds, *, data, folder, trained_here):
    """The rows of a teacher that is a model."""
    paths = tflite_files.export_both(teacher, folder, "teacher", data)
    return measure(
        _NAME,
        paths,
        data,
        parameters=teacher.count_params(),
        training={"seconds": seconds} if trained_here else None,
    )
