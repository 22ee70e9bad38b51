"""Every pair of techniques, and all at once, keeps the promises of each in one fit."""

import keras
import numpy as np
import pytest

from .composition_checks import (
    check_file,
    check_nothing_left,
    check_same_weights,
    check_trained,
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


def slow(combinations):
    return [pytest.param(c, marks=pytest.mark.slow) for c in combinations]


@pytest.mark.parametrize(
    "techniques",
    [*combinations([2]), TECHNIQUES, *slow(combinations([3, 4]))],
    ids=name_of,
)
def test_a_combination_keeps_the_promises_of_each(techniques, tmp_path):
    model, by_hand = student(techniques), LossesByHand()
    history = fit(model, *callbacks(techniques), by_hand)
    check_nothing_left(model)
    check_trained(model, techniques)
    if "distillation" in techniques:
        for name, expected in by_hand.history.items():
            np.testing.assert_allclose(history[name], expected, rtol=1e-4)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    check_same_weights(loaded, model, atol=0)
    check_trained(loaded, techniques)
    check_file(loaded, techniques, tmp_path / "m.tflite", data()[0])
