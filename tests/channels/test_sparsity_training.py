"""The channels that count least shrink, as calculated by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_compress as kc
from keras_compress.channels.importance import GroupNorm

RATE, STRENGTH = 0.1, 0.01
WAYS = [{}, {"run_eagerly": True}, {"jit_compile": True}, {"steps_per_execution": 2}]


def build(width=6, regularizer=None, **options):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(width, name="first", kernel_regularizer=regularizer),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            layers.Dense(2, name="last"),
        ]
    )
    gamma = model.get_layer("norm").gamma
    gamma.assign(np.linspace(-1, 2, width))
    model.compile(keras.optimizers.SGD(RATE), "mse", **options)
    return model


def data(count=16):
    random = np.random.default_rng(0)
    return random.normal(size=(count, 4)), random.normal(size=(count, 2))


def weights(model):
    found = [model.get_layer("first").kernel, model.get_layer("norm").gamma]
    found.append(model.get_layer("last").kernel)
    return [keras.ops.convert_to_numpy(v).astype("float64") for v in found]


def one_step(model, *callbacks):
    x, y = data()
    history = model.fit(
        x, y, batch_size=16, verbose=0, shuffle=False, callbacks=list(callbacks)
    )
    return {k: v[0] for k, v in history.history.items()}


def added_by_hand(importance, kernel, gamma, head):
    """The penalty and its gradients."""
    if importance == "bn_scale":
        gradients = [0 * kernel, STRENGTH * np.sign(gamma), 0 * head]
        return STRENGTH * np.abs(gamma).sum(), gradients
    squares = (kernel**2).sum(0) + gamma**2 + (head**2).sum(1)
    norms = np.sqrt(squares)
    exponent = 4 * (norms.max() - norms) / (norms.max() - norms.min())
    strengths = STRENGTH * 2**exponent
    gradients = [kernel * strengths, gamma * strengths, head * strengths[:, None]]
    return (strengths * squares).sum() / 2, gradients


@pytest.mark.parametrize("options", WAYS, ids=lambda o: next(iter(o), "graph"))
@pytest.mark.parametrize("importance", ["group_l2", "bn_scale"])
def test_a_step_adds_the_gradients_calculated_by_hand(importance, options):
    plain, sparse = build(**options), build(**options)
    before = weights(sparse)
    loss = one_step(plain)["loss"]
    logs = one_step(sparse, kc.ChannelSparsity(STRENGTH, importance))
    penalty, gradients = added_by_hand(importance, *before)
    assert penalty > 0.01
    np.testing.assert_allclose(logs["loss"], loss + penalty, rtol=1e-5)
    for other, mine, gradient in zip(
        weights(plain), weights(sparse), gradients, strict=True
    ):
        np.testing.assert_allclose(mine, other - RATE * gradient, atol=1e-6)


def test_two_replicas_take_the_step_of_one_device(two_replicas):
    results = []
    for strategy in (two_replicas, tf.distribute.get_strategy()):
        with strategy.scope():
            model = build()
        model.get_layer("norm").trainable = False  # its statistics are per replica
        model.compile(keras.optimizers.SGD(RATE), "mse")
        one_step(model, kc.ChannelSparsity(STRENGTH))
        results.append(weights(model))
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


def test_half_precision_gets_the_penalty_in_float32():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        plain, sparse = build(), build()
    finally:
        keras.config.set_dtype_policy("float32")
    before = weights(sparse)
    loss = one_step(plain)["loss"]
    logs = one_step(sparse, kc.ChannelSparsity(STRENGTH))
    penalty, _ = added_by_hand("group_l2", *before)
    np.testing.assert_allclose(logs["loss"], loss + penalty, rtol=1e-5)


def test_a_regularizer_of_the_user_stays_and_is_alone_again_afterwards():
    own = keras.regularizers.L2(0.1)
    plain, sparse = build(regularizer=own), build(regularizer=own)
    before = weights(sparse)
    expected = one_step(plain)["loss"] + added_by_hand("group_l2", *before)[0]
    logs = one_step(sparse, kc.ChannelSparsity(STRENGTH))
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-5)
    assert sparse.get_layer("first").kernel.regularizer is own
    assert sparse.get_layer("last").kernel.regularizer is None
    assert len(sparse.losses) == 1


class Crash(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise RuntimeError("crash")


def test_after_a_crash_the_next_training_is_a_plain_one():
    model = build()
    with pytest.raises(RuntimeError, match="crash"):
        one_step(model, kc.ChannelSparsity(STRENGTH), Crash())
    plain = build()
    plain.set_weights(model.get_weights())
    np.testing.assert_allclose(one_step(model)["loss"], one_step(plain)["loss"])
    assert all(v.regularizer is None for v in model.trainable_variables)


def test_importance_is_measured_anew_before_each_epoch():
    model, twice = build(), build()
    x, y = data()
    options = {"batch_size": 16, "verbose": 0, "shuffle": False}
    twice.fit(x, y, epochs=2, callbacks=[kc.ChannelSparsity(STRENGTH)], **options)
    for _ in range(2):
        model.fit(x, y, callbacks=[kc.ChannelSparsity(STRENGTH)], **options)
    for one, other in zip(weights(model), weights(twice), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-7)


def test_importance_is_measured_once_between_two_epochs(monkeypatch):
    measured = []
    score = GroupNorm.__call__

    def counted(self, group, model):
        measured.append(group.name)
        return score(self, group, model)

    monkeypatch.setattr(GroupNorm, "__call__", counted)
    x, y = data()
    build().fit(x, y, epochs=3, verbose=0, callbacks=[kc.ChannelSparsity(STRENGTH)])
    assert len(measured) == 1 + 3


def test_weak_channels_are_counted_and_shrink_until_removing_them_changes_nothing():
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
    y = x[:, :1] * x[:, 1:2]
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(32, "relu", use_bias=False),
            layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.SGD(0.1), "mse")
    history = model.fit(
        x, y, epochs=60, verbose=0, callbacks=[kc.ChannelSparsity(0.005)]
    ).history
    assert history["weak_channels"][0] == 0
    weak = round(32 * history["weak_channels"][-1])
    assert weak > 4
    smaller = kc.prune_channels(model, ratio=1 - weak / 32, round_to=1)
    difference = np.abs(smaller.predict(x, verbose=0) - model.predict(x, verbose=0))
    assert difference.max() < 0.05 * np.abs(y).max()


@pytest.mark.parametrize("strength", [0, -1e-4, float("nan"), float("inf"), "much"])
def test_a_strength_must_be_a_number_above_0(strength):
    with pytest.raises(ValueError, match="`strength` must be a number above 0"):
        kc.ChannelSparsity(strength)


def test_an_unknown_importance_is_refused():
    with pytest.raises(ValueError, match="Received: importance='l3'"):
        kc.ChannelSparsity(importance="l3")


def test_a_model_without_removable_channels_is_refused_before_training():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    model.compile("sgd", "mse")
    before = [np.array(v) for v in model.variables]
    with pytest.raises(ValueError, match="model output"):
        one_step(model, kc.ChannelSparsity())
    for old, new in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, new)


def test_bn_scale_asks_for_a_gamma():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8), layers.Dense(2)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match='no channels that "bn_scale"'):
        one_step(model, kc.ChannelSparsity(importance="bn_scale"))


def test_pruning_and_channel_sparsity_share_a_fit():
    model = build(width=16)
    one_step(model, kc.ChannelSparsity(STRENGTH), kc.MagnitudePruning(0.5))
    assert kc.sparsity(model) == 0.5
    assert all(v.constraint is None for v in model.trainable_variables)
    assert all(v.regularizer is None for v in model.trainable_variables)
