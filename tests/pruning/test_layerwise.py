"""The sparsities of all layers together are that of the whole model."""

from types import MappingProxyType

import keras
import numpy as np
import pytest
from keras import layers

from keras_compress.pruning.layerwise import layerwise_sparsity
from keras_compress.pruning.sensitivity import Sensitivity

SIZES = {"conv": 3 * 3 * 2 * 16, "depthwise": 3 * 3 * 16, "dense": 64 * 10}


def build():
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(16, 3, name="conv"),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(10, name="dense"),
        ]
    )


def kept(sparsities):
    return {name: round(SIZES[name] * (1 - s)) for name, s in sparsities.items()}


def measured(sparsities=(0.5, 0.9), **values):
    values = MappingProxyType(values or {"conv": (0.7, 0.1)})
    return Sensitivity("accuracy", False, 0.9, sparsities, values)


@pytest.mark.parametrize("target", [0, 0.1, 0.5, 0.777, 0.9, 0.997])
def test_erk_hits_the_target_to_the_weight(target):
    found = layerwise_sparsity(build(), target)
    total = sum(SIZES.values())
    assert list(found) == list(SIZES)
    assert sum(kept(found).values()) == round(total * (1 - target))
    assert all(0 <= sparsity < 1 for sparsity in found.values())


def test_erk_keeps_in_proportion_to_the_sum_of_the_dimensions():
    # Sums of the dimensions: 24, 23 and 74; 1072 weights, of which 107 stay.
    found = layerwise_sparsity(build(), 0.9)
    exact = {"conv": 107 * 24 / 121, "depthwise": 107 * 23 / 121}
    exact["dense"] = 107 * 74 / 121
    for name, number in kept(found).items():
        assert abs(number - exact[name]) < 1


def test_erk_keeps_all_of_a_layer_that_would_keep_more_than_it_has():
    # 536 stay; 23/121 of them are less than the 144 of the depthwise layer, but of
    # 965 they are more: those 821 that are left are shared 24 : 74, where the conv
    # layer would get 201 and the dense one 620.
    assert kept(layerwise_sparsity(build(), 0.1)) == {
        "conv": 201,
        "depthwise": 144,
        "dense": 620,
    }


@pytest.mark.parametrize("target", [0.1, 0.5, 0.777, 0.89])
def test_a_sensitivity_hits_the_target_to_the_weight(target):
    values = {"conv": (0.9, 0.7), "depthwise": (0.5, 0.3), "dense": (0.9, 0.9)}
    found = layerwise_sparsity(build(), target, measured(**values))
    total = sum(SIZES.values())
    assert sum(kept(found).values()) == round(total * (1 - target))
    assert found["depthwise"] <= found["conv"] <= found["dense"]


def test_by_a_sensitivity_all_layers_lose_equally_much():
    # Straight lines: at a loss of 0.06 the layers have sparsity 0.6, 0.3 and 0.15.
    values = {"conv": (0.85, 0.81), "depthwise": (0.8, 0.72), "dense": (0.7, 0.54)}
    wanted = {"conv": 0.6, "depthwise": 0.3, "dense": 0.15}
    total = sum(SIZES.values())
    zeros = sum(SIZES[name] * wanted[name] for name in SIZES)
    found = layerwise_sparsity(build(), zeros / total, measured(**values))
    for name, sparsity in found.items():
        assert sparsity == pytest.approx(wanted[name], abs=0.01)


def test_where_a_loss_shall_be_low_the_worse_is_the_higher():
    values = {"conv": (2.0, 3.0), "depthwise": (0.9, 0.95), "dense": (1.0, 1.1)}
    loss = Sensitivity("loss", True, 0.9, (0.5, 0.9), MappingProxyType(values))
    found = layerwise_sparsity(build(), 0.5, loss)
    assert found["conv"] < found["dense"] < found["depthwise"]


def test_several_kernels_of_a_layer_count_together():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            layers.SeparableConv2D(8, 3, name="separable"),
            layers.Conv2D(8, 3, name="conv"),
        ]
    )
    found = layerwise_sparsity(model, 0.8)
    sizes = {"separable": 3 * 3 * 4 + 4 * 8, "conv": 3 * 3 * 8 * 8}
    sums = {"separable": 3 + 3 + 4 + 1 + 1 + 1 + 4 + 8, "conv": 3 + 3 + 8 + 8}
    total = round(0.2 * sum(sizes.values()))
    for name, sparsity in found.items():
        exact = total * sums[name] / sum(sums.values())
        assert abs(sizes[name] * (1 - sparsity) - exact) < 1


@pytest.mark.parametrize("target", [-0.1, 1, 1.5, float("nan")])
def test_a_target_outside_the_range_is_refused(target):
    with pytest.raises(ValueError, match=rf"in \[0, 1\).*target={target}"):
        layerwise_sparsity(build(), target)


def test_a_target_that_would_leave_a_layer_without_weights_is_refused():
    with pytest.raises(ValueError, match="leaves 2 weights to 3 layers"):
        layerwise_sparsity(build(), 0.998)


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="method='uniform'"):
        layerwise_sparsity(build(), 0.5, "uniform")


def test_a_sensitivity_of_other_layers_is_refused():
    with pytest.raises(ValueError, match=r"\['conv'\].*depthwise"):
        layerwise_sparsity(build(), 0.5, measured())


def test_a_target_beyond_the_measured_sparsities_is_refused():
    values = {name: (0.8, 0.7) for name in SIZES}
    with pytest.raises(ValueError, match=r"measured up to sparsity 0.9"):
        layerwise_sparsity(build(), 0.95, measured(**values))
    found = layerwise_sparsity(build(), 0.9, measured(**values))
    assert sum(kept(found).values()) == round(sum(SIZES.values()) * 0.1)


def test_a_model_without_a_kernel_is_refused():
    model = keras.Sequential([keras.Input((6,)), layers.ReLU()])
    with pytest.raises(ValueError, match="no kernel to prune"):
        layerwise_sparsity(model, 0.5)


def test_the_numbers_kept_are_the_numbers_asked_for():
    found = layerwise_sparsity(build(), 0.73)
    for name, sparsity in found.items():
        exact = SIZES[name] * (1 - sparsity)
        assert exact == pytest.approx(np.round(exact), abs=1e-9)
