"""Which outputs are compared, whatever they end in, and by whose function."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_compress as kc
from keras_compress.distillation.decoupled import DecoupledTargets
from keras_compress.distillation.objectives import MeanSquaredTargets
from keras_compress.distillation.outputs import last_activations
from keras_compress.distillation.relational import RelationalTargets

# Keras' own, on a head that no objective and no compiled loss reaches.
unreached_heads = pytest.mark.filterwarnings("ignore:Gradients do not exist")

X = np.random.default_rng(0).normal(size=(16, 8)).astype("float32")
Y = np.random.default_rng(1).integers(0, 4, 16).astype("int32")


def softmax(logits):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def soft(teacher, student, temperature=4.0):
    t, s = softmax(teacher / temperature), softmax(student / temperature)
    return temperature**2 * np.mean(np.sum(t * np.log(t / s), axis=-1))


def classifier(seed, activation=None, units=4):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(units, activation=activation)]
    )


def two_headed(seed, classes=4):
    """Dict outputs: class scores and one number."""
    keras.utils.set_random_seed(seed)
    x = keras.Input((8,))
    outputs = {
        "scores": keras.layers.Dense(classes, name="scores")(x),
        "size": keras.layers.Dense(1, name="size")(x),
    }
    return keras.Model(x, outputs)


def distilled(student, teacher, objectives, y=Y, **options):
    """`distillation_loss` of the first step, in which the student does not move."""
    if not student.compiled:
        student.compile(keras.optimizers.SGD(0.0))
    callback = kc.Distillation(teacher, objectives, student_loss_weight=0.0, **options)
    history = student.fit(X, y, batch_size=16, callbacks=[callback], verbose=0)
    return history.history["distillation_loss"][0]


def logits(model, x=X):
    """Of a model of one Dense layer, whatever its activation."""
    return x @ np.asarray(model.layers[-1].kernel)


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
        MeanSquaredTargets(output="size", weight=0.5),
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
    objective = DecoupledTargets(output="scores", warmup_epochs=0)
    received = distilled(student, teacher, objective, y=y)
    expected = float(DecoupledTargets()((Y, t), s))
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
    objective = MeanSquaredTargets(output="size")
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
        distilled(student, classifier(2), DecoupledTargets(), y=None)
    assert "compute_loss" not in vars(student)


@pytest.mark.parametrize(
    ("epochs", "expected"), [(4, [0.25, 0.5, 0.75, 1.0]), (2, [0.5, 1, 1, 1])]
)
def test_the_weight_of_decoupled_targets_warms_up(epochs, expected):
    teacher, student = classifier(1), classifier(2)
    whole = float(DecoupledTargets()((Y, logits(teacher)), logits(student)))
    student.compile(keras.optimizers.SGD(0.0))
    callback = kc.Distillation(teacher, DecoupledTargets(warmup_epochs=epochs))
    history = student.fit(X, Y, epochs=4, callbacks=[callback], verbose=0).history
    assert history["distillation_loss"] == pytest.approx(
        [share * whole for share in expected], rel=1e-4
    )


def test_a_warm_up_that_is_resumed_goes_on():
    teacher, student = classifier(1), classifier(2)
    whole = float(DecoupledTargets()((Y, logits(teacher)), logits(student)))
    student.compile(keras.optimizers.SGD(0.0))
    callback = kc.Distillation(teacher, DecoupledTargets(warmup_epochs=4))
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
            DecoupledTargets(weight=0.2, warmup_epochs=0),
            RelationalTargets(weight=0.5),
            MeanSquaredTargets(weight=2.0),
            keras.losses.MeanAbsoluteError(),
        ],
    )
    expected = 0.3 * soft(t, s) + 0.2 * float(DecoupledTargets()((Y, t), s))
    expected += 0.5 * float(RelationalTargets()(t, s)) + 2 * np.mean((t - s) ** 2)
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
