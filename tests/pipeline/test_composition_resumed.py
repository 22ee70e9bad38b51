"""A fit of many techniques that is killed and taken up again ends as a whole one."""

import keras
import pytest

from .composition_checks import (
    check_file,
    check_nothing_left,
    check_same_history,
    check_same_weights,
    check_trained,
)
from .composition_nets import data
from .composition_techniques import (
    CALLBACKS,
    EPOCHS,
    TECHNIQUES,
    StopBefore,
    callbacks,
    combinations,
    fit,
    name_of,
    student,
)


def check_resumed(techniques, epochs, folder, **options):
    """A whole fit, beside one with its callbacks backwards that is killed twice."""
    whole = student(techniques, **options)
    history = fit(whole, *callbacks(techniques))

    def fit_with_backup(*stop):
        model = student(techniques, **options)
        backup = keras.callbacks.BackupAndRestore(folder / "backup")
        received = fit(model, backup, *callbacks(techniques)[::-1], *stop)
        return model, received

    for epoch in epochs:
        with pytest.raises(KeyboardInterrupt):
            fit_with_backup(StopBefore(epoch))
    resumed, rest = fit_with_backup()
    assert len(rest["loss"]) == EPOCHS - epochs[-1]
    check_same_history(rest, history)
    check_nothing_left(resumed)
    check_trained(resumed, techniques)
    check_same_weights(resumed, whole)
    return resumed


@pytest.mark.slow
def test_all_techniques_resumed_before_and_after_clusters_begin(tmp_path):
    resumed = check_resumed(TECHNIQUES, [1, 2], tmp_path)
    check_file(resumed, TECHNIQUES, tmp_path / "m.tflite", data()[0])


@pytest.mark.slow
@pytest.mark.parametrize("techniques", combinations([2, 3], CALLBACKS), ids=name_of)
def test_pairs_and_triples_resumed(techniques, tmp_path):
    check_resumed(techniques, [1, 2], tmp_path, run_eagerly=True)
