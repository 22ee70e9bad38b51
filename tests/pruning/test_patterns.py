"""Masks against calculations by hand, brute force and TFMOT's published cases."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_compress as kc
from keras_compress.kernels import find_kernels
from keras_compress.pruning.patterns import NOfM, as_pattern
from keras_compress.pruning.selection import keep_best, keep_best_of_all, largest


def kernel_of(layer, shape):
    model = keras.Sequential([keras.Input(shape), layer])
    [kernel] = find_kernels(model)[0]
    return kernel


def mask_of(pattern, weights, kernel, sparsity):
    pattern = as_pattern(pattern)
    [kept] = keep_best([pattern.pool(np.abs(weights), kernel)], sparsity)
    return pattern.spread(kept, kernel)


def random(shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


@pytest.mark.parametrize("sparsity", [0.0, 0.2, 0.5, 0.85, 0.99])
def test_exactly_the_rounded_number_is_kept_ties_included(sparsity):
    weights = np.random.default_rng(0).integers(0, 4, (20, 10)).astype("float32")
    [mask] = keep_best([weights], sparsity)
    assert mask.sum() == round(200 * (1 - sparsity))
    assert weights[mask].min(initial=9) >= weights[~mask].max(initial=0)


def test_equal_weights_are_pruned_too():
    """TFMOT keeps all weights of a kernel whose weights are equal."""
    [mask] = keep_best([np.ones((10, 10))], 0.9)
    assert np.flatnonzero(mask).tolist() == list(range(10))


def test_the_largest_of_a_range_are_kept():
    """TFMOT's published case: of 0 .. 99 at 50 % those from 50 on."""
    [mask] = keep_best([np.arange(100.0)], 0.5)
    np.testing.assert_array_equal(mask, np.arange(100) >= 50)


@pytest.mark.parametrize("sparsity", [0.1, 0.8, 0.999, 0.999999])
@pytest.mark.parametrize("order", ["random", "sorted", "blocks"])
def test_the_threshold_of_many_weights_is_exact(order, sparsity):
    weights = np.abs(random(300_000))
    if order != "random":
        weights.sort()
    if order == "blocks":  # a sample at regular distances sees only zeros
        weights[::10] = weights[::30] = 0
    [mask] = keep_best([weights], sparsity)
    keep = round(300_000 * (1 - sparsity))
    assert mask.sum() == keep
    assert (
        np.sort(weights[mask]).tolist() == np.sort(weights)[-keep or 300_000 :].tolist()
    )


def test_not_a_number_is_never_hidden():
    assert largest(np.array([1.0, np.nan, 3.0]), 1).tolist() == [False, True, False]


def test_layers_compete_in_the_scope_of_the_model():
    units = [np.array([9.0, 8, 7, 1]), np.array([[6.0, 2], [3, 4]])]
    first, second = keep_best_of_all(units, 0.5, 1.0)
    assert first.tolist() == [True, True, True, False]
    assert second.tolist() == [[True, False], [False, False]]
    first, second = keep_best_of_all(units, 0.5, 0.5)
    assert first.tolist() == [True, True, False, False]
    assert second.tolist() == [[True, False], [False, True]]


def test_two_of_four_along_the_inputs_of_a_dense_layer():
    kernel = kernel_of(layers.Dense(3), (8,))
    weights = random((8, 3))
    mask = mask_of("2:4", weights, kernel, 0.5)
    for column in range(3):
        for start in (0, 4):
            group = np.abs(weights[start : start + 4, column])
            expected = group >= np.sort(group)[2]
            np.testing.assert_array_equal(mask[start : start + 4, column], expected)


@pytest.mark.parametrize("size", [1, 3])
def test_n_of_m_along_the_input_channels_of_a_convolution(size):
    kernel = kernel_of(layers.Conv2D(5, size), (6, 6, 8))
    weights = random(kernel.shape)
    mask = mask_of("1:4", weights, kernel, 0.75)
    groups = mask.transpose(0, 1, 3, 2).reshape(-1, 4)
    sizes = np.abs(weights).transpose(0, 1, 3, 2).reshape(-1, 4)
    np.testing.assert_array_equal(groups.argmax(1), sizes.argmax(1))
    assert (groups.sum(1) == 1).all()


def test_a_transposed_convolution_has_its_inputs_last():
    kernel = kernel_of(layers.Conv2DTranspose(3, 2), (6, 6, 4))
    assert kernel.shape == (2, 2, 3, 4)
    mask = mask_of("2:4", random(kernel.shape), kernel, 0.5)
    assert (mask.sum(-1) == 2).all()


