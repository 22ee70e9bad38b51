"""What a fit with pruning leaves behind, and how it is taken up again."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_compress as kc

from .small_net import BATCH, STEPS, data, expected, fit, kept, kernels, net


def test_the_users_constraint_holds_beside_the_mask_and_comes_back():
    constraint = keras.constraints.NonNeg()
    model = net(kernel_constraint=constraint)
    model.compile("adam", "mse")
    watch = fit(model, kc.MagnitudePruning(0.7))
    assert all(np.min(step[0]) >= 0 for step in watch.kernels)
    assert max(counts[0] for counts in watch.kept) <= round(108 * 0.3)
    assert model.get_layer("conv").kernel.constraint is constraint
    assert model.get_layer("scores").kernel.constraint is None
    assert any(fit(model).kept[-1][k] > expected(model, 0.7)[k] for k in (1, 2, 3))


@pytest.mark.parametrize("in_step", [True, False])
def test_an_interrupted_fit_leaves_the_users_constraints(in_step):
    class Crash(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 4:
                raise InterruptedError

    def bad():
        x, y = data()
        for k in range(0, 40, BATCH):
            yield x[k : k + BATCH], y[k : k + BATCH]
        raise InterruptedError

    model = net(kernel_constraint="non_neg")
    model.compile("adam", "mse")
    constraint = model.get_layer("conv").kernel.constraint
    pruning = kc.MagnitudePruning(0.7)
    with pytest.raises((InterruptedError, tf.errors.OpError)):
        if in_step:
            options = {"steps_per_epoch": 12, "shuffle": False, "verbose": 0}
            model.fit(bad(), callbacks=[pruning], **options)
        else:
            fit(model, pruning, Crash())
    if in_step:
        assert model.get_layer("conv").kernel.constraint is constraint
    x, y = data()
    for _ in range(3):  # The first has no gradient where a channel is zero.
        model.train_on_batch(x, y)
    assert model.get_layer("conv").kernel.constraint is constraint
    assert kept(model)[1:] == [k.size for k in kernels(model)[1:]]
    assert "make_train_function" not in vars(model)


def test_the_saved_file_is_plain_keras(tmp_path):
    model = net(kernel_constraint="non_neg")
    model.compile("adam", "mse")
    saved = []
    save = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: saved.append(model.save(tmp_path / "m.keras"))
    )
    fit(model, kc.MagnitudePruning(0.7), save)
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert kept(loaded) == kept(model)
    config = loaded.get_layer("conv").get_config()["kernel_constraint"]
    assert config["class_name"] == "NonNeg"
    assert "keras_compress" not in loaded.to_json()


def test_keep_holds_the_zeros_of_a_sparse_model(tmp_path):
    model = net()
    model.compile("adam", "mse")
    fit(model, kc.MagnitudePruning(0.7))
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    before = kernels(loaded)
    watch = fit(loaded, kc.MagnitudePruning("keep"))
    for step in watch.kernels:
        for old, new in zip(before, step, strict=True):
            np.testing.assert_array_equal(old == 0, new == 0)
    assert not np.array_equal(before[0], watch.kernels[-1][0])
    assert sum(fit(loaded).kept[-1]) > sum(watch.kept[-1])


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("steps", [(2, 20), (0.1, 0.9)])
def test_a_resumed_fit_goes_on_exactly(order, steps, tmp_path):
    class Kill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise InterruptedError

    def train(*more):
        keras.utils.set_random_seed(1)
        model = net()
        model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse")
        schedule = kc.PolynomialDecay(0.3, 0.8, *steps, frequency=3)
        callbacks = [*more[:1], kc.MagnitudePruning(schedule)][::order]
        return fit(model, *callbacks, *more[1:], epochs=2)

    whole = train()
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(InterruptedError):
        train(backup, Kill())
    resumed = train(keras.callbacks.BackupAndRestore(tmp_path / "backup"))
    assert len(resumed.kernels) == STEPS
    for old, new in zip(whole.kernels[STEPS:], resumed.kernels, strict=True):
        for a, b in zip(old, new, strict=True):
            np.testing.assert_array_equal(a, b)


def test_two_callbacks_prune_different_layers():
    model = net()
    model.compile("adam", "mse")
    dense = kc.MagnitudePruning(0.9, layers=lambda x: isinstance(x, layers.Dense))
    conv = kc.MagnitudePruning(0.5, layers=lambda x: x.name == "conv")
    fit(model, dense, conv)
    assert kept(model) == [54, 36, 16, 2]
    assert not any(v.constraint for v in model.weights)
    with pytest.raises(ValueError, match=r"conv/kernel' is pruned by another"):
        fit(model, kc.MagnitudePruning(0.5), conv)
    fit(model)
    assert not any(v.constraint for v in model.weights)
