"""A quantization-aware model trains in every way that Keras trains models."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_compress as kc
import tflite_export
from keras_compress.quantization.fake_quant import FakeQuantize

CLASSES = 3


def data(count=128):
    """Images whose brightest column tells the class."""
    random = np.random.default_rng(0)
    y = random.integers(0, CLASSES, count)
    x = random.normal(size=(count, 6, 6, 1)).astype("float32")
    x[np.arange(count), :, 2 * y] += 1.5
    return x, y


def plain_model():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6, 6, 1), name="image")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv")(inputs)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.Add()([x, layers.DepthwiseConv2D(3, padding="same")(x)])
    x = layers.Flatten()(layers.MaxPooling2D((6, 1))(x))
    return keras.Model(inputs, layers.Dense(CLASSES, name="scores")(x))


def aware_model(optimizer="adam", build=plain_model, **options):
    aware = kc.quantize_aware(build())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if optimizer == "adam":
        optimizer = keras.optimizers.Adam(0.01)
    aware.compile(optimizer, loss, metrics=["accuracy"], **options)
    return aware


def fit(model, epochs=3, **options):
    x, y = data()
    settings = {"batch_size": 16, "shuffle": False, "verbose": 0}
    return model.fit(x, y, epochs=epochs, **settings | options).history


def assert_same_state(new, old):
    pairs = zip(
        [*new.variables, *new.optimizer.variables],
        [*old.variables, *old.optimizer.variables],
        strict=True,
    )
    for a, b in pairs:
        np.testing.assert_array_equal(a, b, err_msg=b.path)


def ranges(model):
    found = [x for x in model.layers if isinstance(x, FakeQuantize) and not x.fixed]
    return np.array([[float(end) for end in layer.range()] for layer in found])


def assert_file_agrees(model, path):
    x, _ = data()
    assert not tflite_export.export(model, path).float_ops
    agreement = tflite_export.compare(model, path, x)
    assert agreement.argmax >= 0.97
    assert agreement.within_one_step >= 0.97


MODES = {
    "graph": {"jit_compile": False},
    "jit": {"jit_compile": True},
    "several_steps_in_one_call": {"steps_per_execution": 4},
}


@pytest.mark.parametrize("mode", MODES)
def test_each_way_to_run_a_step_trains_as_running_it_eagerly(mode):
    expected, found = aware_model(run_eagerly=True), aware_model(**MODES[mode])
    losses = [fit(model)["loss"] for model in (found, expected)]
    np.testing.assert_allclose(*losses, rtol=0.02)
    assert losses[0][-1] < 0.7 * losses[0][0]
    np.testing.assert_allclose(ranges(found), ranges(expected), atol=0.05)


def test_two_replicas_train_with_the_mean_of_their_ranges(two_replicas, tmp_path):
    with two_replicas.scope():
        model = aware_model()
    assert model.distribute_strategy.num_replicas_in_sync == 2
    x, y = data()
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    options = {"shuffle": False, "verbose": 0}
    model.fit(batches.take(1), **options)
    halves = np.split(x[:16], 2)
    expected = np.mean([[half.min(), half.max()] for half in halves], axis=0)
    np.testing.assert_allclose(ranges(model)[0], expected, rtol=1e-5)
    losses = model.fit(batches, epochs=3, **options).history["loss"]
    assert losses[-1] < 0.8 * losses[0]
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(ranges(loaded), ranges(model))
    assert_file_agrees(loaded, tmp_path / "m.tflite")


def test_mixed_precision_trains_and_exports(tmp_path):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = aware_model()
        losses = fit(model, epochs=5)["loss"]
    finally:
        keras.config.set_dtype_policy(policy)
    assert model.get_layer("conv").layer.compute_dtype == "float16"
    assert losses[-1] < 0.7 * losses[0]
    assert ranges(model).dtype == "float64" and np.isfinite(ranges(model)).all()
    assert not tflite_export.export(model, tmp_path / "m.tflite").float_ops
    x, _ = data()
    scores = tflite_export.predict(tmp_path / "m.tflite", x)
    exact = np.array(model(x), "float32")
    assert np.mean(scores.argmax(1) == exact.argmax(1)) >= 0.95


def test_distillation_trains_a_quantised_student(tmp_path):
    teacher = plain_model()
    teacher.compile("adam", keras.losses.SparseCategoricalCrossentropy(True))
    fit(teacher, epochs=2)
    student = aware_model()
    schedule = kc.QuantizationSchedule(freeze_ranges_at=0.5, freeze_batchnorm_at=0.7)
    history = fit(student, epochs=6, callbacks=[kc.Distillation(teacher), schedule])
    assert history["distillation_loss"][-1] < 0.5 * history["distillation_loss"][0]
    assert_file_agrees(student, tmp_path / "m.tflite")


def test_a_saved_model_computes_the_same_and_trains_on_the_same(tmp_path):
    model = aware_model()
    fit(model)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert_same_state(loaded, model)
    x, _ = data()
    np.testing.assert_array_equal(loaded(x), model(x))
    np.testing.assert_array_equal(loaded(x, training=True), model(x, training=True))
    assert fit(loaded) == fit(model)
    assert_same_state(loaded, model)


def test_a_resumed_fit_ends_where_an_uninterrupted_one_does(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise InterruptedError

    def callbacks(*more):
        schedule = kc.QuantizationSchedule(0.4, freeze_batchnorm_at=0.8, begin_at=0.1)
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        return [schedule, *more, backup]

    with pytest.raises(InterruptedError):
        fit(aware_model(), epochs=5, callbacks=callbacks(Stop()))
    resumed, whole = aware_model(), aware_model()
    fit(resumed, epochs=5, callbacks=callbacks())
    fit(whole, epochs=5, callbacks=callbacks()[:1])
    assert_same_state(resumed, whole)


def test_averaged_weights_export_as_they_are(tmp_path):
    model = aware_model(keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.8))
    fit(model)
    kernel = model.get_layer("conv").layer.kernel
    [average] = [
        v for v in model.optimizer.variables if "conv_kernel_average" in v.path
    ]
    np.testing.assert_array_equal(kernel, average)
    assert_file_agrees(model, tmp_path / "m.tflite")


@pytest.mark.parametrize("bits", [2, 4])
def test_few_bits_train(bits):
    aware = kc.quantize_aware(plain_model(), weight_bits=bits)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    aware.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    history = fit(aware, epochs=6)
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    kernel = kc.strip(aware).get_layer("scores").get_weights()[0]
    assert all(len(np.unique(column)) <= 2**bits - 1 for column in kernel.T)


def dead_model(kernel, bias):
    """A convolution whose ReLU gives nothing but zeros, beside one that lives."""
    inputs = keras.Input((6, 6, 1), name="image")
    dead = layers.Conv2D(4, 3, activation="relu", name="dead", trainable=False)
    lives = layers.Conv2D(4, 3, activation="relu")(inputs)
    silent = layers.Conv2D(4, 1, use_bias=False)(dead(inputs))
    dead.set_weights([np.full((3, 3, 1, 4), kernel), np.full(4, bias)])
    return keras.Model(
        inputs, layers.Dense(CLASSES)(layers.Flatten()(layers.Add()([lives, silent])))
    )


@pytest.mark.parametrize(("kernel", "bias"), [(1, -1e3), (1e-3, -1), (0, 0)])
def test_an_activation_that_is_dead_all_through_training_exports(
    kernel, bias, tmp_path
):
    model = aware_model(build=lambda: dead_model(kernel, bias))
    fit(model, epochs=1)
    x, _ = data()
    dead = keras.Model(model.input, model.get_layer("dead_activation_range").output)
    assert not np.any(dead(x))
    assert_file_agrees(model, tmp_path / "m.tflite")
    # XNNPACK refuses to load a file whose scales are too far apart.
    assert tflite_export.benchmark(tmp_path / "m.tflite").kernels == "xnnpack"
