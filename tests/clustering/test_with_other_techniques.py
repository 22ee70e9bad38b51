"""Clustering beside magnitude pruning and quantization-aware training in one fit."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_compress as kc
import tflite_export
from keras_compress.clustering.callback import WeightClustering
from keras_compress.pruning.layerwise import layerwise_sparsity


def data():
    random = np.random.default_rng(0)
    x = random.normal(size=(64, 6, 6, 1)).astype("float32")
    return x, (x.mean(axis=(1, 2, 3)) > 0).astype("int32")


def plain_model():
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(8, 3, activation="relu", name="conv"),
            layers.Flatten(),
            layers.Dense(2, name="scores"),
        ]
    )


def fit(model, *callbacks, optimizer=None, epochs=5, **options):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = optimizer or keras.optimizers.Adam(0.01)
    model.compile(optimizer, loss, **options)
    x, y = data()
    settings = {"batch_size": 8, "epochs": epochs, "shuffle": False, "verbose": 0}
    return model.fit(x, y, callbacks=list(callbacks), **settings).history


def kernels_of(model):
    found = [v for v in model.weights if v.name == "kernel"]
    return [keras.ops.convert_to_numpy(v) for v in found]


def different_values(kernel):
    return len(np.setdiff1d(kernel, 0))


class Watch(keras.callbacks.Callback):
    """The different values of the first kernel, and its zeros, after every step."""

    def __init__(self):
        super().__init__()
        self.values, self.zeros = [], []

    def on_train_batch_end(self, batch, logs=None):
        kernel = kernels_of(self.model)[0]
        self.values.append(different_values(kernel))
        self.zeros.append(np.count_nonzero(kernel == 0))


@pytest.mark.parametrize("first", ["pruning", "clustering"])
@pytest.mark.parametrize("begin_step", [0, 20])
def test_a_kernel_becomes_sparse_and_clustered(first, begin_step):
    pruning = kc.MagnitudePruning(kc.PolynomialDecay(0.2, 0.75, 0, 20, frequency=5))
    clustering = WeightClustering(4, begin_step=begin_step)
    model, watch = plain_model(), Watch()
    callbacks = [pruning, clustering] if first == "pruning" else [clustering, pruning]
    losses = fit(model, *callbacks, watch)["loss"]
    assert max(watch.values[begin_step:]) <= 4
    assert set(watch.zeros[20:]) == {54}
    assert different_values(kernels_of(model)[0]) >= (4 if begin_step else 1)
    assert [np.mean(k == 0) for k in kernels_of(model)] == [0.75, 0.75]
    assert losses[-1] < losses[0]
    assert all(v.constraint is None for v in model.weights)
    fit(model, epochs=1)
    assert different_values(kernels_of(model)[0]) == 72


@pytest.mark.parametrize("first", ["pruning", "clustering"])
def test_averaged_weights_end_sparse_and_clustered(first):
    model = plain_model()
    callbacks = [kc.MagnitudePruning(0.75), WeightClustering(4)]
    optimizer = keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5)
    fit(model, *callbacks[:: 1 if first == "pruning" else -1], optimizer=optimizer)
    assert [different_values(k) for k in kernels_of(model)] == [4, 4]
    assert [np.mean(k == 0) for k in kernels_of(model)] == [0.75, 0.75]


def test_a_quantization_aware_model_is_pruned_and_clustered(tmp_path):
    model = kc.quantize_aware(plain_model())
    losses = fit(model, kc.MagnitudePruning(0.5), WeightClustering(4))["loss"]
    assert losses[-1] < losses[0]
    assert [different_values(k) for k in kernels_of(model)] == [4, 4]
    stripped = kc.strip(model)
    for kernel in kernels_of(stripped):
        # A scale for each channel: the values are shared within a channel.
        channels = kernel.reshape(-1, kernel.shape[-1]).T
        assert max(map(different_values, channels)) <= 4
        assert np.mean(kernel == 0) == 0.5
    x, _ = data()
    path = tmp_path / "m.tflite"
    result = tflite_export.export(model, path, representative_data=x)
    assert not result.float_ops
    assert tflite_export.compare(model, path, x).argmax >= 0.97


def test_layerwise_sparsities_reach_the_target_when_fed_to_pruning():
    model = plain_model()
    found = layerwise_sparsity(model, 0.6)

    def named(name):
        return lambda layer: layer.name == name

    callbacks = [kc.MagnitudePruning(s, layers=named(n)) for n, s in found.items()]
    fit(model, *callbacks)
    zeros = sum(np.count_nonzero(kernel == 0) for kernel in kernels_of(model))
    assert zeros == 328 - round(0.4 * 328)
    assert [np.mean(kernel == 0) for kernel in kernels_of(model)] == pytest.approx(
        list(found.values())
    )
