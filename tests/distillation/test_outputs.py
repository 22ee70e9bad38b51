"""Which outputs are compared, and whatever they end in."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_compress as kc
from keras_compress.distillation.outputs import last_activations

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


@pytest.mark.parametrize("teacher_ends", [None, "softmax"])
@pytest.mark.parametrize("student_ends", [None, "softmax"])
def test_each_model_may_end_in_softmax_or_not(teacher_ends, student_ends):
    teacher, student = classifier(1, teacher_ends), classifier(2, student_ends)
    received = distilled(student, teacher, kc.SoftTargets(weight=1.0))
    assert received == pytest.approx(soft(logits(teacher), logits(student)), rel=1e-4)


def test_a_function_of_probabilities_teaches_with_from_logits_false():
    teacher, student = classifier(1, "softmax"), classifier(2, "softmax")
    objective = kc.SoftTargets(from_logits=False, weight=1.0)
    received = distilled(student, lambda x: teacher(x), objective)
    assert received == pytest.approx(soft(logits(teacher), logits(student)), rel=1e-4)


def end(layer):
    x = keras.Input((8,))
    return keras.Model(x, layer(keras.layers.Dense(4)(x)))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: classifier(0), "logits"),
        (lambda: classifier(0, "softmax"), "softmax"),
        (lambda: classifier(0, "sigmoid"), "sigmoid"),
        (lambda: end(keras.layers.Softmax()), "softmax"),
        (lambda: end(keras.layers.Activation("softmax")), "softmax"),
        (lambda: end(ops.softmax), "softmax"),
        (lambda: end(keras.layers.ReLU()), "unknown"),
        (
            lambda: keras.Sequential(
                [
                    keras.Input((8,)),
                    classifier(0, "softmax"),
                    keras.layers.Activation("linear", dtype="float32"),
                ]
            ),
            "softmax",
        ),
    ],
)
def test_what_a_model_ends_in_is_seen(make, expected):
    assert last_activations(make()) == [expected]


def test_the_end_of_a_quantised_model_is_seen():
    model = kc.quantize_aware(classifier(0, "softmax"), calibration_data=X)
    assert last_activations(model) == ["softmax"]
    model = kc.quantize_aware(classifier(0), calibration_data=X)
    assert last_activations(model) == ["logits"]


@pytest.mark.parametrize(
    ("teacher", "student", "objective", "message"),
    [
        ("softmax", None, kc.SoftTargets(from_logits=True), "teacher .* softmax"),
        (None, "softmax", kc.SoftTargets(from_logits=True), "student .* softmax"),
        ("softmax", None, kc.SoftTargets(from_logits=False), "student .* in logits"),
        ("sigmoid", None, kc.SoftTargets(), "sigmoid.*MeanSquaredTargets"),
    ],
)
def test_a_contradiction_is_refused_before_training(
    teacher, student, objective, message
):
    teacher, student = classifier(1, teacher), classifier(2, student)
    with pytest.raises(ValueError, match=message):
        distilled(student, teacher, objective)


def test_one_unit_is_refused_before_training():
    with pytest.raises(ValueError, match=r"always 1.*MeanSquaredTargets"):
        distilled(classifier(1, units=1), classifier(2, units=1), kc.SoftTargets())


def test_chosen_outputs_of_a_dict_each_have_their_objective():
    teacher, student = two_headed(1), two_headed(2)
    t, s = (m.predict(X, verbose=0) for m in (teacher, student))
    objectives = [
        kc.SoftTargets(output="scores", weight=1.0),
        kc.MeanSquaredTargets(output="size", weight=0.5),
    ]
    received = distilled(student, teacher, objectives, y=None)
    expected = soft(t["scores"], s["scores"])
    expected += 0.5 * np.mean((t["size"] - s["size"]) ** 2)
    assert received == pytest.approx(expected, rel=1e-4)


def test_labels_follow_the_chosen_output():
    teacher, student = two_headed(1), two_headed(2)
    t, s = (m.predict(X, verbose=0)["scores"] for m in (teacher, student))
    student.compile(
        keras.optimizers.SGD(0.0),
        {
            "scores": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "size": "mse",
        },
    )
    y = {"scores": Y, "size": np.zeros(16, "float32")}
    objective = kc.DecoupledTargets(output="scores", warmup_epochs=0)
    received = distilled(student, teacher, objective, y=y)
    expected = float(kc.DecoupledTargets()((Y, t), s))
    assert received == pytest.approx(expected, rel=1e-5)


@unreached_heads
def test_a_teacher_of_one_output_teaches_the_chosen_one():
    teacher, student = classifier(1), two_headed(2)
    received = distilled(student, teacher, kc.SoftTargets(output="scores"), y=None)
    expected = soft(logits(teacher), student.predict(X, verbose=0)["scores"])
    assert received == pytest.approx(0.9 * expected, rel=1e-4)


@unreached_heads
def test_an_output_of_a_list_is_chosen_by_place_or_name():
    def model(seed):
        keras.utils.set_random_seed(seed)
        x = keras.Input((8,))
        heads = [keras.layers.Dense(4, name=name)(x) for name in ("a", "b")]
        return keras.Model(x, heads)

    teacher, student = model(1), model(2)
    t, s = (m.predict(X, verbose=0)[1] for m in (teacher, student))
    for output in (1, "b"):
        objective = kc.SoftTargets(output=output, weight=1.0)
        received = distilled(student, teacher, objective, y=None)
        assert received == pytest.approx(soft(t, s), rel=1e-4)


def test_an_unknown_output_is_refused_before_training():
    with pytest.raises(ValueError, match=r"no output 'score'.*'scores', 'size'"):
        distilled(two_headed(1), two_headed(2), kc.SoftTargets(output="score"))


@unreached_heads
def test_other_outputs_may_have_other_units():
    objective = kc.MeanSquaredTargets(output="size")
    assert distilled(two_headed(1), two_headed(2, classes=7), objective, y=None) > 0
    with pytest.raises(ValueError, match=r"teacher \[7\], student \[4\]"):
        distilled(
            two_headed(1), two_headed(2, classes=7), kc.SoftTargets(output="scores")
        )


def test_another_number_of_outputs_is_refused():
    with pytest.raises(ValueError, match=r"teacher \[4\], student \[4, 1\]"):
        distilled(two_headed(1), classifier(2), kc.SoftTargets())


def test_sequence_outputs_are_masked_as_the_compiled_loss_is():
    def model(seed):
        keras.utils.set_random_seed(seed)
        return keras.Sequential(
            [
                keras.Input((5,)),
                keras.layers.Embedding(9, 6, mask_zero=True),
                keras.layers.Dense(4),
            ]
        )

    teacher, student = model(1), model(2)
    tokens = np.array([[1, 2, 3, 0, 0], [4, 5, 6, 7, 0]], "int32")
    t, s = (m.predict(tokens, verbose=0) for m in (teacher, student))
    student.compile(keras.optimizers.SGD(0.0))
    callback = kc.Distillation(teacher, kc.SoftTargets(weight=1.0))
    history = student.fit(tokens, callbacks=[callback], verbose=0).history
    kept = tokens != 0
    expected = soft(t[kept], s[kept])
    assert history["distillation_loss"][0] == pytest.approx(expected, rel=1e-3)


def test_labels_are_needed_where_an_objective_uses_them():
    student = classifier(1)
    with pytest.raises(ValueError, match="DecoupledTargets needs the label"):
        distilled(student, classifier(2), kc.DecoupledTargets(), y=None)
    assert "compute_loss" not in vars(student)
