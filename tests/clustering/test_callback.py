"""A model trains on shared weights in every way that Keras trains models."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_compress.clustering.callback import WeightClustering

CLUSTERS = 5


class Watch(keras.callbacks.Callback):
    """What holds after every call of the step."""

    def __init__(self):
        super().__init__()
        self.most, self.zeros = 0, []

    def on_train_batch_end(self, batch, logs=None):
        kernels = kernels_of(self.model)
        self.most = max([self.most, *map(different_values, kernels)])
        self.zeros.append(sum(np.count_nonzero(k == 0) for k in kernels))


def kernels_of(model):
    found = [v for v in model.weights if v.name == "kernel"]
    return [keras.ops.convert_to_numpy(v) for v in found]


def different_values(kernel):
    return len(np.setdiff1d(kernel, 0))


def data(count=64):
    random = np.random.default_rng(0)
    x = random.normal(size=(count, 6, 6, 1)).astype("float32")
    return x, (x.mean(axis=(1, 2, 3)) > 0).astype("int32")


def build(optimizer=None, **options):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(4, 3, name="conv"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.Flatten(),
            layers.Dense(2, dtype="float32", name="scores"),
        ]
    )
    # A pruned checkpoint: half of the last layer's weights.
    kernel = model.get_layer("scores").kernel
    kernel.assign(np.where(np.arange(32).reshape(16, 2) % 3, kernel, 0))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or keras.optimizers.Adam(0.01), loss, **options)
    return model


def fit(model, *callbacks, **options):
    x, y = data()
    settings = {"batch_size": 16, "epochs": 3, "shuffle": False, "verbose": 0}
    return model.fit(x, y, callbacks=list(callbacks), **settings | options).history


def test_sgd_moves_each_centroid_along_the_mean_gradient_of_its_weights():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(8, 6)), random.normal(size=(8, 3))
    values = np.array([-0.5, 0.25, 0, 1.5])
    cluster = random.integers(0, 4, (6, 3))
    model = keras.Sequential([keras.Input((6,)), layers.Dense(3, use_bias=False)])
    model.layers[0].kernel.assign(values[cluster])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    settings = {"batch_size": 8, "epochs": 4, "shuffle": False, "verbose": 0}
    model.fit(x, y, callbacks=[WeightClustering(3)], **settings)

    velocity = np.zeros(4)
    for _ in range(4):
        w = values[cluster]
        gradient = 2 * x.T @ (x @ w - y) / y.size
        means = np.array([gradient[cluster == k].mean() for k in range(4)])
        velocity = 0.9 * velocity - 0.1 * means
        velocity[2] = 0
        values = values + velocity
    np.testing.assert_allclose(model.layers[0].kernel, values[cluster], rtol=1e-4)


MODES = {
    "graph": {"jit_compile": False},
    "eager": {"run_eagerly": True},
    "jit": {"jit_compile": True},
    "several_steps_in_one_call": {"steps_per_execution": 4},
}


@pytest.mark.parametrize("mode", MODES)
def test_every_step_leaves_few_values_and_the_zeros(mode):
    model, watch = build(**MODES[mode]), Watch()
    before = kernels_of(model)
    losses = fit(model, WeightClustering(CLUSTERS), watch)["loss"]
    assert watch.most == CLUSTERS
    assert set(watch.zeros) == {11}
    assert losses[-1] < losses[0]
    pairs = zip(kernels_of(model), before, strict=True)
    assert all(not np.isin(new, old[old != 0]).any() for new, old in pairs)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1, clipnorm=1.0),
        lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=2),
        lambda: keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5),
        lambda: keras.optimizers.Lamb(0.01),
    ],
    ids=["adamw", "accumulation", "ema", "lamb"],
)
def test_any_optimizer_leaves_few_values(optimizer):
    model, watch = build(optimizer()), Watch()
    fit(model, WeightClustering(CLUSTERS), watch)
    assert watch.most == CLUSTERS
    assert set(watch.zeros) == {11}
    assert max(map(different_values, kernels_of(model))) == CLUSTERS
    assert sum(np.count_nonzero(k == 0) for k in kernels_of(model)) == 11


def test_mixed_precision_leaves_few_values():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model, watch = build(), Watch()
        losses = fit(model, WeightClustering(CLUSTERS), watch)["loss"]
    finally:
        keras.config.set_dtype_policy(policy)
    assert model.get_layer("conv").compute_dtype == "float16"
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert watch.most == CLUSTERS and set(watch.zeros) == {11}
    assert losses[-1] < losses[0]


def test_two_replicas_train_as_one(two_replicas):
    def batches():
        return tf.data.Dataset.from_tensor_slices(data()).batch(16)

    def model():
        made = build(keras.optimizers.SGD(0.1))
        # Batch statistics would be those of half a batch.
        made.layers[1].trainable = False
        made.compile(made.optimizer, made.loss)
        return made

    alone = model()
    with two_replicas.scope():
        shared = model()
    for trained in (alone, shared):
        callbacks = [WeightClustering(CLUSTERS)]
        trained.fit(batches(), epochs=2, callbacks=callbacks, shuffle=False, verbose=0)
    for a, b in zip(kernels_of(shared), kernels_of(alone), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
        assert different_values(a) == CLUSTERS
    for variable in shared.trainable_variables:
        first, second = two_replicas.experimental_local_results(variable.value)
        np.testing.assert_array_equal(first, second)


def test_it_begins_at_its_step():
    model, counts = build(), []

    class Count(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            counts.append(different_values(kernels_of(self.model)[0]))

    fit(model, WeightClustering(CLUSTERS, begin_step=5), Count())
    assert counts == [36] * 5 + [CLUSTERS] * 7


def test_a_fit_that_ends_before_its_step_says_so(caplog):
    model = build()
    fit(model, WeightClustering(CLUSTERS, begin_step=13))
    assert different_values(kernels_of(model)[0]) == 36
    assert "ended at step 12, before `begin_step`" in caplog.text


def test_two_callbacks_share_the_layers_between_them():
    model = build()
    conv = WeightClustering(8, layers=lambda layer: layer.name == "conv")
    rest = WeightClustering(2, "density", layers=lambda layer: layer.name != "conv")
    fit(model, conv, rest)
    assert [different_values(k) for k in kernels_of(model)] == [8, 2, 2]
    assert [k.path for k in conv.report.kernels] == ["sequential/conv/kernel"]


def test_the_report_names_what_is_left_alone():
    model = build()
    model.get_layer("conv").trainable = False
    model.compile("sgd", model.loss)
    callback = WeightClustering(CLUSTERS)
    fit(model, callback)
    assert different_values(kernels_of(model)[0]) == 36
    text = str(callback.report)
    rows = [line.split() for line in text.split("\n")]
    assert "conv (Conv2D) left alone: frozen" in text
    # 21 weights that are not zero, 5 clusters: with zero 6 values, so 3 bits.
    assert ["sequential/scores/kernel", "32", "21", "5", "3"] in rows


def test_the_saved_model_is_plain_and_trains_on_its_clusters(tmp_path):
    model = build()
    fit(model, WeightClustering(CLUSTERS))
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert {type(layer).__module__.split(".")[0] for layer in loaded.layers} == {
        "keras"
    }
    before = kernels_of(loaded)
    callback = WeightClustering(CLUSTERS)
    fit(loaded, callback, epochs=1)
    assert [k.clusters for k in callback.report.kernels] == [CLUSTERS] * 3
    for new, old in zip(kernels_of(loaded), before, strict=True):
        pairs = np.unique(np.stack([new.ravel(), old.ravel()]), axis=1)
        assert pairs.shape[1] == len(np.unique(old))


def test_a_resumed_fit_ends_where_an_uninterrupted_one_does(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 3:
                raise InterruptedError

    def callbacks(*more):
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        return [WeightClustering(CLUSTERS, begin_step=6), *more, backup]

    with pytest.raises(InterruptedError):
        fit(build(), *callbacks(Stop()), epochs=5)
    resumed, whole = build(), build()
    fit(resumed, *callbacks(), epochs=5)
    fit(whole, callbacks()[0], epochs=5)
    for a, b in zip(resumed.variables, whole.variables, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=b.path)
