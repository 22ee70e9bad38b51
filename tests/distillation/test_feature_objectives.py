"""Feature objectives against NumPy: values, and gradients by finite differences."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_compress.distillation.feature_match import FeatureMatch
from keras_compress.distillation.feature_objectives import (
    AttentionTransfer,
    SimilarityPreserving,
)
from keras_compress.distillation.positions import channels_last, same_positions

PAIR = ("student", "teacher")


def features(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def attention(teacher, student):
    losses = []
    for t, s in zip(teacher, student, strict=True):
        t, s = (np.mean(f**2, axis=-1).ravel() for f in (t, s))
        t, s = t / np.linalg.norm(t), s / np.linalg.norm(s)
        losses.append(np.mean((t - s) ** 2))
    return np.mean(losses)


def similarity(teacher, student):
    matrices = []
    for f in (teacher, student):
        rows = f.reshape(len(f), -1)
        g = rows @ rows.T
        matrices.append(g / np.linalg.norm(g, axis=1, keepdims=True))
    return np.sum((matrices[0] - matrices[1]) ** 2) / len(teacher) ** 2


def match(teacher, student):
    return np.mean((teacher - student) ** 2)


CASES = {
    "attention": (AttentionTransfer(PAIR), attention, (4, 3, 5, 6), (4, 3, 5, 2)),
    "similarity": (SimilarityPreserving(PAIR), similarity, (4, 3, 3, 2), (4, 5)),
    "match": (FeatureMatch(*PAIR), match, (4, 3, 5, 2), (4, 3, 5, 2)),
    "match_dense": (FeatureMatch(*PAIR), match, (4, 6), (4, 6)),
    "attention_1d": (AttentionTransfer(PAIR), attention, (4, 3, 6), (4, 3, 2)),
}


@pytest.mark.parametrize("case", CASES)
def test_values_are_those_of_numpy(case):
    objective, expected, teacher, student = CASES[case]
    teacher, student = features(*teacher), features(*student, seed=1)
    received = float(objective(teacher, student))
    assert received == pytest.approx(expected(teacher, student), rel=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_finite_differences(case):
    objective, expected, teacher, student = CASES[case]
    teacher, student = features(*teacher), features(*student, seed=1)
    variable = tf.Variable(student.astype("float32"))
    with tf.GradientTape() as tape:
        loss = objective(teacher, variable)
    received = tape.gradient(loss, variable).numpy()
    rng = np.random.default_rng(2)
    for _ in range(3):
        place = tuple(rng.integers(0, size) for size in student.shape)
        step = np.zeros_like(student)
        step[place] = 1e-5
        above = expected(teacher, student + step)
        slope = (above - expected(teacher, student - step)) / 2e-5
        assert received[place] == pytest.approx(slope, rel=2e-3, abs=1e-7)


def test_several_pairs_add_up():
    first, second = features(2, 4, 3, 3, 5), features(2, 4, 2, 2, 1)
    objective = AttentionTransfer([("a", "b"), ("c", "d")])
    received = float(objective([first[0], second[0]], [first[1], second[1]]))
    assert received == pytest.approx(attention(*first) + attention(*second), rel=1e-5)


def test_sample_weights_weigh_examples():
    teacher, student = features(2, 3, 2, 2, 4)
    w = np.array([0.0, 2.0, 1.0])
    received = float(FeatureMatch(*PAIR)(teacher, student, sample_weight=w))
    expected = np.mean(w * np.mean((teacher - student) ** 2, axis=(1, 2, 3)))
    assert received == pytest.approx(expected, rel=1e-5)


def test_a_teacher_twice_as_fine_is_averaged_in_squares():
    teacher, student = features(2, 4, 6, 3), features(2, 2, 3, 3)
    pooled = teacher.reshape(2, 2, 2, 3, 2, 3).mean(axis=(2, 4))
    received = float(FeatureMatch(*PAIR)(teacher, student))
    assert received == pytest.approx(match(pooled, student), rel=1e-5)


def test_a_finer_student_is_averaged_too():
    teacher, student = features(2, 3, 3, 3), features(2, 6, 3, 3)
    pooled = student.reshape(2, 3, 2, 3, 3).mean(axis=2)
    received = float(FeatureMatch(*PAIR)(teacher, student))
    assert received == pytest.approx(match(teacher, pooled), rel=1e-5)


def test_sizes_that_do_not_divide_share_the_positions_on_the_border():
    teacher, _ = same_positions(np.arange(3.0).reshape(1, 3, 1), np.zeros((1, 2, 1)))
    # 3 positions in 2: [0, 1.5) and [1.5, 3), so position 1 counts half in each.
    np.testing.assert_allclose(np.ravel(teacher), [(0 + 0.5) / 1.5, (0.5 + 2) / 1.5])


def test_a_constant_stays_constant_at_any_size():
    teacher, student = same_positions(np.full((1, 7, 5, 2), 3.0), np.ones((1, 4, 6, 2)))
    assert tuple(teacher.shape) == (1, 4, 5, 2) == tuple(student.shape)
    np.testing.assert_allclose(teacher, 3.0, rtol=1e-6)
    np.testing.assert_allclose(student, 1.0, rtol=1e-6)


def test_channels_first_features_are_turned():
    layer = keras.layers.Conv2D(4, 1, data_format="channels_first")
    assert channels_last(layer, np.zeros((2, 4, 6, 5))).shape == (2, 6, 5, 4)
    assert channels_last(keras.layers.ReLU(), np.zeros((2, 6, 5, 4))).shape[-1] == 4


def test_dead_features_leave_gradients_finite():
    for objective in (AttentionTransfer(PAIR), SimilarityPreserving(PAIR)):
        student = tf.Variable(np.zeros((2, 3, 3, 2), "float32"))
        with tf.GradientTape() as tape:
            loss = objective(features(2, 3, 3, 2), student)
        assert np.isfinite(tape.gradient(loss, student)).all()


@pytest.mark.parametrize(
    ("objective", "teacher", "student", "message"),
    [
        (FeatureMatch(*PAIR), (2, 3, 3, 4), (2, 4), "as many axes"),
        (FeatureMatch(*PAIR), (2, 4), (2, 5), "no adaptor"),
        (AttentionTransfer(PAIR), (2, 4), (2, 4), "global pooling"),
    ],
)
def test_shapes_that_cannot_match_are_refused(objective, teacher, student, message):
    with pytest.raises(ValueError, match=message):
        objective(np.zeros(teacher), np.zeros(student))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AttentionTransfer([]), "`pairs` must be"),
        (lambda: AttentionTransfer("conv"), "`pairs` must be"),
        (lambda: SimilarityPreserving([("a", "b", "c")]), "`pairs` must be"),
        (lambda: FeatureMatch("a", None), "`pairs` must be"),
        (lambda: FeatureMatch("a", "b", weight=-1), "`weight`"),
        (lambda: FeatureMatch("a", "b", learning_rate=0), "`learning_rate`"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "objective",
    [
        FeatureMatch("a", "b", weight=3.0, learning_rate=0.1),
        AttentionTransfer([("a", "b"), ("c", "d")], weight=2.0),
        SimilarityPreserving(("a", "b")),
    ],
    ids=lambda objective: objective.name,
)
def test_the_config_makes_the_same_objective(objective):
    config = keras.saving.serialize_keras_object(objective)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(objective)
    assert again.pairs == objective.pairs
    assert again.weight == objective.weight


def test_a_config_names_layers():
    layer = keras.layers.Dense(2, name="head")
    assert FeatureMatch(layer, "b").get_config()["student_layer"] == "head"
