"""Distillation beside pruning and quantization-aware training, and resumed."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_compress as kc

X = np.random.default_rng(0).normal(size=(32, 6, 6, 3)).astype("float32")
Y = np.random.default_rng(1).integers(0, 4, 32).astype("int32")


def model(seed, width):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            layers.Conv2D(width, 3, activation="relu", name="conv"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4, name="head"),
        ]
    )


def compiled(student):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    student.compile(keras.optimizers.Adam(0.01), loss)
    return student


def distillation():
    objectives = [
        kc.SoftTargets(weight=kc.LinearValue(0.9, 0.1)),
        kc.FeatureMatch("conv", "conv"),
        kc.SimilarityPreserving(("conv", "conv"), weight=1.0),
    ]
    return kc.Distillation(model(1, 7), objectives)


def test_pruning_in_either_order_gives_the_same_sparse_student():
    students = []
    for place in (0, 1):
        student = compiled(model(2, 5))
        callbacks = [distillation()]
        callbacks.insert(place, kc.MagnitudePruning(kc.ConstantSparsity(0.5)))
        history = student.fit(
            X, Y, epochs=3, callbacks=callbacks, shuffle=False, verbose=0
        ).history
        assert history["distillation_loss"][-1] < history["distillation_loss"][0]
        assert kc.sparsity(student) == pytest.approx(0.5, abs=0.01)
        assert not [name for name in vars(student) if "keras_compress" in name]
        students.append(student)
    for first, second in zip(*(s.get_weights() for s in students), strict=True):
        np.testing.assert_allclose(first, second, atol=1e-6)


def test_a_quantize_aware_student_learns_from_outputs_and_features():
    student = compiled(kc.quantize_aware(model(2, 5), calibration_data=X))
    callbacks = [distillation(), kc.MagnitudePruning(kc.ConstantSparsity(0.5))]
    history = student.fit(X, Y, epochs=4, callbacks=callbacks, verbose=0).history
    assert history["distillation_loss"][-1] < history["distillation_loss"][0]
    stripped = kc.strip(student)
    assert kc.sparsity(stripped) == pytest.approx(0.5, abs=0.01)
    assert [layer.name for layer in stripped.layers if "adaptor" in layer.name] == []


class Stops(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


def test_a_fit_resumed_by_backup_and_restore_ends_as_one_that_ran_through(tmp_path):
    """Schedules and warm-ups go on where they were."""

    def callbacks(folder):
        objectives = [
            kc.SoftTargets(weight=kc.LinearValue(0.9, 0.1)),
            kc.DecoupledTargets(warmup_epochs=4),
            kc.AttentionTransfer(("conv", "conv"), weight=1.0),
        ]
        backup = keras.callbacks.BackupAndRestore(tmp_path / folder)
        return [backup, kc.Distillation(model(1, 7), objectives)]

    options = {"epochs": 4, "shuffle": False, "verbose": 0}
    through = compiled(model(2, 5))
    through.fit(X, Y, callbacks=callbacks("through"), **options)
    student = compiled(model(2, 5))
    with pytest.raises(KeyboardInterrupt):
        student.fit(X, Y, callbacks=[*callbacks("cut"), Stops()], **options)
    student = compiled(model(3, 5))
    student.fit(X, Y, callbacks=callbacks("cut"), **options)
    for received, expected in zip(
        student.get_weights(), through.get_weights(), strict=True
    ):
        np.testing.assert_allclose(received, expected, atol=1e-6)


def test_soft_targets_equal_keras_own_where_that_is_right():
    """Its default loss is another; with `KLDivergence()` the formula is the same."""
    teacher, student = model(1, 7), model(2, 5)
    reference = keras.distillation.LogitsDistillation(
        loss=keras.losses.KLDivergence(), temperature=3.0
    )
    t, s = teacher(X), student(X)
    expected = float(reference.compute_loss(t, s))
    received = float(kc.SoftTargets(temperature=3.0)(t, s))
    assert received == pytest.approx(expected, rel=1e-4)