def test_an_einsum_sums_over_two_axes():
    layer = layers.EinsumDense("abcd,cde->abe", (None, 5))
    kernel = kernel_of(layer, (3, 2, 6))
    assert kernel.shape == (2, 6, 5)
    assert (kernel.input_axes, kernel.output_axes) == ((0, 1), (2,))
    mask = mask_of("2:4", random(kernel.shape), kernel, 0.5)
    assert (mask.reshape(3, 4, 5).sum(1) == 2).all()


def test_equal_weights_follow_n_of_m_too():
    kernel = kernel_of(layers.Dense(2), (8,))
    mask = mask_of("2:4", np.ones((8, 2), "float32"), kernel, 0.5)
    assert mask[:, 0].tolist() == [True, True, False, False] * 2


def test_a_last_group_keeps_up_to_n():
    kernel = kernel_of(layers.Dense(1), (7,))
    weights = np.array([[1], [2], [3], [4], [5], [7], [6]], "float32")
    mask = mask_of("2:4", weights, kernel, 0.5)
    assert mask[:, 0].tolist() == [False, False, True, True, False, True, True]


def test_n_of_m_follows_the_schedule():
    """Of what the full pattern prunes, the smallest go first."""
    kernel = kernel_of(layers.Dense(1), (8,))
    weights = np.array([[8], [7], [5], [6], [1], [2], [3], [4]], "float32")
    mask = mask_of("2:4", weights, kernel, 0.375)
    kept = [True, True, False, True, False, False, True, True]
    assert mask[:, 0].tolist() == kept


@pytest.mark.parametrize("pooling", ["average", "max"])
def test_blocks_go_as_a_whole(pooling):
    kernel = kernel_of(layers.Dense(8), (6,))
    weights = random((6, 8))
    block = kc.Block((2, 4), pooling=pooling)
    mask = mask_of(block, weights, kernel, 0.5)
    blocks = np.abs(weights).reshape(3, 2, 2, 4)
    pooled = (blocks.mean if pooling == "average" else blocks.max)(axis=(1, 3))
    expected = pooled >= np.sort(pooled, axis=None)[3]
    np.testing.assert_array_equal(mask, expected.repeat(2, 0).repeat(4, 1))


def test_a_convolution_has_a_matrix_of_blocks_per_position():
    kernel = kernel_of(layers.Conv2D(6, 3), (6, 6, 4))
    weights = random(kernel.shape)
    mask = mask_of(kc.Block((1, 4)), weights, kernel, 0.5)
    scores, parts = [], []
    for index in np.ndindex(3, 3, 4):
        for part in (slice(0, 4), slice(4, 6)):
            parts.append((*index, part))
            scores.append(np.abs(weights[*index, part]).mean())
    expected = np.zeros(kernel.shape, bool)
    for at in np.argsort(scores)[-36:]:
        expected[parts[at]] = True
    np.testing.assert_array_equal(mask, expected)


def test_a_block_that_is_too_large_is_refused_before_training():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2, name="small")])
    model.compile("sgd", "mse")
    before = np.array(model.layers[0].kernel)
    pruning = kc.MagnitudePruning(0.5, pattern=kc.Block((1, 4)))
    with pytest.raises(ValueError, match=r"\(1, 4\) does not fit .*small/kernel"):
        model.fit(np.ones((8, 4)), np.ones((8, 2)), callbacks=[pruning], verbose=0)
    np.testing.assert_array_equal(model.layers[0].kernel, before)


@pytest.mark.parametrize("pattern", ["4:4", "5:4", "0:4"])
def test_n_must_be_below_m(pattern):
    with pytest.raises(ValueError, match=f'1 <= n < m. Received: "{pattern}"'):
        kc.MagnitudePruning(0.5, pattern=pattern)


@pytest.mark.parametrize("pattern", ["2-4", "a", 4, (1, 4)])
def test_other_patterns_are_refused(pattern):
    with pytest.raises(ValueError, match="`pattern` must be None"):
        kc.MagnitudePruning(0.5, pattern=pattern)


def test_n_of_m_must_be_the_last_sparsity():
    with pytest.raises(ValueError, match=r'"2:4" leaves a share of 0\.5 zeros.* 0\.8'):
        kc.MagnitudePruning(0.8, pattern="2:4")
    assert kc.MagnitudePruning(0.75, pattern="1:4").pattern == NOfM(1, 4)


@pytest.mark.parametrize("size", [(1,), (0, 4), 4, (1.0, 4)])
def test_other_block_sizes_are_refused(size):
    with pytest.raises(ValueError, match=r"`size` must be \(rows, columns\)"):
        kc.Block(size)
    with pytest.raises(ValueError, match="`pooling` must be"):
        kc.Block((1, 4), pooling="min")
