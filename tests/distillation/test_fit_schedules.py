"""Weights and temperatures that change over a fit."""

import keras
import numpy as np
import pytest

import keras_compress as kc

X = np.random.default_rng(0).normal(size=(16, 8)).astype("float32")
Y = np.random.default_rng(1).integers(0, 4, 16).astype("int32")


def classifier(seed):
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])


def soft(teacher, student, temperature):
    t, s = (X @ np.asarray(m.layers[0].kernel) for m in (teacher, student))
    t, s = (np.exp(z / temperature) for z in (t, s))
    t, s = (p / p.sum(-1, keepdims=True) for p in (t, s))
    return temperature**2 * np.mean(np.sum(t * np.log(t / s), axis=-1))


def losses(objectives, student_loss_weight=0.0, **options):
    """Of a student that does not move."""
    teacher, student = classifier(1), classifier(2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    student.compile(keras.optimizers.SGD(0.0), loss, **options.pop("compile", {}))
    traces = []

    def traced(x):
        traces.append(x)
        return teacher(x)

    options = {"batch_size": 16, "verbose": 0, "epochs": 4} | options
    callback = kc.Distillation(traced, objectives, student_loss_weight)
    return student.fit(X, Y, callbacks=[callback], **options).history, len(traces)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (kc.ConstantValue(0.5), [0.5, 0.5, 0.5, 0.5]),
        (kc.ConstantValue(0.5, until=0.5), [0.5, 0.5, 0, 0]),
        (kc.LinearValue(1.0, 0.0), [1, 0.75, 0.5, 0.25]),
        (kc.LinearValue(0.0, 1.0, begin=0.25, end=0.75), [0, 0, 0.5, 1]),
        (kc.CosineValue(1.0, 0.0), [(1 + np.cos(np.pi * i / 4)) / 2 for i in range(4)]),
        (lambda share: 2 * share, [0, 0.5, 1, 1.5]),
    ],
    ids=["constant", "switched_off", "linear", "ramp", "cosine", "function"],
)
def test_a_weight_changes_from_epoch_to_epoch_without_tracing_again(schedule, expected):
    history, traces = losses(kc.SoftTargets(weight=schedule))
    whole = soft(classifier(1), classifier(2), 4.0)
    received = history["distillation_loss"]
    assert received == pytest.approx([w * whole for w in expected], rel=1e-3, abs=1e-7)
    assert traces == 1


def test_a_temperature_changes():
    history, _ = losses(
        kc.SoftTargets(temperature=kc.LinearValue(8.0, 0.5), weight=1.0)
    )
    expected = [soft(classifier(1), classifier(2), t) for t in (8, 6.125, 4.25, 2.375)]
    assert history["distillation_loss"] == pytest.approx(expected, rel=1e-3)


def test_the_compiled_loss_fades_in_while_regularisers_stay():
    history, _ = losses(
        kc.SoftTargets(weight=0.0), student_loss_weight=kc.LinearValue(0.0, 1.0)
    )
    whole, _ = losses(kc.SoftTargets(weight=0.0), student_loss_weight=1.0)
    expected = np.array(whole["loss"]) * [0, 0.25, 0.5, 0.75]
    assert history["loss"] == pytest.approx(expected, rel=1e-5)


def test_within_an_epoch_a_schedule_goes_on_with_each_batch():
    history, _ = losses(
        kc.MeanSquaredTargets(weight=kc.LinearValue(1.0, 0.0)),
        batch_size=4,
        epochs=1,
        shuffle=False,
    )
    teacher, student = (X @ np.asarray(classifier(s).layers[0].kernel) for s in (1, 2))
    batches = ((teacher - student) ** 2).reshape(4, -1).mean(axis=1)
    expected = np.mean(batches * [1, 0.75, 0.5, 0.25])
    assert history["distillation_loss"][0] == pytest.approx(expected, rel=1e-5)


def test_a_fit_that_is_resumed_goes_on_in_the_schedule():
    history, _ = losses(
        kc.SoftTargets(weight=kc.LinearValue(1.0, 0.0)), initial_epoch=3
    )
    whole = soft(classifier(1), classifier(2), 4.0)
    assert history["distillation_loss"] == pytest.approx([0.25 * whole], rel=1e-3)


def test_the_users_objective_keeps_its_schedule():
    objective = kc.SoftTargets(weight=kc.LinearValue(1.0, 0.0), temperature=2.0)
    before = objective.get_config()
    losses(objective)
    assert objective.get_config() == before
    assert objective.weight == kc.LinearValue(1.0, 0.0)


def test_a_schedule_comes_back_from_a_config():
    objective = kc.SoftTargets(temperature=kc.CosineValue(8.0, 2.0, end=0.5))
    config = keras.saving.serialize_keras_object(objective)
    again = keras.saving.deserialize_keras_object(config)
    assert again.temperature == kc.CosineValue(8.0, 2.0, end=0.5)


def test_outside_fit_a_schedule_has_its_first_value():
    t, s = np.array([[2.0, 0.0]]), np.array([[0.0, 0.0]])
    received = kc.SoftTargets(temperature=kc.LinearValue(2.0, 9.0))(t, s)
    assert float(received) == float(kc.SoftTargets(temperature=2.0)(t, s))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kc.ConstantValue(1.0, until=0), "`until`"),
        (lambda: kc.LinearValue(1.0, 0.0, begin=0.5, end=0.5), "begin < end"),
        (lambda: kc.CosineValue(1.0, 0.0, end=2), "begin < end"),
        (lambda: kc.SoftTargets(temperature=kc.LinearValue(4.0, 0.0)), "`temperature`"),
        (lambda: kc.SoftTargets(weight=kc.LinearValue(1.0, -1.0)), "`weight`"),
        (
            lambda: kc.Distillation(
                classifier(1), student_loss_weight=kc.LinearValue(-1.0, 1.0)
            ),
            "`student_loss_weight`",
        ),
    ],
)
def test_wrong_schedules_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
