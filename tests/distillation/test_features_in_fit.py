"""Features in training: off the same forward pass, on any kind of model."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_compress as kc

from .feature_nets import (
    MODELS,
    X,
    Y,
    compiled,
    conv_of,
    fit,
    nested,
    sequential,
    subclassed,
)


@pytest.mark.parametrize(
    ("teacher", "student"),
    [(sequential, model) for model in MODELS] + [(m, sequential) for m in MODELS[1:]],
)
def test_features_of_any_kind_of_model_are_compared(teacher, student):
    teacher, student = teacher(1), compiled(student(2))
    history = fit(student, teacher, kc.FeatureMatch("conv", "conv"))
    expected = np.mean((conv_of(teacher) - conv_of(student)) ** 2)
    assert history["distillation_loss"][0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "options",
    [{"run_eagerly": True}, {"jit_compile": True}, {"steps_per_execution": 2}],
    ids=["eager", "jit", "steps_per_execution"],
)
def test_features_are_compared_in_every_way_of_running(options):
    teacher, student = sequential(1, 7), compiled(sequential(2), **options)
    t, s = conv_of(teacher), conv_of(student)
    history = fit(
        student,
        teacher,
        [
            kc.AttentionTransfer(("conv", "conv")),
            kc.SimilarityPreserving(("conv", "conv")),
        ],
    )
    expected = 1000 * float(kc.AttentionTransfer(("a", "b"))(t, s))
    expected += 3000 * float(kc.SimilarityPreserving(("a", "b"))(t, s))
    assert history["distillation_loss"][0] == pytest.approx(expected, rel=1e-3)


def adapted(width, student):
    """The adaptor's first kernel, and what it makes of the features."""
    kernel = keras.initializers.GlorotUniform(seed=0)((5, width))
    return student @ np.asarray(kernel)


@pytest.mark.parametrize(
    ("student", "options"),
    [
        (sequential, {}),
        (sequential, {"run_eagerly": True}),
        (sequential, {"jit_compile": True}),
        (sequential, {"steps_per_execution": 2}),
        (subclassed, {}),
        (subclassed, {"jit_compile": True}),
    ],
    ids=["graph", "eager", "jit", "steps", "subclassed", "subclassed_jit"],
)
def test_an_adaptor_learns_along_where_widths_differ(student, options):
    teacher, student = sequential(1, 7), compiled(student(2), **options)
    t, s = conv_of(teacher), conv_of(student)
    objective = kc.FeatureMatch("conv", "conv", learning_rate=0.01)
    losses = fit(student, teacher, objective, epochs=6, shuffle=False)
    losses = losses["distillation_loss"]
    expected = np.mean((t - adapted(7, s)) ** 2)
    assert losses[0] == pytest.approx(expected, rel=1e-3)
    # The student has a learning rate of 0: only the adaptor can have moved.
    assert losses[-1] < 0.95 * losses[0]
    assert sorted(losses, reverse=True) == losses


def test_the_student_learns_through_the_adaptor():
    teacher, student = (
        sequential(1, 7),
        compiled(sequential(2), keras.optimizers.SGD(1.0)),
    )
    before = student.get_weights()
    fit(student, teacher, kc.FeatureMatch("conv", "conv"))
    kernel = np.asarray(keras.initializers.GlorotUniform(seed=0)((5, 7)))
    # The gradient of the adaptor's loss for the bias of "conv", by hand.
    weights = sequential(2).get_weights()
    convolved = np.asarray(keras.ops.conv(X, weights[0], padding="same"))
    error = np.maximum(convolved, 0) @ kernel - conv_of(teacher)
    gradient = 2 * (error @ kernel.T) * (convolved > 0) / error.size
    moved = student.get_weights()[1] - before[1]
    np.testing.assert_allclose(moved, -gradient.sum(axis=(0, 1, 2)), rtol=1e-3)


def test_an_adaptor_begins_anew_and_is_gone_after_each_fit():
    teacher, student = sequential(1, 7), compiled(sequential(2))
    callback = kc.Distillation(teacher, kc.FeatureMatch("conv", "conv"))
    losses = [
        student.fit(X, Y, batch_size=16, callbacks=[callback], verbose=0).history
        for _ in range(2)
    ]
    assert losses[0]["distillation_loss"] == losses[1]["distillation_loss"]
    assert len(student.weights) == len(sequential(2).weights)


def test_mixed_float16_compares_features_in_float32():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        student = compiled(sequential(2), keras.optimizers.Adam(0.01))
    finally:
        keras.config.set_dtype_policy("float32")
    teacher = sequential(1, 7)
    expected = np.mean((conv_of(teacher) - adapted(7, conv_of(student))) ** 2)
    history = fit(student, teacher, kc.FeatureMatch("conv", "conv"), epochs=2)
    assert history["distillation_loss"][0] == pytest.approx(expected, rel=5e-3)
    assert history["distillation_loss"][1] < history["distillation_loss"][0]


