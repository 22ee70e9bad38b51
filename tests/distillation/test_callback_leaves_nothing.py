"""What distillation leaves behind, and what it refuses."""

import keras
import numpy as np
import pytest

import keras_compress as kc

from .callback_nets import CLASSES, compiled, make_data, small_model


class Fails(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise RuntimeError("stop here")


def test_fit_leaves_nothing_on_student_or_teacher():
    x, y, _ = make_data()
    teacher, student = small_model(2), compiled(small_model(1))
    teacher.layers[0].trainable = False
    before, weights = set(vars(student)), teacher.get_weights()
    student.fit(x, y, verbose=0)
    attributes = set(vars(student))
    student.fit(x, y, callbacks=[kc.Distillation(teacher)], verbose=0)
    assert set(vars(student)) == attributes
    assert "compute_loss" not in before | attributes
    assert [layer.trainable for layer in teacher.layers] == [False, True]
    for a, b in zip(weights, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_exception_in_the_step_restores_the_student_at_once():
    x, y, _ = make_data()
    student = compiled(small_model(1))
    with pytest.raises(ValueError, match="same shape"):
        student.fit(x, y, callbacks=[kc.Distillation(SubclassedTeacher(3))], verbose=0)
    assert "compute_loss" not in vars(student)
    assert not [name for name in vars(student) if "keras_compress" in name]


class SubclassedTeacher(keras.Model):
    def __init__(self, classes):
        super().__init__()
        self.dense = keras.layers.Dense(classes)
        self(np.zeros((1, 8), "float32"))

    def call(self, x):
        return self.dense(x)


@pytest.mark.parametrize("use", ["fit", "train_on_batch", "compile"])
def test_after_a_crash_elsewhere_the_next_use_restores_the_student(use):
    x, y, _ = make_data()
    student, twin = compiled(small_model(1)), compiled(small_model(1))
    callbacks = [kc.Distillation(small_model(2)), Fails()]
    with pytest.raises(RuntimeError, match="stop here"):
        student.fit(x, y, batch_size=32, callbacks=callbacks, verbose=0)
    twin.set_weights(student.get_weights())
    if use == "compile":
        compiled(student)
    else:
        for model in (student, twin):
            options = {"batch_size": 32, "verbose": 0} if use == "fit" else {}
            getattr(model, use)(x, y, **options)
    assert "compute_loss" not in vars(student)
    for a, b in zip(student.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)


def test_a_second_fit_with_the_same_callback_distils_again():
    x, y, _ = make_data()
    student, callback = compiled(small_model(1)), kc.Distillation(small_model(2))
    first = student.fit(x, y, callbacks=[callback], verbose=0).history
    second = student.fit(x, y, callbacks=[callback], verbose=0).history
    assert 0 < second["distillation_loss"][0] < first["distillation_loss"][0]
    assert "distillation_loss" not in student.fit(x, y, verbose=0).history


def test_a_checkpoint_saved_while_distilling_loads_as_plain_keras(tmp_path):
    x, y, _ = make_data()
    student = compiled(small_model(1))
    path = tmp_path / "student.keras"
    student.fit(
        x,
        y,
        callbacks=[
            kc.Distillation(small_model(2)),
            keras.callbacks.ModelCheckpoint(path),
        ],
        verbose=0,
    )
    loaded = keras.saving.load_model(path)
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), student.predict(x, verbose=0)
    )


def test_different_numbers_of_classes_are_refused_before_training():
    x, y, _ = make_data()
    student = compiled(small_model(1))
    teacher = keras.Sequential([keras.Input((8,)), keras.layers.Dense(7)])
    before = student.get_weights()
    with pytest.raises(ValueError, match=r"teacher \[7\], student \[5\]"):
        student.fit(x, y, callbacks=[kc.Distillation(teacher)], verbose=0)
    np.testing.assert_array_equal(before[0], student.get_weights()[0])


def test_a_softmax_output_is_refused_where_logits_are_expected():
    x, y, _ = make_data()
    teacher = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(CLASSES, activation="softmax")]
    )
    logits = kc.SoftTargets(from_logits=True)
    with pytest.raises(ValueError, match="ends in softmax"):
        compiled(small_model(1)).fit(
            x, y, callbacks=[kc.Distillation(teacher, logits)], verbose=0
        )


def test_a_model_with_its_own_train_step_is_refused():
    class Custom(keras.Sequential):
        def train_step(self, data):
            return super().train_step(data)

    x, y, _ = make_data()
    student = compiled(Custom([keras.Input((8,)), keras.layers.Dense(CLASSES)]))
    with pytest.raises(ValueError, match="its own `train_step`"):
        student.fit(x, y, callbacks=[kc.Distillation(small_model(2))], verbose=0)


def test_a_student_that_is_not_compiled_is_refused():
    x, y, _ = make_data()
    with pytest.raises(ValueError, match="compile"):
        small_model(1).fit(x, y, callbacks=[kc.Distillation(small_model(2))])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"teacher": "vgg16"}, "`teacher` must be"),
        ({"student_loss_weight": -1}, "`student_loss_weight`"),
        ({"objectives": []}, "at least one"),
        ({"objectives": "kd"}, "must be an objective"),
        ({"teacher": []}, "at least one teacher"),
        ({"teacher_weights": [1, 2]}, "must be 1 numbers"),
        ({"teacher_weights": [-1]}, "at least 0"),
        ({"teacher_preprocess": 255}, "must be a function or layer"),
        ({"teacher_preprocess": [None, None]}, "or a list of 1"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        kc.Distillation(**{"teacher": small_model(2), **arguments})
