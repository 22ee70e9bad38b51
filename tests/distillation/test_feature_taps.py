"""What reads features leaves nothing, and says what it cannot read."""

import gc

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_compress as kc

from .feature_nets import (
    Fails,
    X,
    Y,
    compiled,
    conv_of,
    fit,
    sequential,
    taps_on,
)


def test_nothing_is_left_on_the_models_after_fit():
    teacher, student = sequential(1, 7), compiled(sequential(2))
    student.fit(X, Y, verbose=0)
    before = [set(vars(layer)) for m in (teacher, student) for layer in [m, *m.layers]]
    objectives = [
        kc.FeatureMatch("conv", "conv"),
        kc.AttentionTransfer(("conv", "conv")),
    ]
    fit(student, teacher, objectives)
    after = [set(vars(layer)) for m in (teacher, student) for layer in [m, *m.layers]]
    assert after == before


def test_two_callbacks_tap_the_same_layer_and_both_leave():
    teachers, student = (sequential(1), sequential(3)), compiled(sequential(2))
    callbacks = [
        kc.Distillation(t, kc.FeatureMatch("conv", "conv"), 0.0) for t in teachers
    ]
    history = student.fit(X, Y, batch_size=16, callbacks=callbacks, verbose=0).history
    expected = sum(np.mean((conv_of(t) - conv_of(student)) ** 2) for t in teachers)
    assert history["loss"][0] == pytest.approx(expected, rel=1e-4)
    assert taps_on(student, *teachers) == []


def test_taps_go_when_the_step_fails():
    student, teacher = compiled(sequential(2)), sequential(1)
    with pytest.raises(ValueError, match="as many axes"):
        fit(student, teacher, kc.FeatureMatch("conv", "head"))
    assert taps_on(student, teacher) == []


def test_taps_go_at_the_next_fit_after_a_crash_elsewhere():
    student, teacher = compiled(sequential(2)), sequential(1)
    callbacks = [kc.Distillation(teacher, kc.FeatureMatch("conv", "conv")), Fails()]
    with pytest.raises(RuntimeError, match="stop here"):
        student.fit(X, Y, callbacks=callbacks, verbose=0)
    student.fit(X, Y, verbose=0)
    assert taps_on(student, teacher) == []
    assert not [name for name in vars(student) if "keras_compress" in name]


def test_the_same_callback_distils_again_after_a_crash():
    student, teacher = compiled(sequential(2)), sequential(1)
    callback = kc.Distillation(teacher, kc.FeatureMatch("conv", "conv"), 0.0)
    with pytest.raises(RuntimeError, match="stop here"):
        student.fit(X, Y, callbacks=[callback, Fails()], verbose=0)
    history = student.fit(X, Y, batch_size=16, callbacks=[callback], verbose=0).history
    expected = np.mean((conv_of(teacher) - conv_of(student)) ** 2)
    assert history["loss"][0] == pytest.approx(expected, rel=1e-4)
    assert taps_on(student, teacher) == []


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (
            kc.FeatureMatch("convv", "conv"),
            r"no layer 'convv'. Close matches: \['conv'\]",
        ),
        (kc.FeatureMatch("conv", "dense"), "no layer 'dense'"),
        (kc.FeatureMatch(layers.Dense(1, name="x"), "conv"), "Layer 'x' is not in"),
    ],
)
def test_unknown_layers_are_refused_before_training(objective, message):
    student = compiled(sequential(2))
    with pytest.raises(ValueError, match=message):
        fit(student, sequential(1), objective)
    assert taps_on(student) == []


def test_a_function_has_no_layers():
    with pytest.raises(ValueError, match="has no layers"):
        fit(compiled(sequential(2)), lambda x: x, kc.FeatureMatch("conv", "conv"))


def test_a_cache_without_the_features_is_refused(tmp_path):
    cache = kc.TeacherCache.build(sequential(1), X, tmp_path / "t", verbose=0)
    with pytest.raises(ValueError, match=r"feature_layers=\['conv'\]"):
        fit(compiled(sequential(2)), cache, kc.FeatureMatch("conv", "conv"))


def test_a_layer_that_is_called_twice_is_refused():
    conv = layers.Conv2D(3, 3, padding="same", name="conv")
    x = keras.Input((8, 8, 3))
    pooled = layers.GlobalAveragePooling2D()(conv(conv(x)))
    student = compiled(keras.Model(x, layers.Dense(4)(pooled)))
    with pytest.raises(ValueError, match="2 calls"):
        fit(student, sequential(1), kc.FeatureMatch("conv", "conv"))


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
        fit(compiled(model), sequential(1), kc.FeatureMatch("conv", "conv"))


@pytest.mark.slow
def test_twenty_fits_leave_no_object_behind():
    teacher, student = sequential(1, 7), compiled(sequential(2))
    objectives = [
        kc.FeatureMatch("conv", "conv"),
        kc.SoftTargets(),
        kc.DecoupledTargets(),
    ]
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