def test_gradient_accumulation_moves_the_student_in_every_other_step():
    teacher = sequential(1, 7)
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    student = compiled(sequential(2), optimizer)
    weights = [student.get_weights()[0]]
    after = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: weights.append(student.get_weights()[0])
    )
    callback = kc.Distillation(teacher, kc.FeatureMatch("conv", "conv"))
    student.fit(X, Y, batch_size=8, callbacks=[callback, after], verbose=0)
    np.testing.assert_array_equal(weights[0], weights[1])
    assert np.abs(weights[2] - weights[1]).max() > 0


def regular(seed):
    """A student whose step draws random numbers and moves statistics."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(5, 3, activation="relu", name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.Dropout(0.5),
            layers.Flatten(),
            layers.Dense(4, kernel_regularizer="l2", name="head"),
        ]
    )


def test_with_weights_of_0_training_is_a_plain_fit():
    """Weights, statistics, masks of dropout and metrics: all bit by bit."""
    histories, models = [], []
    for distils in (False, True):
        keras.utils.set_random_seed(3)
        student = compiled(
            regular(2), keras.optimizers.Adam(0.01), metrics=["accuracy"]
        )
        objectives = [
            kc.SoftTargets(weight=0.0),
            kc.FeatureMatch("norm", "conv", weight=0.0),
            kc.SimilarityPreserving(("conv", "conv"), weight=0.0),
        ]
        callbacks = [kc.Distillation(sequential(1, 7), objectives, 1.0)]
        keras.utils.set_random_seed(4)
        history = student.fit(
            X, Y, epochs=3, batch_size=8, callbacks=callbacks[:distils], verbose=0
        ).history
        history.pop("distillation_loss", None)
        histories.append(history)
        models.append(student)
    assert histories[0] == histories[1]
    for plain, distilled in zip(*(m.get_weights() for m in models), strict=True):
        np.testing.assert_array_equal(plain, distilled)


def test_layers_may_be_given_themselves():
    teacher, student = nested(1), compiled(sequential(2))
    objective = kc.FeatureMatch(student.layers[0], teacher.layers[0].layers[0])
    history = fit(student, teacher, objective)
    expected = np.mean((conv_of(teacher) - conv_of(student)) ** 2)
    assert history["distillation_loss"][0] == pytest.approx(expected, rel=1e-4)


def test_a_whole_nested_model_is_a_layer():
    teacher, student = nested(1), compiled(sequential(2))
    history = fit(student, teacher, kc.FeatureMatch("conv", "body"))
    expected = np.mean((conv_of(teacher) - conv_of(student)) ** 2)
    assert history["distillation_loss"][0] == pytest.approx(expected, rel=1e-4)


def test_a_teacher_that_shares_layers_with_the_student_is_read_apart():
    student = compiled(sequential(2))
    body = keras.Model(student.inputs, student.layers[0].output)
    objective = kc.FeatureMatch("conv", "conv")
    history = fit(student, body, objective)
    assert history["distillation_loss"][0] == 0


def test_a_teacher_with_other_classes_may_teach_features():
    keras.utils.set_random_seed(1)
    teacher = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(5, 3, padding="same", name="c")]
    )
    history = fit(compiled(sequential(2)), teacher, kc.FeatureMatch("conv", "c"))
    expected = np.mean((teacher.predict(X, verbose=0) - conv_of(sequential(2))) ** 2)
    assert history["loss"][0] == pytest.approx(expected, rel=1e-4)


def test_stored_features_teach_as_the_teachers_own(tmp_path):
    teacher = sequential(1)
    cache = kc.TeacherCache.build(
        teacher, X, tmp_path / "t", dtype="float32", feature_layers=["conv"], verbose=0
    )
    objectives = [kc.FeatureMatch("conv", "conv"), kc.SoftTargets()]
    own = fit(compiled(sequential(2)), teacher, objectives)
    stored = fit(compiled(sequential(2)), cache, objectives)
    received, expected = (h["distillation_loss"][0] for h in (stored, own))
    assert received == pytest.approx(expected, rel=1e-5)


def test_attached_features_teach_under_xla(tmp_path):
    teacher = sequential(1)
    cache = kc.TeacherCache.build(
        teacher, X, tmp_path / "t", dtype="float32", feature_layers=["conv"], verbose=0
    )
    objectives = [kc.FeatureMatch("conv", "conv"), kc.SoftTargets()]
    own = fit(compiled(sequential(2)), teacher, objectives)
    student = compiled(sequential(2), jit_compile=True)
    data = cache.attach(tf.data.Dataset.from_tensor_slices((X, Y)).batch(16))
    history = student.fit(
        data,
        shuffle=False,
        callbacks=[kc.Distillation(cache, objectives, 0.0)],
        verbose=0,
    ).history
    expected = own["distillation_loss"][0]
    assert history["distillation_loss"][0] == pytest.approx(expected, rel=1e-4)
    assert student.jit_compile
    assert "train_step" not in vars(student)


def test_evaluation_in_mid_fit_does_not_disturb_the_features():
    teacher, student = sequential(1), compiled(sequential(2))
    history = fit(
        student,
        teacher,
        kc.FeatureMatch("conv", "conv"),
        epochs=2,
        validation_data=(X, Y),
        batch_size=12,
    )
    expected = np.mean((conv_of(teacher) - conv_of(student)) ** 2)
    assert history["distillation_loss"] == pytest.approx([expected] * 2, rel=1e-4)
