"""Budgets, rounding, what is kept of the model, and bad input."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

import keras_compress as kc
import tflite_export

from .nets import batch, build, chain, dense_block, nested, outputs


def wide(x, units=32):
    for strides in (1, 2, 1):
        y = layers.Conv2D(units, 3, strides=strides, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(y))
    y = layers.Conv2D(units, 3, padding="same")(x)
    x = layers.Flatten()(layers.Add()([x, y]))
    return layers.Dense(10)(layers.Dense(4 * units, activation="relu")(x))


def by_hand(model):
    """Parameters and multiply-accumulates, summed over the layers."""
    macs = 0
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            kh, kw, inputs, filters = layer.kernel.shape
            _, height, width, _ = layer.output.shape
            macs += height * width * kh * kw * inputs * filters
        elif isinstance(layer, layers.Dense):
            macs += layer.kernel.shape[0] * layer.units
    return {"macs": macs, "params": model.count_params()}


@pytest.mark.parametrize("what", ["macs", "params"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.85])
def test_a_budget_is_met(what, share):
    model = build(wide)
    full = by_hand(model)
    smaller = kc.prune_channels(model, **{what: share}, round_to=1)
    assert by_hand(smaller)[what] / full[what] == pytest.approx(share, rel=0.01)
    reported = getattr(smaller.channel_report, what)
    assert reported == (full[what], by_hand(smaller)[what])


def test_layers_keep_multiples_of_eight_and_never_fewer():
    smaller = kc.prune_channels(build(wide), macs=0.15)
    widths = {layer.filters for layer in smaller.layers if hasattr(layer, "filters")}
    widths |= {layer.units for layer in smaller.layers if hasattr(layer, "units")}
    assert min(widths) == 8
    assert {width % 8 for width in widths - {10}} == {0}


def test_a_ratio_is_uniform_and_keeps_the_best():
    model = build(chain)
    [first, second] = [g for g in kc.channel_groups(model) if not g.frozen]
    wanted = {first.name: [1, 2, 5, 7], second.name: [0, 3, 4]}

    def chosen(group, model):
        return np.isin(np.arange(group.size), wanted[group.name]).astype(float)

    smaller = kc.prune_channels(model, ratio=0.5, importance=chosen, round_to=1)
    assert [g.after for g in smaller.channel_report.groups] == [3, 4, 3, 3]
    old, new = model.layers[2], smaller.layers[2]
    assert old.name == new.name == second.name
    kernel = np.array(old.kernel)[:, :, [1, 2, 5, 7]][..., [0, 3, 4]]
    np.testing.assert_array_equal(new.kernel, kernel)
    np.testing.assert_array_equal(new.bias, np.array(old.bias)[[0, 3, 4]])


def test_one_threshold_for_all_groups_takes_more_of_the_flatter_one():
    """Scores over their mean: 0.4 ... 1.6 in one group, 0.95 ... 1.05 in the other."""
    model = build(chain)

    def score(group, model):
        spread = 0.6 if group.size == 8 else 0.05
        return 7 * np.linspace(1 - spread, 1 + spread, group.size)

    smaller = kc.prune_channels(model, macs=0.75, importance=score, round_to=1)
    counts = [(g.before, g.after) for g in smaller.channel_report.groups]
    # The 8 channels lose theirs below 0.95 first: those at 0.4, 0.57, 0.74 and 0.91.
    assert 4 <= dict(counts)[8] < 8
    assert dict(counts)[6] == 6


def test_no_group_is_cut_far_below_a_uniform_share_unless_it_is_asked_for():
    """One channel of the first group has nearly all of its score."""
    model = build(wide)
    first = next(g for g in kc.channel_groups(model) if not g.frozen)

    def score(group, model):
        if group.name != first.name:
            return np.linspace(0.9, 1.1, group.size)
        return np.eye(1, group.size)[0] + 1e-6

    def kept(**options):
        options |= {"importance": score, "round_to": 1}
        smaller = kc.prune_channels(model, macs=0.36, **options)
        share = by_hand(smaller)["macs"] / by_hand(model)["macs"]
        assert share == pytest.approx(0.36, rel=0.01)
        groups = smaller.channel_report.groups
        return next(g.after for g in groups if g.name == first.name and not g.reason)

    assert kept(min_channels=1) == 1
    # Half of the square root of 0.36, of 32 channels.
    assert kept() == 10


def test_the_given_model_keeps_its_weights_and_the_new_one_its_own():
    model = build(nested)
    before = [np.array(v) for v in model.weights]
    smaller = kc.prune_channels(model, macs=0.5, round_to=1)
    for variable in smaller.weights:
        variable.assign(keras.ops.zeros_like(variable))
    for old, variable in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, variable)
    assert smaller.input_shape == model.input_shape
    assert smaller.output_shape == model.output_shape
    assert smaller.name == model.name


def test_a_share_of_one_changes_nothing():
    model = build(dense_block)
    x = batch(model)
    [expected], [found] = (
        outputs(model, x),
        outputs(kc.prune_channels(model, macs=1), x),
    )
    np.testing.assert_array_equal(found, expected)


def test_the_compile_state_is_carried_and_the_model_learns():
    model = build(wide)
    model.compile(keras.optimizers.Adam(3e-3), "mse", metrics=["mae"])
    smaller = kc.prune_channels(model, macs=0.5)
    x = batch(model, 16)
    history = smaller.fit(x, np.ones((16, 10)), epochs=4, verbose=0).history
    assert set(history) == {"loss", "mae"}
    assert history["loss"][-1] < history["loss"][0]


LOAD = """
import sys
import numpy as np, keras
model = keras.models.load_model(sys.argv[1])
y = model.predict(np.load(sys.argv[2]), verbose=0)
assert not [name for name in sys.modules if name.startswith("keras_compress")]
np.save(sys.argv[3], y)
"""


def test_the_model_loads_without_this_package_and_exports(tmp_path):
    smaller = kc.prune_channels(build(wide), macs=0.5)
    x = batch(smaller, 16)
    smaller.save(tmp_path / "m.keras")
    np.save(tmp_path / "x.npy", x)
    paths = [str(tmp_path / name) for name in ("m.keras", "x.npy", "y.npy")]
    subprocess.run([sys.executable, "-c", LOAD, *paths], check=True, cwd=tmp_path)
    expected = smaller.predict(x, verbose=0)
    np.testing.assert_allclose(np.load(paths[2]), expected, rtol=1e-5, atol=1e-5)
    tflite_export.export(smaller, tmp_path / "m.tflite", representative_data=x)
    macs = tflite_export.inspect(tmp_path / "m.tflite").macs
    assert macs == smaller.channel_report.macs[1]


def test_open_input_sizes_count_as_one_size():
    inputs = keras.Input((None, None, 3))
    y = layers.Conv2D(16, 3, padding="same", activation="relu")(inputs)
    y = layers.Conv2D(24, 3, strides=2, padding="same")(y)
    y = layers.Dense(4)(layers.GlobalAveragePooling2D()(y))
    smaller = kc.prune_channels(keras.Model(inputs, y), macs=0.5, round_to=1)
    before, after = smaller.channel_report.macs
    assert before == 224**2 * 27 * 16 + 112**2 * 9 * 16 * 24 + 24 * 4
    assert after / before == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of"),
        ({"macs": 0.5, "ratio": 0.5}, "exactly one of"),
        ({"macs": 0}, r"in \(0, 1\]"),
        ({"params": 1.5}, r"in \(0, 1\].*params=1.5"),
        ({"ratio": "half"}, "ratio='half'"),
        ({"macs": 0.5, "round_to": 0}, "round_to=0"),
        ({"macs": 0.5, "min_channels": 2.5}, "min_channels=2.5"),
    ],
)
def test_wrong_arguments_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        kc.prune_channels(build(chain), **options)


def test_a_budget_out_of_reach_says_how_far_one_can_go_and_what_blocks():
    model = build(wide)
    least = kc.prune_channels(model, ratio=0.01)
    share = by_hand(least)["macs"] / by_hand(model)["macs"]
    with pytest.raises(ValueError, match=f"{share:.3f} is left.*: model output"):
        kc.prune_channels(model, macs=share / 2)
    with pytest.raises(ValueError, match="left out by `layers`"):
        kc.prune_channels(model, macs=0.5, layers=lambda layer: False)


def test_a_model_that_is_not_built_is_an_error():
    with pytest.raises(ValueError, match="must be built"):
        kc.prune_channels(keras.Sequential([layers.Dense(3)]), macs=0.5)
    with pytest.raises(ValueError, match=r"keras\.Model"):
        kc.prune_channels("model", macs=0.5)
