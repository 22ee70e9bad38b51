"""Features in training: the same forward pass, on any model, and nothing left."""

import gc

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_compress as kc
from keras_compress.distillation.feature_match import FeatureMatch
from keras_compress.distillation.feature_objectives import (
    AttentionTransfer,
    SimilarityPreserving,
)

X = np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype("float32")
Y = np.random.default_rng(1).integers(0, 4, 16).astype("int32")


def sequential(seed, width=5):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(width, 3, padding="same", activation="relu", name="conv"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4, name="head"),
        ]
    )


def functional(seed, width=5):
    model = sequential(seed, width)
    return keras.Model(model.inputs, model.outputs)


def nested(seed, width=5):
    keras.utils.set_random_seed(seed)
    body = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(width, 3, padding="same", activation="relu", name="conv"),
        ],
        name="body",
    )
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            body,
            layers.GlobalAveragePooling2D(),
            layers.Dense(4, name="head"),
        ]
    )


class Subclassed(keras.Model):
    def __init__(self, width=5):
        super().__init__()
        self.blocks = [
            layers.Conv2D(width, 3, padding="same", activation="relu", name="conv"),
            layers.GlobalAveragePooling2D(),
        ]
        self.head = layers.Dense(4, name="head")

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def subclassed(seed, width=5):
    keras.utils.set_random_seed(seed)
    model = Subclassed(width)
    model(X[:1])
    return model


MODELS = [sequential, functional, nested, subclassed]


def conv_of(model):
    """What "conv" returns, from its weights alone."""
    kernel, bias = model.get_weights()[:2]
    return np.maximum(keras.ops.conv(X, kernel, padding="same") + bias, 0)


def compiled(model, optimizer=None, **options):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or keras.optimizers.SGD(0.0), loss, **options)
    return model


def fit(student, teacher, objectives, student_loss_weight=0.0, **options):
    callback = kc.Distillation(teacher, objectives, student_loss_weight)
    options = {"batch_size": 16, "verbose": 0} | options
    return student.fit(X, Y, callbacks=[callback], **options).history


@pytest.mark.parametrize("teacher", MODELS)
@pytest.mark.parametrize("student", MODELS)
def test_features_of_any_kind_of_model_are_compared(teacher, student):
    teacher, student = teacher(1), compiled(student(2))
    history = fit(student, teacher, FeatureMatch("conv", "conv"))
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
        [AttentionTransfer(("conv", "conv")), SimilarityPreserving(("conv", "conv"))],
    )
    expected = 1000 * float(AttentionTransfer(("a", "b"))(t, s))
    expected += 3000 * float(SimilarityPreserving(("a", "b"))(t, s))
    assert history["distillation_loss"][0] == pytest.approx(expected, rel=1e-3)


def adapted(width, student):
    """The adaptor's first kernel, and what it makes of the features."""
    kernel = keras.initializers.GlorotUniform(seed=0)((5, width))
    return student @ np.asarray(kernel)


@pytest.mark.parametrize(
    "options",
    [{}, {"run_eagerly": True}, {"jit_compile": True}, {"steps_per_execution": 2}],
    ids=["graph", "eager", "jit", "steps_per_execution"],
)
@pytest.mark.parametrize("student", [sequential, subclassed])
def test_an_adaptor_learns_along_where_widths_differ(student, options):
    teacher, student = sequential(1, 7), compiled(student(2), **options)
    t, s = conv_of(teacher), conv_of(student)
    objective = FeatureMatch("conv", "conv", learning_rate=0.01)
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
    fit(student, teacher, FeatureMatch("conv", "conv"))
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
    callback = kc.Distillation(teacher, FeatureMatch("conv", "conv"))
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
    history = fit(student, teacher, FeatureMatch("conv", "conv"), epochs=2)
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
    callback = kc.Distillation(teacher, FeatureMatch("conv", "conv"))
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
            FeatureMatch("norm", "conv", weight=0.0),
            SimilarityPreserving(("conv", "conv"), weight=0.0),
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
    objective = FeatureMatch(student.layers[0], teacher.layers[0].layers[0])
    history = fit(student, teacher, objective)
    expected = np.mean((conv_of(teacher) - conv_of(student)) ** 2)
    assert history["distillation_loss"][0] == pytest.approx(expected, rel=1e-4)


