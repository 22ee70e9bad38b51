"""A kernel that is of low rank is reproduced, whatever else its layer does."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_compress.factorization.factorize import factorize

SERIES, IMAGE, VOLUME = (14, 20), (11, 13, 20), (6, 5, 7, 20)
CASES = {
    "dense": ((40,), layers.Dense(32, activation="gelu"), "matrix"),
    "dense, no bias": ((40,), layers.Dense(32, use_bias=False), "matrix"),
    "dense on steps": (SERIES, layers.Dense(32, activation="relu"), "matrix"),
    "einsum": (
        SERIES,
        layers.EinsumDense("abc,cd->abd", (14, 32), bias_axes="bd", activation="tanh"),
        "matrix",
    ),
    "einsum, ellipsis": (
        IMAGE,
        layers.EinsumDense("...x,xy->...y", 32, bias_axes="y"),
        "matrix",
    ),
    "einsum, no bias": (SERIES, layers.EinsumDense("...x,xy->...y", 32), "matrix"),
    "1d": (SERIES, layers.Conv1D(24, 3, activation="relu"), "channel"),
    "1d, causal": (
        SERIES,
        layers.Conv1D(24, 4, padding="causal", dilation_rate=2),
        "channel",
    ),
    "1d, strides": (
        SERIES,
        layers.Conv1D(24, 4, strides=3, padding="same", use_bias=False),
        "channel",
    ),
    "1x1": (IMAGE, layers.Conv2D(24, 1, strides=2, activation="elu"), "channel"),
    "1x3": (IMAGE, layers.Conv2D(24, (1, 3), padding="same"), "channel"),
    "3x3": (IMAGE, layers.Conv2D(24, 3, activation="silu"), "spatial"),
    "3x3, same": (
        IMAGE,
        layers.Conv2D(24, 3, padding="same", use_bias=False),
        "spatial",
    ),
    "strides": (
        IMAGE,
        layers.Conv2D(24, (3, 5), strides=(2, 3), padding="same", activation="relu"),
        "spatial",
    ),
    "strides, valid": (IMAGE, layers.Conv2D(24, (5, 2), strides=(3, 2)), "spatial"),
    "dilation": (
        IMAGE,
        layers.Conv2D(24, (3, 2), dilation_rate=(2, 3), padding="same"),
        "spatial",
    ),
    "dilation, valid": (IMAGE, layers.Conv2D(24, 3, dilation_rate=(3, 2)), "spatial"),
    "3x3, channels": (IMAGE, layers.Conv2D(24, 3, padding="same"), "channel"),
    "strides, channels": (
        IMAGE,
        layers.Conv2D(24, (3, 5), strides=(2, 3), padding="same", activation="relu"),
        "channel",
    ),
    "dilation, channels": (
        IMAGE,
        layers.Conv2D(24, (3, 2), dilation_rate=(2, 3)),
        "channel",
    ),
    "channels first": (
        (20, 11, 13),
        layers.Conv2D(24, 3, strides=2, data_format="channels_first"),
        "spatial",
    ),
    "3d": (
        VOLUME,
        layers.Conv3D(24, (3, 2, 1), strides=(2, 1, 1), padding="same"),
        "channel",
    ),
    "3d, dilation": (VOLUME, layers.Conv3D(24, 2, dilation_rate=2), "channel"),
}


def low_rank(shape, way, rank, random):
    """A kernel of this rank, unfolded as the way does, by einsum."""
    if len(shape) == 2 or way == "channel":
        a, b = (
            random.normal(size=(*shape[:-1], rank)),
            random.normal(size=(rank, shape[-1])),
        )
        return a @ b / np.sqrt(a.size)
    height, width, inputs, outputs = shape
    a = random.normal(size=(height, inputs, rank))
    b = random.normal(size=(width, rank, outputs))
    return np.einsum("hir,wro->hwio", a, b) / np.sqrt(a.size)


@pytest.mark.parametrize("case", CASES)
def test_a_kernel_of_low_rank_is_reproduced(case):
    shape, layer, way = CASES[case]
    layer = type(layer).from_config(layer.get_config())
    model = keras.Sequential([keras.Input(shape), layer])
    random = np.random.default_rng(0)
    layer.kernel.assign(low_rank(layer.kernel.shape, way, 5, random))
    if layer.bias is not None:
        layer.bias.assign(random.normal(size=layer.bias.shape))
    smaller = factorize(model, energy=1.0)
    [row] = smaller.factor_report.layers
    assert (row.way, row.rank, len(smaller.layers)) == (way, 8, 3)
    assert smaller.count_params() < model.count_params()
    x = random.normal(size=(3, *shape)).astype("float32")
    expected = np.array(model(x))
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(smaller(x), expected, rtol=1e-5, atol=1e-5)


def test_the_error_of_a_dense_kernel_is_the_bound_of_eckart_and_young():
    layer = layers.Dense(48, use_bias=False)
    model = keras.Sequential([keras.Input((64,)), layer])
    smaller = factorize(model, energy=0.6, round_to=1)
    kernel = np.array(layer.kernel, "float64")
    squares = np.linalg.svd(kernel, compute_uv=False) ** 2
    kept = np.cumsum(squares) / squares.sum()
    [row] = smaller.factor_report.layers
    # The smallest rank that keeps 0.6.
    assert kept[row.rank - 2] < 0.6 <= kept[row.rank - 1]
    assert row.energy == pytest.approx(kept[row.rank - 1], abs=1e-6)
    first, second = (np.array(v, "float64") for v in smaller.weights)
    error = np.linalg.norm(kernel - first @ second) ** 2
    assert error == pytest.approx(squares[row.rank :].sum(), rel=1e-4)
    assert len(row.reason) == 0


@pytest.mark.parametrize("shape", [(3, 3, 8, 40), (5, 2, 40, 8)])
def test_the_error_of_a_convolution_is_the_bound_of_eckart_and_young(shape):
    """The better one of both unfoldings, at the fewest parameters."""
    layer = layers.Conv2D(shape[-1], shape[:2], use_bias=False)
    model = keras.Sequential([keras.Input((9, 9, shape[2])), layer])
    smaller = factorize(model, energy=0.5, round_to=1)
    kernel = np.array(layer.kernel, "float64")
    a, b, c, d = shape
    matrices = {
        "channel": kernel.reshape(a * b * c, d),
        "spatial": np.einsum("hwio->hiwo", kernel).reshape(a * c, b * d),
    }
    squares = {
        way: np.linalg.svd(matrix, compute_uv=False) ** 2
        for way, matrix in matrices.items()
    }
    needed = {
        way: int(np.argmax(np.cumsum(s) / s.sum() >= 0.5)) + 1
        for way, s in squares.items()
    }
    costs = {way: needed[way] * sum(matrices[way].shape) for way in matrices}
    [row] = smaller.factor_report.layers
    assert row.way == min(costs, key=costs.get)
    assert row.rank == needed[row.way]
    assert row.after == costs[row.way] == smaller.count_params()
    first, second = (np.array(v, "float64") for v in smaller.weights)
    if row.way == "channel":
        product = np.einsum("hwir,xyro->hwio", first, second)
    else:
        product = np.einsum("hxir,ywro->hwio", first, second)
    error = np.linalg.norm(kernel - product) ** 2
    assert error == pytest.approx(squares[row.way][row.rank :].sum(), rel=1e-4)


def test_singular_values_are_split_evenly():
    layer = layers.Dense(30)
    model = keras.Sequential([keras.Input((50,)), layer])
    smaller = factorize(model, energy=0.5)
    values = np.linalg.svd(np.array(layer.kernel), compute_uv=False)
    first, second = (np.array(part.kernel) for part in smaller.layers[-2:])
    rank = len(second)
    np.testing.assert_allclose(first.T @ first, np.diag(values[:rank]), atol=1e-5)
    np.testing.assert_allclose(second @ second.T, np.diag(values[:rank]), atol=1e-5)
