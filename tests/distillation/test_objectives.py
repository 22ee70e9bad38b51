"""Objectives against NumPy: values, and gradients by finite differences."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_compress as kc
from keras_compress.distillation.decoupled import DecoupledTargets
from keras_compress.distillation.objectives import MeanSquaredTargets
from keras_compress.distillation.relational import RelationalTargets

LABELS = np.array([0, 3, 9, 3, 1, 2])


def softmax(logits):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def soft(teacher, student, temperature=4.0):
    t, s = softmax(teacher / temperature), softmax(student / temperature)
    return temperature**2 * np.sum(t * np.log(t / s), axis=-1)


def decoupled(teacher, student, temperature=4.0, target=1.0, rest=8.0):
    """The two divergences of each example, written out class by class."""
    losses = []
    for t, s, label in zip(teacher, student, LABELS, strict=True):
        p, q = softmax(t / temperature), softmax(s / temperature)
        first = p[label] * np.log(p[label] / q[label])
        first += (1 - p[label]) * np.log((1 - p[label]) / (1 - q[label]))
        p, q = np.delete(p, label), np.delete(q, label)
        p, q = p / p.sum(), q / q.sum()
        losses.append(target * first + rest * np.sum(p * np.log(p / q)))
    return temperature**2 * np.array(losses)


def relational(teacher, student, temperature=4.0, inter=1.0, intra=1.0):
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    between = [np.corrcoef(p[i], q[i])[0, 1] for i in range(len(p))]
    within = [np.corrcoef(p[:, c], q[:, c])[0, 1] for c in range(p.shape[1])]
    loss = inter * (1 - np.mean(between)) + intra * (1 - np.mean(within))
    return temperature**2 * loss


def squared(teacher, student):
    return np.mean((teacher - student) ** 2, axis=-1)


@pytest.fixture
def logits():
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, 6, 10)).astype("float32") * 3


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_soft_targets_are_t_squared_times_kl_in_nats(logits, temperature):
    loss = kc.SoftTargets(temperature=temperature)(*logits)
    assert float(loss) == pytest.approx(soft(*logits, temperature).mean(), rel=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_decoupled_targets_are_the_two_divergences(logits, temperature):
    teacher, student = logits
    loss = DecoupledTargets(0.5, 6.0, temperature=temperature)(
        (LABELS, teacher), student
    )
    expected = decoupled(teacher, student, temperature, 0.5, 6.0).mean()
    assert float(loss) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "labels", [LABELS[:, None], np.eye(10)[LABELS], 0.9 * np.eye(10)[LABELS] + 0.01]
)
def test_labels_may_be_a_column_or_one_hot_or_smoothed(logits, labels):
    teacher, student = logits
    loss = DecoupledTargets()((labels, teacher), student)
    expected = decoupled(teacher, student).mean()
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_decoupled_targets_with_the_teachers_doubt_as_weight_are_soft_targets(logits):
    teacher, student = logits[:, :1]
    doubt = 1 - softmax(teacher / 4.0)[0, LABELS[0]]
    loss = DecoupledTargets(1.0, float(doubt))((LABELS[:1], teacher), student)
    assert float(loss) == pytest.approx(soft(teacher, student).mean(), rel=1e-4)


@pytest.mark.parametrize(("inter", "intra"), [(1.0, 1.0), (2.0, 0.0), (0.0, 3.0)])
def test_relational_targets_are_one_minus_correlations(logits, inter, intra):
    loss = RelationalTargets(inter, intra, temperature=2.0)(*logits)
    expected = relational(*logits, 2.0, inter, intra)
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_relational_targets_do_not_see_scale_and_shift_of_probabilities():
    student = softmax(np.random.default_rng(1).normal(size=(6, 4)))
    teacher = 0.4 * student + 0.15
    loss = RelationalTargets(temperature=1.0)(np.log(teacher), np.log(student))
    assert float(loss) == pytest.approx(0, abs=1e-5)


def test_constant_outputs_leave_relational_gradients_finite():
    student = tf.Variable(np.zeros((3, 4), "float32"))
    with tf.GradientTape() as tape:
        loss = RelationalTargets()(np.eye(3, 4), student)
    assert np.isfinite(tape.gradient(loss, student)).all()


def test_mean_squared_targets_are_the_mean_over_units(logits):
    loss = MeanSquaredTargets()(*logits)
    assert float(loss) == pytest.approx(squared(*logits).mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (kc.SoftTargets(), lambda t, s: soft(t, s).mean()),
        (DecoupledTargets(), lambda t, s: decoupled(t, s).mean()),
        (RelationalTargets(), relational),
        (MeanSquaredTargets(), lambda t, s: squared(t, s).mean()),
    ],
    ids=["soft", "decoupled", "relational", "squared"],
)
def test_gradients_are_those_of_finite_differences(logits, objective, expected):
    teacher, student = logits
    variable = tf.Variable(student)
    with tf.GradientTape() as tape:
        targets = (LABELS, teacher) if objective.needs_labels else teacher
        loss = objective(targets, variable)
    received = tape.gradient(loss, variable).numpy()
    teacher, student = teacher.astype("float64"), student.astype("float64")
    for place in [(0, 0), (1, 3), (5, 7)]:
        step = np.zeros_like(student)
        step[place] = 1e-4
        above, below = (
            expected(teacher, student + step),
            expected(teacher, student - step),
        )
        assert received[place] == pytest.approx(
            (above - below) / 2e-4, rel=1e-3, abs=1e-6
        )


def test_numpy_numbers_are_numbers(logits):
    objective = kc.SoftTargets(np.float32(2.0), np.float32(0.5))
    assert float(objective(*logits)) == pytest.approx(
        soft(*logits, 2.0).mean(), rel=1e-4
    )


def test_sample_weights_weigh_each_example_and_divide_by_the_batch(logits):
    w = np.array([0, 1, 2, 0, 0.5, 1], "float32")
    loss = kc.SoftTargets(temperature=2.0)(*logits, sample_weight=w)
    assert float(loss) == pytest.approx(np.mean(w * soft(*logits, 2.0)), rel=1e-5)


def test_probabilities_give_the_loss_of_their_logits(logits):
    loss = kc.SoftTargets(from_logits=False)(*softmax(logits))
    assert float(loss) == pytest.approx(soft(*logits).mean(), rel=1e-4)


@pytest.mark.parametrize(
    "objective", [kc.SoftTargets(), RelationalTargets(), MeanSquaredTargets()]
)
def test_equal_outputs_cost_nothing(logits, objective):
    assert float(objective(logits[0], logits[0])) == pytest.approx(0, abs=1e-5)


def test_sequences_give_the_mean_over_their_steps(logits):
    teacher, student = logits.reshape(2, 3, 2, 10)
    for objective, expected in (
        (kc.SoftTargets(), soft(*logits).mean()),
        (RelationalTargets(), relational(*logits)),
    ):
        assert float(objective(teacher, student)) == pytest.approx(expected, rel=1e-4)
    loss = DecoupledTargets()((LABELS.reshape(3, 2), teacher), student)
    assert float(loss) == pytest.approx(decoupled(*logits).mean(), rel=1e-4)


def test_large_logits_stay_finite():
    teacher, student = np.array([[1e4, -1e4, 0]]), np.array([[-1e4, 1e4, 0]])
    loss = kc.SoftTargets(temperature=1.0)(teacher, student)
    assert float(loss) == pytest.approx(2e4)
    loss = DecoupledTargets(temperature=1.0)((np.array([0]), teacher), student)
    assert np.isfinite(float(loss))


@pytest.mark.parametrize(
    "objective",
    [
        kc.SoftTargets(temperature=7.0, weight=0.3, from_logits=False, output="a"),
        DecoupledTargets(0.5, 6.0, 2.0, 0.4, warmup_epochs=3),
        RelationalTargets(2.0, 3.0, 5.0, 0.2),
        MeanSquaredTargets(weight=2.0, output=1),
    ],
    ids=lambda objective: objective.name,
)
def test_the_config_makes_the_same_objective(objective):
    config = keras.saving.serialize_keras_object(objective)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(objective)
    assert again.get_config() == objective.get_config()
    assert len(again.get_config()) >= 3


@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        (kc.SoftTargets, {"temperature": 0}),
        (kc.SoftTargets, {"temperature": float("nan")}),
        (kc.SoftTargets, {"weight": -0.1}),
        (kc.SoftTargets, {"weight": "high"}),
        (kc.SoftTargets, {"from_logits": "yes"}),
        (DecoupledTargets, {"target_weight": -1}),
        (DecoupledTargets, {"non_target_weight": -1}),
        (DecoupledTargets, {"warmup_epochs": -1}),
        (RelationalTargets, {"inter_weight": -1}),
        (RelationalTargets, {"intra_weight": -1}),
        (MeanSquaredTargets, {"weight": -1}),
    ],
)
def test_wrong_arguments_are_named(make, arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        make(**arguments)


@pytest.mark.parametrize(
    "objective", [kc.SoftTargets(), RelationalTargets(), MeanSquaredTargets()]
)
def test_other_shapes_are_refused(objective):
    with pytest.raises(ValueError, match="same shape"):
        objective(np.zeros((2, 3)), np.zeros((2, 4)))


def test_labels_of_another_shape_are_refused():
    outputs = np.zeros((6, 10))
    with pytest.raises(ValueError, match="class of every example as label"):
        DecoupledTargets()((np.zeros((6, 4)), outputs), outputs)


def test_one_unit_has_no_classes_to_compare():
    outputs = np.zeros((6, 1))
    for objective, targets in (
        (DecoupledTargets(), (np.zeros(6), outputs)),
        (RelationalTargets(), outputs),
    ):
        with pytest.raises(ValueError, match="2 or more classes"):
            objective(targets, outputs)
