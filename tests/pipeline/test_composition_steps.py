"""All techniques in one fit, however its steps are run."""

import keras
import pytest

from .composition_checks import check_file, check_nothing_left, check_trained
from .composition_nets import data
from .composition_techniques import CALLBACKS, callbacks, fit, student

WAYS = {
    "jit": {"jit_compile": True},
    "three_steps_in_one_call": {"steps_per_execution": 3},
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_each_way_to_run_a_step_keeps_every_promise(way, tmp_path):
    model = student(CALLBACKS, **WAYS[way])
    history = fit(model, *callbacks(CALLBACKS))
    check_nothing_left(model)
    check_trained(model, CALLBACKS)
    assert history["distillation_loss"][-1] < history["distillation_loss"][0]
    check_file(model, CALLBACKS, tmp_path / "m.tflite", data()[0])


@pytest.mark.slow
def test_mixed_precision_keeps_zeros_and_clusters():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = student(CALLBACKS)
        fit(model, *callbacks(CALLBACKS))
    finally:
        keras.config.set_dtype_policy(policy)
    check_nothing_left(model)
    check_trained(model, CALLBACKS)


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, -1])
def test_averaged_weights_keep_every_promise(order, tmp_path):
    """Keras swaps the averages in when `fit` ends."""
    optimizer = keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5)
    techniques = CALLBACKS[:3]
    model = student(CALLBACKS, optimizer)
    fit(model, *callbacks(techniques)[::order])
    check_nothing_left(model)
    check_trained(model, techniques)
    check_file(model, CALLBACKS, tmp_path / "m.tflite", data()[0])


@pytest.mark.slow
def test_accumulated_gradients_keep_every_promise(tmp_path):
    optimizer = keras.optimizers.Adam(0.02, gradient_accumulation_steps=2)
    model = student(CALLBACKS, optimizer)
    fit(model, *callbacks(CALLBACKS), epochs=8)
    check_nothing_left(model)
    check_trained(model, CALLBACKS)
    check_file(model, CALLBACKS, tmp_path / "m.tflite", data()[0])


@pytest.mark.slow
def test_two_replicas_keep_every_promise(two_replicas, tmp_path):
    with two_replicas.scope():
        model = student(CALLBACKS)
    history = fit(model, *callbacks(CALLBACKS))
    check_nothing_left(model)
    check_trained(model, CALLBACKS)
    assert history["distillation_loss"][-1] < history["distillation_loss"][0]
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    check_file(loaded, CALLBACKS, tmp_path / "m.tflite", data()[0])
