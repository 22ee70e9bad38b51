"""A rebuilt model is compiled as the given one, or says that it is not."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_compress.graph import read_graph, rebuild


def copy_of(model):
    return rebuild(
        model,
        read_graph(model),
        lambda builder, step: builder.copy(step),
        lambda builder, ref, tensor: tensor,
    )


def small_model():
    model = keras.Sequential([keras.Input((5,)), layers.Dense(3)])
    return model, np.random.default_rng(0).normal(size=(4, 5)).astype("float32")


def test_the_compile_state_is_carried():
    model, x = small_model()
    model.compile(
        keras.optimizers.SGD(0.25, momentum=0.5),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=3,
        jit_compile=False,
    )
    new = copy_of(model)
    assert new.optimizer is not model.optimizer
    assert float(new.optimizer.learning_rate) == 0.25
    assert new.optimizer.momentum == 0.5
    assert new.steps_per_execution == 3
    assert not new.jit_compile
    y = np.array([0, 1, 2, 1])
    assert new.evaluate(x, y, verbose=0) == model.evaluate(x, y, verbose=0)


def own_loss(y, found):
    return ops.mean(ops.abs(y - found) ** 3, axis=-1)


class OwnLoss(keras.losses.Loss):
    def call(self, y, found):
        return own_loss(y, found)


@pytest.mark.parametrize("loss", [own_loss, OwnLoss()], ids=["function", "class"])
def test_a_loss_of_the_users_own_is_carried(loss):
    model, x = small_model()
    model.compile("sgd", loss)
    y = np.ones((4, 3))
    assert copy_of(model).evaluate(x, y, verbose=0) == model.evaluate(x, y, verbose=0)


def test_a_compile_state_that_cannot_be_copied_is_left_out_with_a_word():
    model, x = small_model()
    model.compile("sgd", "mse", metrics=[own_loss])
    with pytest.warns(UserWarning, match=r"not compiled.*own_loss"):
        new = copy_of(model)
    assert not new.compiled
    np.testing.assert_array_equal(new(x), model(x))
