"""Objectives side by side, warmed up, and of the user's own."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_compress as kc

from .output_nets import (
    X,
    Y,
    classifier,
    distilled,
    logits,
    soft,
    two_headed,
    unreached_heads,
)


@pytest.mark.parametrize(
    ("epochs", "expected"), [(4, [0.25, 0.5, 0.75, 1.0]), (2, [0.5, 1, 1, 1])]
)
def test_the_weight_of_decoupled_targets_warms_up(epochs, expected):
    teacher, student = classifier(1), classifier(2)
    whole = float(kc.DecoupledTargets()((Y, logits(teacher)), logits(student)))
    student.compile(keras.optimizers.SGD(0.0))
    callback = kc.Distillation(teacher, kc.DecoupledTargets(warmup_epochs=epochs))
    history = student.fit(X, Y, epochs=4, callbacks=[callback], verbose=0).history
    assert history["distillation_loss"] == pytest.approx(
        [share * whole for share in expected], rel=1e-4
    )


def test_a_warm_up_that_is_resumed_goes_on():
    teacher, student = classifier(1), classifier(2)
    whole = float(kc.DecoupledTargets()((Y, logits(teacher)), logits(student)))
    student.compile(keras.optimizers.SGD(0.0))
    callback = kc.Distillation(teacher, kc.DecoupledTargets(warmup_epochs=4))
    history = student.fit(
        X, Y, epochs=3, initial_epoch=2, callbacks=[callback], verbose=0
    ).history
    assert history["distillation_loss"] == pytest.approx([0.75 * whole], rel=1e-4)


def test_several_objectives_add_up():
    teacher, student = classifier(1), classifier(2)
    t, s = logits(teacher), logits(student)
    received = distilled(
        student,
        teacher,
        [
            kc.SoftTargets(weight=0.3),
            kc.DecoupledTargets(weight=0.2, warmup_epochs=0),
            kc.RelationalTargets(weight=0.5),
            kc.MeanSquaredTargets(weight=2.0),
            keras.losses.MeanAbsoluteError(),
        ],
    )
    expected = 0.3 * soft(t, s) + 0.2 * float(kc.DecoupledTargets()((Y, t), s))
    expected += 0.5 * float(kc.RelationalTargets()(t, s)) + 2 * np.mean((t - s) ** 2)
    expected += np.mean(np.abs(t - s))
    assert received == pytest.approx(expected, rel=1e-4)


class WeighedDistance:
    """A small class as an objective."""

    weight = 0.5

    def __call__(self, y_true, y_student, y_teacher):
        of_label = ops.one_hot(ops.cast(y_true, "int32"), 4)
        return ops.sum(of_label * ops.abs(y_student - y_teacher), axis=-1)


def of_label(t, s):
    return np.mean(np.abs(t - s)[np.arange(16), Y])


def test_a_users_class_or_function_is_an_objective():
    teacher, student = classifier(1), classifier(2)
    t, s = logits(teacher), logits(student)
    user = WeighedDistance()
    assert distilled(student, teacher, user) == pytest.approx(0.5 * of_label(t, s))

    def distance(y_true, y_student, y_teacher):
        return user(y_true, y_student, y_teacher)

    assert distilled(student, teacher, distance) == pytest.approx(of_label(t, s))


def test_a_users_scalar_is_the_loss_of_the_batch():
    teacher, student = classifier(1), classifier(2)
    received = distilled(
        student, teacher, lambda y, s, t: ops.max(ops.abs(s - t)), y=None
    )
    assert received == pytest.approx(np.abs(logits(teacher) - logits(student)).max())


@unreached_heads
def test_a_users_function_gets_all_outputs_as_the_models_return_them():
    teacher, student = two_headed(1), two_headed(2)

    def sizes(y_true, y_student, y_teacher):
        assert y_true is None and set(y_teacher) == {"scores", "size"}
        return ops.square(y_student["size"] - y_teacher["size"])[:, 0]

    received = distilled(student, teacher, sizes, y=None)
    t, s = (m.predict(X, verbose=0)["size"] for m in (teacher, student))
    assert received == pytest.approx(np.mean((t - s) ** 2), rel=1e-4)


def test_a_users_function_obeys_sample_weights():
    teacher, student = classifier(1), classifier(2)
    student.compile(keras.optimizers.SGD(0.0))
    w = np.arange(16, dtype="float32")
    history = student.fit(
        X,
        Y,
        sample_weight=w,
        batch_size=16,
        callbacks=[
            kc.Distillation(teacher, lambda y, s, t: ops.sum(ops.abs(s - t), -1))
        ],
        verbose=0,
    ).history
    per_example = np.abs(logits(teacher) - logits(student)).sum(-1)
    expected = np.mean(w * per_example)
    assert history["distillation_loss"][0] == pytest.approx(expected, rel=1e-4)
