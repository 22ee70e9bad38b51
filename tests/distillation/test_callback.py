"""The distilled step against an independent calculation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_compress as kc

from .callback_nets import (
    CLASSES,
    TEMPERATURE,
    compiled,
    make_data,
    objective,
    small_model,
)


def forward(weights, x):
    first, first_bias, last, last_bias = weights
    return tf.nn.relu(x @ first + first_bias) @ last + last_bias


def expected_step(student_weights, teacher_weights, x, y, w, rate=0.1):
    """One step of SGD written out: the total loss and the new weights."""
    weights = [tf.Variable(v) for v in student_weights]
    teacher = tf.nn.softmax(forward(teacher_weights, x) / TEMPERATURE)
    with tf.GradientTape() as tape:
        logits = forward(weights, x)
        hard = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
        student = tf.nn.log_softmax(logits / TEMPERATURE)
        soft = tf.reduce_sum(teacher * (tf.math.log(teacher) - student), axis=1)
        distilled = 0.7 * TEMPERATURE**2 * tf.reduce_sum(w * soft) / len(x)
        total = (
            0.2 * tf.reduce_sum(w * hard) / len(x)
            + 0.01 * tf.reduce_sum(weights[2] ** 2)
            + distilled
        )
    gradients = tape.gradient(total, weights)
    stepped = [v - rate * g for v, g in zip(weights, gradients, strict=True)]
    return float(total), float(distilled), stepped


def assert_step_is_right(student, teacher, data, fit_data=None, **fit):
    x, y, w = data
    total, distilled, weights = expected_step(
        student.get_weights(), teacher.get_weights(), x, y, w
    )
    history = student.fit(
        *(fit_data or (x, y)),
        callbacks=[kc.Distillation(teacher, objective(), student_loss_weight=0.2)],
        verbose=0,
        **fit,
    ).history
    assert history["loss"][0] == pytest.approx(total, rel=1e-5)
    assert history["distillation_loss"][0] == pytest.approx(distilled, rel=1e-5)
    for received, wanted in zip(student.get_weights(), weights, strict=True):
        np.testing.assert_allclose(received, wanted, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [{}, {"run_eagerly": True}, {"jit_compile": True}, {"steps_per_execution": 2}],
    ids=["graph", "eager", "jit", "steps_per_execution"],
)
def test_one_step_equals_the_calculation_by_hand(options):
    x, y, w = make_data()
    assert_step_is_right(
        compiled(small_model(1), **options),
        small_model(2, units=9),
        (x, y, w),
        batch_size=32,
        sample_weight=w,
    )


def test_class_weight_weighs_the_objective_like_the_compiled_loss():
    x, y, _ = make_data()
    class_weight = {k: 0.5 + k for k in range(CLASSES)}
    w = np.array([class_weight[k] for k in y], "float32")
    assert_step_is_right(
        compiled(small_model(1)),
        small_model(2),
        (x, y, w),
        batch_size=32,
        class_weight=class_weight,
    )


def test_a_tf_data_pipeline_gives_the_same_step():
    x, y, w = make_data()
    dataset = tf.data.Dataset.from_tensor_slices((x, y, w)).batch(32)
    assert_step_is_right(
        compiled(small_model(1)),
        small_model(2),
        (x, y, w),
        fit_data=(dataset,),
        shuffle=False,
    )


def test_mirrored_strategy_on_two_devices_gives_the_same_step(two_replicas):
    x, y, w = make_data()
    teacher = small_model(2)
    with two_replicas.scope():
        student = compiled(small_model(1))
    dataset = tf.data.Dataset.from_tensor_slices((x, y, w)).batch(32)
    assert student.distribute_strategy.num_replicas_in_sync == 2
    _, distilled, weights = expected_step(
        student.get_weights(), teacher.get_weights(), x, y, w
    )
    history = student.fit(
        dataset,
        callbacks=[kc.Distillation(teacher, objective(), 0.2)],
        shuffle=False,
        verbose=0,
    ).history
    assert history["distillation_loss"][0] == pytest.approx(distilled, rel=1e-5)
    for received, wanted in zip(student.get_weights()[:2], weights[:2], strict=True):
        np.testing.assert_allclose(received, wanted, atol=1e-5)


def test_named_inputs_reach_the_teacher():
    def model(seed):
        keras.utils.set_random_seed(seed)
        a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
        merged = keras.layers.Concatenate()([a, b])
        return keras.Model({"a": a, "b": b}, keras.layers.Dense(CLASSES)(merged))

    x = {"a": np.ones((4, 3), "float32"), "b": np.zeros((4, 2), "float32")}
    teacher, student = model(1), compiled(model(2))
    t, s = (m.predict(x, verbose=0) for m in (teacher, student))
    t, s = (np.exp(v / 3) / np.exp(v / 3).sum(1, keepdims=True) for v in (t, s))
    expected = 0.7 * 9 * np.mean(np.sum(t * np.log(t / s), axis=1))
    history = student.fit(
        x,
        np.zeros(4, "int32"),
        callbacks=[kc.Distillation(teacher, objective())],
        verbose=0,
    ).history
    assert history["distillation_loss"][0] == pytest.approx(expected, rel=1e-4)


def test_mixed_float16_computes_the_objective_in_float32():
    x, y, _ = make_data()
    teacher = small_model(2)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        student = compiled(small_model(1))
    finally:
        keras.config.set_dtype_policy("float32")
    _, distilled, _ = expected_step(
        student.get_weights(), teacher.get_weights(), x, y, np.ones(32, "float32")
    )
    history = student.fit(
        x,
        y,
        batch_size=32,
        callbacks=[kc.Distillation(teacher, objective())],
        verbose=0,
    ).history
    assert history["distillation_loss"][0] == pytest.approx(distilled, rel=5e-3)


def test_without_labels_the_student_learns_from_the_teacher_alone():
    x, _, _ = make_data()
    teacher, student = small_model(2), small_model(1)
    student.layers[-1].kernel_regularizer = None
    student.compile(keras.optimizers.Adam(0.05))
    losses = student.fit(
        x, epochs=30, callbacks=[kc.Distillation(teacher)], verbose=0
    ).history["distillation_loss"]
    assert losses[-1] < 0.2 * losses[0]


def test_validation_logs_hold_the_compiled_loss_and_no_distillation_loss():
    x, y, _ = make_data()
    student = compiled(small_model(1))
    history = student.fit(
        x,
        y,
        epochs=2,
        validation_data=(x, y),
        callbacks=[kc.Distillation(small_model(2))],
        verbose=0,
    ).history
    assert sorted(history) == ["distillation_loss", "loss", "val_loss"]
    assert history["val_loss"][-1] == pytest.approx(
        student.evaluate(x, y, verbose=0), rel=1e-6
    )


def test_two_teachers_in_one_fit_add_up_in_either_order():
    x, y, _ = make_data()
    losses = []
    for seeds in ((2, 3), (3, 2)):
        student = compiled(small_model(1))
        callbacks = [
            kc.Distillation(small_model(s), objective(), student_loss_weight=0.5)
            for s in seeds
        ]
        history = student.fit(x, y, batch_size=32, callbacks=callbacks, verbose=0)
        losses.append(history.history["loss"][0])
        assert "compute_loss" not in vars(student)
    weights = small_model(1).get_weights()
    one, two = (
        expected_step(weights, small_model(s).get_weights(), x, y, np.ones(32, "f"))
        for s in (2, 3)
    )
    regularizer = 0.01 * np.sum(weights[2] ** 2)
    hard = (one[0] - one[1] - regularizer) / 0.2
    expected = 0.25 * hard + regularizer + one[1] + two[1]
    assert losses == pytest.approx([expected, expected], rel=1e-5)
