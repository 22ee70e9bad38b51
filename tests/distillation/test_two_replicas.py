"""One step on two devices is the step on one, for every objective and teacher."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_compress as kc

PAIR = ("conv", "conv")
X = np.random.default_rng(0).normal(size=(16, 6, 6, 3)).astype("float32")
Y = np.random.default_rng(1).integers(0, 4, 16).astype("int32")
W = np.random.default_rng(2).random(16).astype("float32")


def model(seed, width):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            layers.Conv2D(width, 3, activation="tanh", name="conv"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4),
        ]
    )


def steps(strategy, make_teacher, objective, epochs=2, weights=W):
    """The student's weights after SGD, and the logged losses."""
    teacher = make_teacher()
    with strategy.scope():
        student = model(1, 3)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        student.compile(keras.optimizers.SGD(0.1), loss)
    dataset = tf.data.Dataset.from_tensor_slices((X, Y, weights)).batch(16)
    callback = kc.Distillation(teacher, objective, student_loss_weight=0.5)
    history = student.fit(
        dataset, epochs=epochs, shuffle=False, callbacks=[callback], verbose=0
    ).history
    return student.get_weights(), history


OBJECTIVES = {
    "soft": kc.SoftTargets(),
    "scheduled": kc.SoftTargets(kc.LinearValue(4.0, 2.0), kc.CosineValue(1.0, 0.5)),
    "decoupled": kc.DecoupledTargets(warmup_epochs=3),
    "relational": kc.RelationalTargets(),
    "squared": kc.MeanSquaredTargets(),
    "attention": kc.AttentionTransfer(PAIR, weight=100.0),
    "similarity": kc.SimilarityPreserving(PAIR, weight=10.0),
    "match": kc.FeatureMatch(*PAIR),
    "function": lambda y, s, t: tf.reduce_sum(tf.abs(s - t), axis=-1),
}


def assert_same(one, two):
    (weights, history), (replicated, replicated_history) = one, two
    for expected, received in zip(weights, replicated, strict=True):
        np.testing.assert_allclose(received, expected, rtol=0, atol=1e-6)
    received = replicated_history["distillation_loss"]
    assert received == pytest.approx(history["distillation_loss"], rel=1e-5)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_replicas_step_as_one_device(name, two_replicas):
    def teacher():
        return model(2, 5)

    objective = OBJECTIVES[name]
    one = steps(tf.distribute.get_strategy(), teacher, objective)
    assert_same(one, steps(two_replicas, teacher, objective))


def test_a_users_scalar_is_divided_by_the_replicas(two_replicas):
    def distance(y_true, y_student, y_teacher):
        return tf.reduce_mean(tf.abs(y_student - y_teacher))

    one, two = (
        steps(strategy, lambda: model(2, 5), distance, weights=np.ones_like(W))
        for strategy in (tf.distribute.get_strategy(), two_replicas)
    )
    assert_same(one, two)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.conv = layers.Conv2D(5, 3, name="conv")
        self.head = layers.Dense(4)
        self(X[:1])

    def call(self, x):
        return self.head(tf.reduce_mean(self.conv(x), axis=(1, 2)))


def test_an_adaptor_of_unknown_width_is_refused_on_two_replicas(two_replicas):
    with pytest.raises(ValueError, match="must know the channels"):
        steps(two_replicas, Subclassed, kc.FeatureMatch(*PAIR))


@pytest.mark.parametrize(
    "make",
    [
        lambda: [model(2, 5), model(3, 4)],
        lambda: kc.MovingAverageTeacher(0.5),
    ],
    ids=["two_teachers", "mean_teacher"],
)
def test_teachers_teach_two_replicas_as_one_device(make, two_replicas):
    objective = kc.MeanSquaredTargets()
    one = steps(tf.distribute.get_strategy(), make, objective, epochs=4)
    assert one[1]["distillation_loss"][-1] > 0
    assert_same(one, steps(two_replicas, make, objective, epochs=4))
