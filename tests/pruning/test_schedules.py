"""Schedules against calculations by hand and against TFMOT's own objects."""

import importlib.util

import pytest

import keras_compress as kc
from keras_compress.pruning.any_schedule import as_schedule


@pytest.mark.parametrize(
    ("step", "sparsity"),
    # As in TFMOT's own test; 0.8 - 0.6 * 0.8^3 = 0.4928, 0.8 - 0.6 * 0.5^3 = 0.725.
    [(0, 0.2), (100, 0.2), (102, 0.4928), (105, 0.725), (110, 0.8), (500, 0.8)],
)
def test_polynomial_decay_has_the_published_values(step, sparsity):
    schedule = kc.PolynomialDecay(0.2, 0.8, 100, 110, 3, 2)
    assert schedule(step)[1] == pytest.approx(sparsity, abs=1e-12)


def test_the_power_bends_the_curve():
    schedule = kc.PolynomialDecay(0.0, 0.9, 0, 10, power=1)
    assert schedule(5)[1] == pytest.approx(0.45)


@pytest.mark.parametrize(
    ("schedule", "updates"),
    [
        (kc.ConstantSparsity(0.5, 3, 12, frequency=4), [3, 7, 11, 12]),
        (kc.ConstantSparsity(0.5, 3, frequency=4), [3, 7, 11, 15, 19]),
        (kc.PolynomialDecay(0.1, 0.5, 2, 9, frequency=3), [2, 5, 8, 9]),
        (kc.PolynomialDecay(0.1, 0.5, 4, 4), [4]),
    ],
)
def test_updates_are_at_every_frequency_and_at_the_end(schedule, updates):
    assert [step for step in range(20) if schedule(step)[0]] == updates
    for now in range(20):
        before = [step for step in updates if step <= now]
        assert schedule.last_update(now) == (before[-1] if before else None)
        assert schedule.last_update(now, after=now) is None


def test_shares_of_a_fit_become_steps():
    schedule = kc.PolynomialDecay(0.0, 0.5, 0.25, 0.75, frequency=10)
    assert schedule.for_fit(start=100, length=200) == kc.PolynomialDecay(
        0.0, 0.5, 150, 250, frequency=10
    )
    assert kc.PolynomialDecay(0.0, 0.5).for_fit(start=7, length=50).end_step == 57
    with pytest.raises(ValueError, match=r"`schedule\.for_fit\(start=0, "):
        schedule(3)


def test_a_schedule_comes_back_from_its_config():
    for schedule in (
        kc.PolynomialDecay(0.2, 0.8, 100, 110, 3, 2),
        kc.ConstantSparsity(0.5, 0.1, 0.5, 7),
    ):
        assert type(schedule)(**schedule.get_config()) == schedule


@pytest.fixture(scope="module")
def tfmot_schedules(tmp_path_factory):
    """TFMOT's module of schedules alone, without what else its import does."""
    root = importlib.util.find_spec("tensorflow_model_optimization").origin
    path = root.replace("__init__.py", "python/core/sparsity/keras/pruning_schedule.py")
    name = "tensorflow_model_optimization.pruning_schedule"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_schedules_of_tfmot_are_taken_with_their_arguments(tfmot_schedules):
    theirs = tfmot_schedules.PolynomialDecay(0.2, 0.8, 100, 110, 3, 4)
    assert as_schedule(theirs) == kc.PolynomialDecay(0.2, 0.8, 100, 110, 3, 4)
    constant = tfmot_schedules.ConstantSparsity(0.5, 3, 20, 7)
    assert as_schedule(constant) == kc.ConstantSparsity(0.5, 3, 20, 7)


def test_values_are_those_of_tfmot(tfmot_schedules):
    arguments = (0.1, 0.9, 3, 23, 2.5, 5)
    ours = kc.PolynomialDecay(*arguments)
    theirs = tfmot_schedules.PolynomialDecay(*arguments)
    for step in range(30):
        update, sparsity = theirs(step)
        assert ours(step)[0] == bool(update)
        assert ours(step)[1] == pytest.approx(float(sparsity), abs=1e-6)


def test_any_function_of_the_step_is_a_schedule():
    schedule = as_schedule(lambda step: (step % 4 == 1, step / 100))
    assert schedule(5) == (True, 0.05)
    assert [schedule.last_update(now, after=1) for now in (4, 5, 9)] == [None, 5, 9]
    assert schedule.last_update(6) is None
    with pytest.raises(ValueError, match=r"`sparsity` must be in \[0, 1\)"):
        schedule.sparsity(101)


@pytest.mark.parametrize("sparsity", [-0.1, 1, 1.0, 1.5, float("nan"), True])
def test_other_sparsities_are_refused(sparsity):
    with pytest.raises(ValueError, match=r"`target_sparsity` must be in \[0, 1\)"):
        kc.ConstantSparsity(sparsity)
    with pytest.raises(ValueError, match=r"`final_sparsity` must be in \[0, 1\)"):
        kc.PolynomialDecay(0.0, sparsity)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"begin_step": 5, "end_step": 4}, "begin_step=5, end_step=4"),
        ({"begin_step": 0.6, "end_step": 0.5}, "begin_step=0.6, end_step=0.5"),
        ({"begin_step": -1}, "`begin_step` must be a step"),
        ({"begin_step": None}, "`begin_step` must be a step"),
        ({"end_step": -2}, "`end_step` must be a step"),
        ({"end_step": 1.5}, "`end_step` must be a step"),
        ({"frequency": 0}, "`frequency`.*at least 1"),
        ({"frequency": 2.0}, "`frequency`.*at least 1"),
    ],
)
def test_other_steps_are_refused(arguments, message):
    for make in (
        lambda **given: kc.ConstantSparsity(0.5, **given),
        lambda **given: kc.PolynomialDecay(0.0, 0.5, **given),
    ):
        with pytest.raises(ValueError, match=message):
            make(**arguments)


def test_a_decay_needs_an_end_and_a_positive_power():
    with pytest.raises(ValueError, match="`end_step` of a PolynomialDecay"):
        kc.PolynomialDecay(0.0, 0.5, 0, -1)
    with pytest.raises(ValueError, match="`power` must be above 0"):
        kc.PolynomialDecay(0.0, 0.5, power=0)


def test_what_is_no_schedule_is_refused():
    for schedule in ("kept", None, [0.5]):
        with pytest.raises(ValueError, match="`schedule` must be a sparsity"):
            kc.MagnitudePruning(schedule)


def test_the_plot_shows_the_sparsity_at_every_step():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    ax = kc.PolynomialDecay(0.2, 0.8, 100, 110, 3, 2).plot()
    steps, sparsities = ax.lines[0].get_data()
    shown = dict(zip(steps, sparsities, strict=True))
    assert shown[99] == 0
    assert shown[103] == pytest.approx(0.4928)
    assert shown[111] == pytest.approx(0.8)
