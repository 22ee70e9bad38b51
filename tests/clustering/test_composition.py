"""Clustering beside other constraints, wrappers and callbacks, and what it refuses."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_compress.clustering.callback import WeightClustering
from keras_compress.clustering.shared_weights import SharedWeights

MASK = np.arange(48).reshape(8, 6) % 2


class Masking(keras.callbacks.Callback):
    """Prunes as another callback would: a constraint of its own for one fit."""

    def on_train_begin(self, logs=None):
        self.kernel = self.model.get_layer("hidden").kernel
        self.before = self.kernel.constraint
        self.kernel.constraint = self.mine = lambda w: (
            w * MASK if self.before is None else self.before(w) * MASK
        )
        self.kernel.assign(self.kernel * MASK)

    def on_train_end(self, logs=None):
        if self.kernel.constraint is self.mine:
            self.kernel.constraint = self.before


def build(constraint=None):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(6, kernel_constraint=constraint, name="hidden"),
            layers.Dense(2),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


def fit(model, *callbacks, **options):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(32, 8)), random.normal(size=(32, 2))
    settings = {"batch_size": 8, "verbose": 0, "shuffle": False}
    model.fit(x, y, callbacks=list(callbacks), **settings | options)


def hidden(model):
    return keras.ops.convert_to_numpy(model.get_layer("hidden").kernel)


def different_values(kernel):
    return len(np.setdiff1d(kernel, 0))


@pytest.mark.parametrize("order", [1, -1])
def test_a_mask_set_by_another_callback_holds(order):
    model = build()
    fit(model, *[Masking(), WeightClustering(4)][::order], epochs=3)
    np.testing.assert_array_equal(hidden(model) != 0, MASK)
    assert different_values(hidden(model)) == 4


def test_the_users_constraint_is_asked_first_and_put_back():
    constraint = keras.constraints.NonNeg()
    model = build(constraint)
    fit(model, WeightClustering(4), epochs=3)
    assert hidden(model).min() == 0 < hidden(model).max()
    assert different_values(hidden(model)) <= 4
    assert model.get_layer("hidden").kernel.constraint is constraint


def test_a_later_fit_trains_freely_again():
    model = build()
    fit(model, WeightClustering(4))
    assert different_values(hidden(model)) == 4
    fit(model)
    assert different_values(hidden(model)) == 48
    assert model.get_layer("hidden").kernel.constraint is None


@pytest.mark.parametrize("when", ["on_train_batch_end", "on_epoch_end"])
def test_a_crashed_fit_leaves_a_model_that_trains_freely(when):
    def crash(*args, **kwargs):
        raise InterruptedError

    model = build()
    callback = keras.callbacks.Callback()
    setattr(callback, when, crash)
    with pytest.raises(InterruptedError):
        fit(model, WeightClustering(4), callback)
    assert different_values(hidden(model)) == 4
    fit(model)
    assert different_values(hidden(model)) == 48
    assert model.get_layer("hidden").kernel.constraint is None


class Doubled(layers.Wrapper):
    """A wrapper of the user's own."""

    def call(self, inputs):
        return 2 * self.layer(inputs)


def test_a_kernel_inside_a_wrapper_is_clustered():
    inner = layers.Dense(6, name="hidden")
    model = keras.Sequential([keras.Input((8,)), Doubled(inner)])
    model.compile("adam", "mse")
    model.fit(
        np.ones((8, 8)), np.ones((8, 6)), callbacks=[WeightClustering(4)], verbose=0
    )
    assert different_values(np.array(inner.kernel)) == 4


class Subclassed(keras.Model):
    """A model that is no graph, with a layer in a list."""

    def __init__(self):
        super().__init__()
        self.blocks = [layers.Dense(6, name="hidden"), layers.Dense(2)]

    def call(self, x):
        return self.blocks[1](self.blocks[0](x))


def test_a_subclassed_model_is_clustered():
    model = Subclassed()
    model.compile("adam", "mse")
    fit(model, WeightClustering(4))
    kernels = [np.array(block.kernel) for block in model.blocks]
    assert [different_values(kernel) for kernel in kernels] == [4, 4]


def test_a_fit_of_one_step_of_a_model_that_was_not_built_ends_clustered():
    model = Subclassed()
    model.compile("adam", "mse")
    fit(model, WeightClustering(4), batch_size=32)
    assert different_values(np.array(model.blocks[0].kernel)) == 4


def test_embeddings_are_clustered_where_a_predicate_chooses_them():
    model = keras.Sequential(
        [keras.Input((3,)), layers.Embedding(20, 4), layers.Flatten(), layers.Dense(1)]
    )
    model.compile("adam", "mse")
    x, y = np.ones((8, 3), "int32"), np.ones((8, 1))
    model.fit(x, y, callbacks=[WeightClustering(4)], verbose=0)
    table = model.layers[0].embeddings
    assert different_values(np.array(table)) == 80
    chosen = WeightClustering(4, layers=lambda x: isinstance(x, layers.Embedding))
    model.fit(x, y, callbacks=[chosen], verbose=0)
    assert different_values(np.array(table)) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_clusters": 0}, r"from 1 to 65,535.*num_clusters=0"),
        ({"num_clusters": 70_000}, r"from 1 to 65,535.*num_clusters=70000"),
        ({"num_clusters": 4.0}, r"must be an int.*num_clusters=4.0"),
        ({"num_clusters": True}, r"must be an int.*num_clusters=True"),
        ({"num_clusters": 4, "init": "random"}, r"'linear'.*init='random'"),
        ({"num_clusters": 4, "layers": "conv"}, r"function of a layer.*'conv'"),
        ({"num_clusters": 4, "begin_step": -1}, r"at least 0.*begin_step=-1"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        WeightClustering(**options)


def test_a_model_with_nothing_to_cluster_is_refused_before_training():
    model = build()
    before = model.get_weights()
    nothing = WeightClustering(4, layers=lambda layer: False)
    with pytest.raises(ValueError, match=r"no kernel to cluster.*not chosen"):
        fit(model, nothing)
    for new, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(new, old)


def test_weights_that_are_not_numbers_are_refused_before_any_is_changed():
    model = build()
    last = model.layers[-1].kernel
    last.assign(np.full((6, 2), np.nan))
    before = hidden(model)
    with pytest.raises(ValueError, match=r"NaN or infinity in .*kernel"):
        fit(model, WeightClustering(4))
    np.testing.assert_array_equal(hidden(model), before)
    constraints = [v.constraint for v in model.weights]
    assert not any(isinstance(c, SharedWeights) for c in constraints)
