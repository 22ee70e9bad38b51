"""Stages are finished once, whole, and only taken up with the same settings."""

import json
import pathlib
import sys

import keras
import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))

from stages import Stages


def small():
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])


def run_both(folder, *, resume, epochs=1, trained=None, fail=False):
    """Two stages; the names of those that were trained go to `trained`."""
    trained = [] if trained is None else trained
    stages = Stages(folder, {"seed": 0}, resume=resume)

    def train(name):
        if fail and name == "second":
            raise KeyboardInterrupt
        trained.append(name)
        return small()

    found = []
    for name in ("first", "second"):
        model, measured = stages.run(
            name,
            {"epochs": epochs if name == "second" else 1},
            lambda name=name: train(name),
            lambda model, seconds: [{"weights": model.count_params()}],
        )
        found.append((model, measured))
    return found


def test_a_stopped_run_goes_on_after_its_last_finished_stage(tmp_path):
    trained = []
    with pytest.raises(KeyboardInterrupt):
        run_both(tmp_path, resume=False, trained=trained, fail=True)
    assert trained == ["first"]
    kept = keras.saving.load_model(tmp_path / "first.keras")
    found = run_both(tmp_path, resume=True, trained=trained)
    assert trained == ["first", "second"]
    assert [measured for _, measured in found] == [[{"weights": 3}]] * 2
    np.testing.assert_array_equal(found[0][0].get_weights()[0], kept.get_weights()[0])


def test_a_measurement_that_fails_leaves_the_stage_unfinished(tmp_path):
    stages = Stages(tmp_path, {}, resume=False)
    with pytest.raises(ZeroDivisionError):
        stages.run("first", {}, small, lambda model, seconds: 1 / 0)
    assert not list(tmp_path.glob("*.json"))


def test_another_configuration_is_refused_and_nothing_is_lost(tmp_path):
    run_both(tmp_path, resume=False, epochs=1)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=r"second: now {'epochs': 2}, then .*: 1}"):
        run_both(tmp_path, resume=True, epochs=2)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_without_resume_stages_are_trained_anew(tmp_path):
    trained = []
    run_both(tmp_path, resume=False, trained=trained)
    run_both(tmp_path, resume=False, epochs=2, trained=trained)
    assert trained == ["first", "second"] * 2
    record = json.loads((tmp_path / "second.stage.json").read_text())
    assert record["settings"]["second"] == {"epochs": 2}
