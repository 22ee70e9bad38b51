"""Scores from gradients against calculations by hand."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_compress as kc

RATE, STEPS, BATCH = 0.05, 4, 8


def net():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(3, use_bias=False)])
    model.compile(keras.optimizers.SGD(RATE), "mse")
    return model


def data():
    random = np.random.default_rng(0)
    x = random.normal(size=(STEPS * BATCH, 6)).astype("float32")
    return x, random.normal(size=(STEPS * BATCH, 3)).astype("float32")


def by_hand(w, score):
    """The kernel and scores after all steps of plain gradient descent."""
    total = np.zeros_like(w)
    x, y = data()
    for k in range(0, len(x), BATCH):
        bx, by = x[k : k + BATCH], y[k : k + BATCH]
        g = 2 * bx.T @ (bx @ w - by) / by.size
        total += score(w, g)
        w = w - RATE * g
    return w, total


@pytest.mark.parametrize("optimizer", ["plain", "loss_scale"])
@pytest.mark.parametrize(
    ("criterion", "score"),
    [
        ("taylor", lambda w, g: np.abs(w * g)),
        ("movement", lambda w, g: -w * g),
    ],
)
def test_weights_of_the_best_scores_are_kept(criterion, score, optimizer):
    model = net()
    if optimizer == "loss_scale":
        inner = keras.optimizers.SGD(RATE)
        model.compile(keras.optimizers.LossScaleOptimizer(inner), "mse")
    w, total = by_hand(np.array(model.layers[0].kernel, "float64"), score)
    expected = np.where(total >= np.sort(total, axis=None)[9], w, 0)
    schedule = kc.ConstantSparsity(0.5, begin_step=STEPS)
    pruning = kc.MagnitudePruning(schedule, criterion=criterion)
    model.fit(*data(), BATCH, shuffle=False, verbose=0, callbacks=[pruning])
    np.testing.assert_allclose(model.layers[0].kernel, expected, rtol=1e-4, atol=1e-6)
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    assert "apply" not in vars(optimizer)


def test_the_first_masks_are_made_after_the_first_step():
    model = net()
    counts = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda b, logs: counts.append(
            np.count_nonzero(model.layers[0].kernel)
        )
    )
    pruning = kc.MagnitudePruning(0.5, criterion="taylor")
    model.fit(*data(), BATCH, verbose=0, callbacks=[pruning, watch])
    assert counts == [9] * STEPS


def test_gradients_of_two_replicas_are_summed(two_replicas):
    kernels = []
    for strategy in (None, two_replicas):
        keras.utils.set_random_seed(0)
        if strategy:
            with strategy.scope():
                model = net()
        else:
            model = net()
        schedule = kc.ConstantSparsity(0.5, begin_step=STEPS)
        pruning = kc.MagnitudePruning(schedule, criterion="movement")
        model.fit(*data(), BATCH, shuffle=False, verbose=0, callbacks=[pruning])
        kernels.append(keras.ops.convert_to_numpy(model.layers[0].kernel))
    np.testing.assert_allclose(*kernels, rtol=1e-4, atol=1e-6)
    assert np.count_nonzero(kernels[1]) == 9