def test_a_whole_nested_model_is_a_layer():
    teacher, student = nested(1), compiled(sequential(2))
    history = fit(student, teacher, FeatureMatch("conv", "body"))
    expected = np.mean((conv_of(teacher) - conv_of(student)) ** 2)
    assert history["distillation_loss"][0] == pytest.approx(expected, rel=1e-4)


def test_a_teacher_that_shares_layers_with_the_student_is_read_apart():
    student = compiled(sequential(2))
    body = keras.Model(student.inputs, student.layers[0].output)
    objective = FeatureMatch("conv", "conv")
    history = fit(student, body, objective)
    assert history["distillation_loss"][0] == 0


def test_a_teacher_with_other_classes_may_teach_features():
    keras.utils.set_random_seed(1)
    teacher = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(5, 3, padding="same", name="c")]
    )
    assert (
        fit(compiled(sequential(2)), teacher, FeatureMatch("conv", "c"))["loss"][0] > 0
    )


def test_stored_features_teach_as_the_teachers_own(tmp_path):
    teacher = sequential(1)
    cache = kc.TeacherCache.build(
        teacher, X, tmp_path / "t", dtype="float32", feature_layers=["conv"], verbose=0
    )
    objectives = [FeatureMatch("conv", "conv"), kc.SoftTargets()]
    own = fit(compiled(sequential(2)), teacher, objectives)
    stored = fit(compiled(sequential(2)), cache, objectives)
    received, expected = (h["distillation_loss"][0] for h in (stored, own))
    assert received == pytest.approx(expected, rel=1e-5)


def test_attached_features_teach_under_xla(tmp_path):
    teacher = sequential(1)
    cache = kc.TeacherCache.build(
        teacher, X, tmp_path / "t", dtype="float32", feature_layers=["conv"], verbose=0
    )
    objectives = [FeatureMatch("conv", "conv"), kc.SoftTargets()]
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
        FeatureMatch("conv", "conv"),
        epochs=2,
        validation_data=(X, Y),
        batch_size=12,
    )
    expected = np.mean((conv_of(teacher) - conv_of(student)) ** 2)
    assert history["distillation_loss"] == pytest.approx([expected] * 2, rel=1e-4)


