"""Every pair of techniques, and all at once, keeps the promises of each in one fit."""

import keras
import numpy as np
import pytest

from .composition_checks import (
    check_file,
    check_nothing_left,
    check_rounded,
    check_same_weights,
    check_trained,
    kernels_of,
)
from .composition_nets import data
from .composition_techniques import (
    TECHNIQUES,
    LossesByHand,
    callbacks,
    combinations,
    fit,
    name_of,
    student,
)

QUICK = [TECHNIQUES]
SLOW = [c for c in combinations([2, 3, 4]) if c not in QUICK]


@pytest.mark.parametrize(
    "techniques",
    [*QUICK, *(pytest.param(c, marks=pytest.mark.slow) for c in SLOW)],
    ids=name_of,
)
def test_a_combination_keeps_the_promises_of_each(techniques, tmp_path):
    model = student(techniques)
    by_hand = [LossesByHand()] if "distillation" in techniques else []
    history = fit(model, *callbacks(techniques), *by_hand)
    check_nothing_left(model)
    check_trained(model, techniques)
    for hand in by_hand:
        for name, expected in hand.history.items():
            np.testing.assert_allclose(history[name], expected, rtol=1e-4)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    check_same_weights(loaded, model, atol=0)
    check_trained(loaded, techniques)
    check_file(loaded, techniques, tmp_path / "m.tflite", data()[0])


@pytest.mark.parametrize("technique", ["pruning", "clustering"])
def test_the_checks_refuse_a_model_that_was_only_trained(technique):
    model = student(())
    with pytest.raises(AssertionError):
        check_trained(model, [technique])
    kernels = kernels_of(model)
    with pytest.raises(AssertionError):
        check_rounded(kernels, [np.zeros_like(kernels[0])] * 4, [technique])


def test_the_checks_refuse_what_a_callback_may_leave():
    model = student(())
    model.get_layer("conv").kernel.constraint = keras.constraints.NonNeg()
    with pytest.raises(AssertionError):
        check_nothing_left(model)
