"""Zeros after every step, in every way that Keras trains."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_compress as kc

from .small_net import BATCH, STEPS, data, expected, fit, kept, kernels, net

OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.01, momentum=0.9),
    "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
    "accumulation": lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=3),
    "ema": lambda: keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.7),
    "ema_overwrite": lambda: keras.optimizers.SGD(
        0.01, use_ema=True, ema_momentum=0.7, ema_overwrite_frequency=2
    ),
    "loss_scale": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(0.01)
    ),
}
MODES = {
    "graph": {},
    "eager": {"run_eagerly": True},
    "jit": {"jit_compile": True},
    "several_steps": {"steps_per_execution": 4},
}


@pytest.mark.parametrize(
    ("optimizer", "mode"),
    [*(("sgd", mode) for mode in MODES), ("adamw", "jit"), ("ema", "several_steps")],
)
def test_zeros_are_exact_after_every_step(optimizer, mode):
    model = net()
    model.compile(OPTIMIZERS[optimizer](), "mse", **MODES[mode])
    schedule = kc.ConstantSparsity(0.7, frequency=3)
    watch = fit(model, kc.MagnitudePruning(schedule))
    assert watch.kept == [expected(model, 0.7)] * len(watch.kept)
    assert kept(model) == expected(model, 0.7)
    first, last = watch.kernels[0], watch.kernels[-1]
    assert not any(np.array_equal(a, b) for a, b in zip(first, last, strict=True))


@pytest.mark.parametrize(
    "optimizer", ["adamw", "accumulation", "ema", "ema_overwrite", "loss_scale"]
)
def test_zeros_are_exact_with_any_optimizer(optimizer):
    model = net()
    model.compile(OPTIMIZERS[optimizer](), "mse")
    watch = fit(model, kc.MagnitudePruning(0.7))
    assert watch.kept == [expected(model, 0.7)] * STEPS
    assert kept(model) == expected(model, 0.7)


def test_zeros_are_exact_in_half_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = net()
        model.compile(OPTIMIZERS["sgd"](), "mse")
        assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        watch = fit(model, kc.MagnitudePruning(0.7))
    finally:
        keras.config.set_dtype_policy("float32")
    assert watch.kept == [expected(model, 0.7)] * STEPS


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "ema", "loss_scale"])
def test_zeros_are_exact_on_two_replicas(two_replicas, optimizer):
    with two_replicas.scope():
        model = net()
        model.compile(OPTIMIZERS[optimizer](), "mse")
    schedule = kc.ConstantSparsity(0.7, frequency=3)
    watch = fit(model, kc.MagnitudePruning(schedule))
    assert watch.kept == [expected(model, 0.7)] * STEPS
    for variable in model.weights:
        first, second = two_replicas.experimental_local_results(variable.value)
        np.testing.assert_array_equal(first, second)


def test_the_averages_of_weights_are_masked_too():
    model = net()
    model.compile(OPTIMIZERS["ema"](), "mse")
    seen = []
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(kept(model))
    )
    fit(model, kc.MagnitudePruning(0.7), swap, watch, epochs=3)
    assert seen == [expected(model, 0.7)] * 3


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.blocks = [layers.Dense(12, activation="relu") for _ in range(2)]
        self.heads = {"out": layers.Dense(2)}

    def call(self, x):
        x = ops.reshape(x, (-1, 108))
        for block in self.blocks:
            x = block(x)
        return self.heads["out"](x)


@pytest.mark.parametrize("built", [True, False])
def test_a_subclassed_model_is_pruned(built):
    model = Subclassed()
    if built:
        model(data()[0][:1])
    model.compile("adam", "mse")
    watch = fit(model, kc.MagnitudePruning(0.7))
    # By hand: 30 % of 108 * 12, 12 * 12 and 12 * 2 weights.
    assert watch.kept == [[389, 43, 7]] * STEPS


def test_a_model_with_its_own_train_step_is_pruned():
    class Own(keras.Sequential):
        def train_step(self, batch):
            x, y = batch
            with tf.GradientTape() as tape:
                loss = ops.mean((self(x, training=True) - y) ** 2)
            variables = self.trainable_variables
            self.optimizer.apply(tape.gradient(loss, variables), variables)
            return {"loss": loss}

    model = Own(net().layers)
    model.compile("adam")
    watch = fit(model, kc.MagnitudePruning(0.7))
    assert watch.kept == [expected(model, 0.7)] * STEPS


def test_the_same_weights_learn_as_if_multiplied_by_the_mask():
    """By hand: gradient descent on w * mask, the mask of the first step."""
    x, y = data()
    x = x.reshape(len(x), -1)
    model = keras.Sequential([keras.Input((108,)), layers.Dense(2, use_bias=False)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    w = np.array(model.layers[0].kernel, "float64")
    mask = np.abs(w) >= np.sort(np.abs(w), axis=None)[-65]  # 0.3 * 216 = 64.8
    w *= mask
    for k in range(0, len(x), BATCH):
        bx, by = x[k : k + BATCH], y[k : k + BATCH]
        w -= mask * 0.1 * (bx.T @ (bx @ w - by)) * 2 / by.size
    model.fit(
        *(x, y, BATCH),
        shuffle=False,
        verbose=0,
        callbacks=[kc.MagnitudePruning(0.7)],
    )
    np.testing.assert_allclose(model.layers[0].kernel, w, rtol=1e-4, atol=1e-6)


def test_the_sparsity_follows_the_schedule_and_reaches_its_end():
    model = net()
    model.compile("adam", "mse")
    schedule = kc.PolynomialDecay(0.2, 0.8, 2, 9, power=3, frequency=3)
    watch = fit(model, kc.MagnitudePruning(schedule))
    # Updates at 2, 5, 8 and 9; by hand with (1 - t)^3.
    values = {2: 0.2, 5: 0.8 - 0.6 * (4 / 7) ** 3, 8: 0.8 - 0.6 / 343, 9: 0.8}
    sparsity = [max((s for s in values if s <= step), default=0) for step in range(13)]
    dense = [kernel.size for kernel in kernels(model)]
    for step, counts in enumerate(watch.kept, start=1):
        last = sparsity[step]
        assert counts == (expected(model, values[last]) if last else dense)


def test_a_share_of_the_fit_is_in_steps_of_this_fit():
    model = net()
    model.compile("adam", "mse")
    fit(model)
    schedule = kc.PolynomialDecay(0.0, 0.8, 0.5, 0.75, frequency=1)
    watch = fit(model, kc.MagnitudePruning(schedule), epochs=2)
    dense = [kernel.size for kernel in kernels(model)]
    assert watch.kept[: STEPS - 1] == [dense] * (STEPS - 1)
    assert watch.kept[STEPS] != dense
    assert watch.kept[STEPS + 4] != expected(model, 0.8)
    assert watch.kept[STEPS + 5 :] == [expected(model, 0.8)] * 7


def test_weights_come_back_until_the_schedule_ends():
    """One weight of two is pruned; the gradient makes it larger than the other."""
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1, use_bias=False)])
    model.layers[0].kernel.assign([[0.1], [0.2]])
    model.compile(keras.optimizers.SGD(0.5), "mse")
    x, y = np.array([[1.0, 0.0]] * 6), np.ones((6, 1))
    masks = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda b, logs: masks.append(
            (np.array(model.layers[0].kernel)[:, 0] != 0).tolist()
        )
    )

    def train(end):
        schedule = kc.ConstantSparsity(0.5, end_step=end, frequency=3)
        callbacks = [kc.MagnitudePruning(schedule), watch]
        masks.clear()
        model.fit(x, y, batch_size=1, verbose=0, callbacks=callbacks)
        return list(masks)

    # w0 = 0 - 0.5 * 2 * (0 - 1) = 1 after any step, but only at step 3 it may stay.
    assert train(end=-1) == [[False, True]] * 2 + [[True, False]] * 4
    model.layers[0].kernel.assign([[0.1], [0.2]])
    model.optimizer.iterations.assign(0)
    assert train(end=0) == [[False, True]] * 6


def test_the_logs_have_the_sparsity_of_each_epoch(tmp_path):
    model = net()
    model.compile("adam", "mse")
    x, y = data()
    schedule = kc.PolynomialDecay(0.0, 0.8, 0, 24, frequency=12)
    pruning = kc.MagnitudePruning(schedule)
    history = model.fit(x, y, BATCH, epochs=2, verbose=0, callbacks=[pruning])
    sizes = np.array([kernel.size for kernel in kernels(model)])
    rounded = [[round(n * (1 - s)) for n in sizes] for s in (0.7, 0.8)]
    shares = [1 - sum(counts) / sizes.sum() for counts in rounded]
    np.testing.assert_allclose(history.history["sparsity"], shares, atol=1e-9)
    assert kc.sparsity(model) == pytest.approx(shares[1])
    assert [row.nonzero for row in pruning.report.kernels] == rounded[1]
    assert pruning.report.sparsity == pytest.approx(shares[1])
    assert "depthwise/kernel" in str(pruning.report)


def test_one_threshold_for_the_whole_model():
    model = net()
    model.compile("sgd", "mse")
    flat = np.concatenate([k.ravel() for k in kernels(model)])
    threshold = np.sort(np.abs(flat))[-round(flat.size * 0.1)]
    counts = [np.count_nonzero(np.abs(k) >= threshold) for k in kernels(model)]
    schedule = kc.ConstantSparsity(0.9, end_step=0)
    fit(model, kc.MagnitudePruning(schedule, scope="model"))
    assert kept(model) == counts
    assert sum(counts) == round(flat.size * 0.1)


def test_no_layer_is_sparser_than_the_cap():
    model = net()
    model.compile("sgd", "mse")
    model.get_layer("conv").kernel.assign(model.get_layer("conv").kernel * 1e-3)
    fit(model, kc.MagnitudePruning(0.9, scope="model", max_layer_sparsity=0.95))
    sizes = [kernel.size for kernel in kernels(model)]
    assert kept(model)[0] == 5  # 108 * 0.05
    assert sum(kept(model)) == round(sum(sizes) * 0.1)