class Fails(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise RuntimeError("stop here")


def taps_on(*models):
    return [m.name for m in models for m in [m, *m.layers] if "call" in vars(m)]


def test_nothing_is_left_on_the_models_after_fit():
    teacher, student = sequential(1, 7), compiled(sequential(2))
    student.fit(X, Y, verbose=0)
    before = [set(vars(layer)) for m in (teacher, student) for layer in [m, *m.layers]]
    objectives = [FeatureMatch("conv", "conv"), AttentionTransfer(("conv", "conv"))]
    fit(student, teacher, objectives)
    after = [set(vars(layer)) for m in (teacher, student) for layer in [m, *m.layers]]
    assert after == before


def test_two_callbacks_tap_the_same_layer_and_both_leave():
    teachers, student = (sequential(1), sequential(3)), compiled(sequential(2))
    callbacks = [
        kc.Distillation(t, FeatureMatch("conv", "conv"), 0.0) for t in teachers
    ]
    history = student.fit(X, Y, batch_size=16, callbacks=callbacks, verbose=0).history
    expected = sum(np.mean((conv_of(t) - conv_of(student)) ** 2) for t in teachers)
    assert history["loss"][0] == pytest.approx(expected, rel=1e-4)
    assert taps_on(student, *teachers) == []


def test_taps_go_when_the_step_fails():
    student, teacher = compiled(sequential(2)), sequential(1)
    with pytest.raises(ValueError, match="as many axes"):
        fit(student, teacher, FeatureMatch("conv", "head"))
    assert taps_on(student, teacher) == []


def test_taps_go_at_the_next_fit_after_a_crash_elsewhere():
    student, teacher = compiled(sequential(2)), sequential(1)
    callbacks = [kc.Distillation(teacher, FeatureMatch("conv", "conv")), Fails()]
    with pytest.raises(RuntimeError, match="stop here"):
        student.fit(X, Y, callbacks=callbacks, verbose=0)
    student.fit(X, Y, verbose=0)
    assert taps_on(student, teacher) == []
    assert not [name for name in vars(student) if "keras_compress" in name]


def test_the_same_callback_distils_again_after_a_crash():
    student, teacher = compiled(sequential(2)), sequential(1)
    callback = kc.Distillation(teacher, FeatureMatch("conv", "conv"), 0.0)
    with pytest.raises(RuntimeError, match="stop here"):
        student.fit(X, Y, callbacks=[callback, Fails()], verbose=0)
    history = student.fit(X, Y, batch_size=16, callbacks=[callback], verbose=0).history
    expected = np.mean((conv_of(teacher) - conv_of(student)) ** 2)
    assert history["loss"][0] == pytest.approx(expected, rel=1e-4)
    assert taps_on(student, teacher) == []


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (FeatureMatch("convv", "conv"), r"no layer 'convv'. Close matches: \['conv'\]"),
        (FeatureMatch("conv", "dense"), "no layer 'dense'"),
        (FeatureMatch(layers.Dense(1, name="x"), "conv"), "Layer 'x' is not in"),
    ],
)
def test_unknown_layers_are_refused_before_training(objective, message):
    student = compiled(sequential(2))
    with pytest.raises(ValueError, match=message):
        fit(student, sequential(1), objective)
    assert taps_on(student) == []


def test_a_function_has_no_layers():
    with pytest.raises(ValueError, match="has no layers"):
        fit(compiled(sequential(2)), lambda x: x, FeatureMatch("conv", "conv"))


def test_a_cache_without_the_features_is_refused(tmp_path):
    cache = kc.TeacherCache.build(sequential(1), X, tmp_path / "t", verbose=0)
    with pytest.raises(ValueError, match=r"feature_layers=\['conv'\]"):
        fit(compiled(sequential(2)), cache, FeatureMatch("conv", "conv"))


def test_a_layer_that_is_called_twice_is_refused():
    conv = layers.Conv2D(3, 3, padding="same", name="conv")
    x = keras.Input((8, 8, 3))
    pooled = layers.GlobalAveragePooling2D()(conv(conv(x)))
    student = compiled(keras.Model(x, layers.Dense(4)(pooled)))
    with pytest.raises(ValueError, match="2 calls"):
        fit(student, sequential(1), FeatureMatch("conv", "conv"))


def test_two_layers_of_one_name_are_refused():
    keras.utils.set_random_seed(0)
    parts = [
        keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(3, 1, name="conv")])
        for _ in range(2)
    ]
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), *parts, layers.Flatten(), layers.Dense(4)]
    )
    with pytest.raises(ValueError, match="2 layers of the model"):
        fit(compiled(model), sequential(1), FeatureMatch("conv", "conv"))


@pytest.mark.slow
def test_twenty_fits_leave_no_object_behind():
    teacher, student = sequential(1, 7), compiled(sequential(2))
    objectives = [FeatureMatch("conv", "conv"), kc.SoftTargets(), kc.DecoupledTargets()]
    callback = kc.Distillation(teacher, objectives)

    def count():
        gc.collect()
        variables = (keras.Variable, tf.Variable, keras.Optimizer)
        return sum(issubclass(type(o), variables) for o in gc.get_objects())

    counts = []
    for _ in range(20):
        student.fit(X[:4], Y[:4], callbacks=[callback], verbose=0)
        counts.append(count())
    assert counts[-1] <= counts[1]
