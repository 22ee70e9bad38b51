"""`QuantizationSchedule` switches at the step it is told, and switches back."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_compress as kc
from keras_compress.quantization.fake_quant import FakeQuantize


def aware_model(optimizer=None, **options):
    """A Dense and a BatchNormalization joined, one that stands alone, one frozen."""
    inputs = keras.Input((6,))
    x = layers.BatchNormalization(name="alone")(inputs)
    x = layers.BatchNormalization(name="joined")(layers.Dense(8, name="dense")(x))
    x = layers.BatchNormalization(name="frozen", trainable=False)(layers.ReLU()(x))
    aware = kc.quantize_aware(keras.Model(inputs, layers.Dense(1, name="y")(x)))
    aware.compile(optimizer or keras.optimizers.SGD(0.01), "mse", **options)
    return aware


def data(count=64):
    random = np.random.default_rng(0)
    return random.normal(size=(count, 6)), random.normal(size=(count, 1))


def norm(model, name):
    layer = model.get_layer(name)
    return getattr(layer, "layer", layer)


class Watch(keras.callbacks.Callback):
    """Which of ranges, statistics and gamma each step moved, and whether it rounded."""

    def on_train_begin(self, logs=None):
        self.rows = []
        self._last = self._state()

    def on_train_batch_end(self, batch, logs=None):
        state = self._state()
        pairs = zip(self._last, state, strict=True)
        self.rows.append([not np.array_equal(a, b) for a, b in pairs])
        self._last = state

    def _state(self):
        ranges = [
            v
            for layer in self.model.layers
            if isinstance(layer, FakeQuantize) and layer.fixed is None
            for v in (layer.minimum, layer.maximum)
        ]
        norms = [norm(self.model, name) for name in ("alone", "joined")]
        groups = (ranges, [n.moving_mean for n in norms], [n.gamma for n in norms])
        return [np.concatenate([np.array(v) for v in group]) for group in groups]

    def moved(self, column):
        return [row[column] for row in self.rows]


RANGES, STATISTICS, GAMMA = range(3)


def fit(model, *callbacks, watch=None, epochs=2, **options):
    watch = watch or Watch()
    x, y = data()
    model.fit(
        x,
        y,
        batch_size=8,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[*callbacks, watch],
        **options,
    )
    return watch


@pytest.mark.parametrize("at", [3, 3 / 16])
def test_ranges_freeze_at_the_step(at):
    watch = fit(aware_model(), kc.QuantizationSchedule(freeze_ranges_at=at))
    assert watch.moved(RANGES) == [True] * 3 + [False] * 13
    assert watch.moved(STATISTICS) == [True] * 16


@pytest.mark.parametrize("at", [11, 11 / 16])
def test_batch_normalization_freezes_at_the_step_and_thaws_at_the_end(at):
    model = aware_model()
    watch = fit(model, kc.QuantizationSchedule(freeze_batchnorm_at=at))
    assert watch.moved(STATISTICS) == watch.moved(GAMMA) == [True] * 11 + [False] * 5
    assert watch.moved(RANGES) == [True] * 16
    flags = [norm(model, name).trainable for name in ("alone", "joined", "frozen")]
    assert flags == [True, True, False]
    watch = fit(model)
    assert watch.moved(STATISTICS) == watch.moved(GAMMA) == [True] * 16


def test_a_step_after_the_freeze_uses_the_moving_statistics():
    model = aware_model()
    x, y = data()
    losses = []

    class Losses(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            losses.append(self.model.evaluate(x, y, batch_size=64, verbose=0))

    history = model.fit(
        x,
        y,
        batch_size=64,
        epochs=3,
        verbose=0,
        callbacks=[
            kc.QuantizationSchedule(freeze_ranges_at=1, freeze_batchnorm_at=2),
            Losses(),
        ],
    ).history["loss"]
    assert history[1] != pytest.approx(losses[1], rel=1e-3)
    assert history[2] == pytest.approx(losses[2], rel=1e-3)


def float_twin(model):
    """The model with nothing rounded, ever."""
    twin = kc.strip(model)
    for layer in model.layers:
        if layer.name in ("dense", "y_raw"):
            twin.get_layer(layer.name.removesuffix("_raw")).set_weights(
                layer.layer.get_weights()
            )
    twin.compile(keras.optimizers.SGD(0.01), "mse")
    return twin


@pytest.mark.parametrize("fitted_before", [False, True])
def test_the_model_trains_in_float_until_rounding_begins(fitted_before):
    model = aware_model()
    if fitted_before:
        # The step is traced with rounding on.
        fit(model)
    twin = float_twin(model)
    x, y = data()
    options = {"batch_size": 8, "shuffle": False, "verbose": 0}
    model.fit(x, y, callbacks=[kc.QuantizationSchedule(begin_at=10**6)], **options)
    twin.fit(x, y, **options)
    for a, b in zip(
        model.get_layer("dense").layer.weights,
        twin.get_layer("dense").weights,
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert all(layer.enabled for layer in model.layers if hasattr(layer, "enabled"))


@pytest.mark.parametrize("at", [5, 5 / 16])
def test_rounding_begins_at_the_step(at):
    enabled = []
    seen = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: enabled.append(
            {x.enabled for x in model.layers if hasattr(x, "enabled")}
        )
    )
    model = aware_model()
    watch = fit(model, kc.QuantizationSchedule(begin_at=at), seen)
    assert enabled == [{False}] * 5 + [{True}] * 11
    assert watch.moved(RANGES) == [True] * 16


def test_a_fraction_is_of_this_fit_not_of_all_training():
    model = aware_model()
    fit(model)
    watch = fit(model, kc.QuantizationSchedule(freeze_ranges_at=0.25))
    assert watch.moved(RANGES) == [True] * 4 + [False] * 12


def test_a_step_is_one_of_the_optimizer_over_all_training():
    model = aware_model()
    fit(model)
    watch = fit(model, kc.QuantizationSchedule(freeze_ranges_at=20))
    assert watch.moved(RANGES) == [True] * 4 + [False] * 12


def test_a_fraction_holds_under_gradient_accumulation():
    optimizer = keras.optimizers.SGD(0.01, gradient_accumulation_steps=4)
    watch = fit(aware_model(optimizer), kc.QuantizationSchedule(freeze_ranges_at=0.5))
    assert watch.moved(RANGES) == [True] * 8 + [False] * 8


def test_switches_wait_for_the_end_of_several_steps_in_one_call():
    model = aware_model(steps_per_execution=4)
    watch = fit(model, kc.QuantizationSchedule(freeze_ranges_at=6))
    assert watch.moved(RANGES) == [True, True, False, False]


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("at", [12, 0.75])
def test_a_resumed_fit_switches_where_an_uninterrupted_one_does(order, at, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise InterruptedError

    def callbacks(*more):
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        schedule = kc.QuantizationSchedule(freeze_ranges_at=at)
        return [*[backup, schedule][::order], *more]

    with pytest.raises(InterruptedError):
        fit(aware_model(), *callbacks(Stop()))
    watch = fit(aware_model(), *callbacks())
    assert watch.moved(RANGES) == [True] * 4 + [False] * 4


class Crash(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 6:
            raise InterruptedError


def crashed():
    model = aware_model()
    schedule = kc.QuantizationSchedule(freeze_ranges_at=2, freeze_batchnorm_at=4)
    with pytest.raises(InterruptedError):
        fit(model, schedule, Crash())
    return model, schedule


@pytest.mark.parametrize("again", [True, False])
def test_the_next_scheduled_fit_undoes_what_a_crash_has_left(again):
    model, schedule = crashed()
    later = kc.QuantizationSchedule(freeze_ranges_at=15, freeze_batchnorm_at=17)
    watch = fit(model, schedule if again else later)
    # The crash came after seven steps.
    moved = [False] * 16 if again else [True] * 10 + [False] * 6
    assert watch.moved(STATISTICS) == moved
    flags = [norm(model, name).trainable for name in ("alone", "joined", "frozen")]
    assert flags == [True, True, False]
    assert fit(model).moved(STATISTICS) == [True] * 16


def test_the_next_fit_without_a_schedule_undoes_what_a_crash_has_left():
    model, _ = crashed()
    watch = fit(model)
    assert watch.moved(STATISTICS) == watch.moved(RANGES) == [True] * 16


def test_a_switch_in_mid_fit_leaves_the_guard_of_other_callbacks(tmp_path):
    """An unknown example after the switch is still explained, the model restored."""
    x, y = data()
    model = aware_model()
    teacher = keras.Sequential([keras.Input((6,)), layers.Dense(y.shape[-1])])
    cache = kc.TeacherCache.build(teacher, x[: len(x) // 2], tmp_path / "half.h5")
    distillation = kc.Distillation(cache, kc.MeanSquaredTargets())
    callbacks = [distillation, kc.QuantizationSchedule(freeze_ranges_at=2)]
    with pytest.raises(ValueError, match="no teacher output for 8 of 8"):
        model.fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=callbacks)
    assert "compute_loss" not in vars(model)


def test_a_model_that_is_not_quantised_is_refused():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(1)], name="plain")
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"made by `kc\.quantize_aware`.*'plain'"):
        model.fit(*data(), callbacks=[kc.QuantizationSchedule()])


def test_a_fraction_of_a_fit_of_unknown_length_is_refused():
    x, y = data()
    batches = ((x[k : k + 8], y[k : k + 8]) for k in range(0, 64, 8))
    endless = tf.data.Dataset.from_generator(
        lambda: batches,
        output_signature=(tf.TensorSpec((8, 6)), tf.TensorSpec((8, 1))),
    )
    with pytest.raises(ValueError, match=r"`freeze_ranges_at` .*`steps_per_epoch`"):
        aware_model().fit(
            endless,
            shuffle=False,
            callbacks=[kc.QuantizationSchedule(freeze_ranges_at=0.5)],
        )


def test_frozen_statistics_are_refused_where_keras_averages_weights():
    model = aware_model(keras.optimizers.SGD(0.01, use_ema=True))
    with pytest.raises(ValueError, match=r"`freeze_batchnorm_at`.*`use_ema`"):
        fit(model, kc.QuantizationSchedule(freeze_batchnorm_at=3))
    watch = fit(model, kc.QuantizationSchedule(freeze_ranges_at=3))
    assert watch.moved(RANGES) == [True] * 3 + [False] * 13


@pytest.mark.parametrize("time", [-1, 1.5, -0.1, True, "1", [1]])
@pytest.mark.parametrize("name", ["begin_at", "freeze_ranges_at"])
def test_other_times_are_refused(name, time):
    with pytest.raises(ValueError, match=f"`{name}` must be a step"):
        kc.QuantizationSchedule(**{name: time})
    with pytest.raises(ValueError, match="`begin_at` must be a step"):
        kc.QuantizationSchedule(begin_at=None)
