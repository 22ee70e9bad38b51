"""Spectra and products of kernels against NumPy's singular value decomposition."""

import numpy as np
import pytest

from keras_compress.factorization.spectrum import spectrum


def with_singular_values(n, m, values):
    """A float32 matrix with about these singular values."""
    random = np.random.default_rng(0)
    left, _ = np.linalg.qr(random.normal(size=(n, len(values))))
    right, _ = np.linalg.qr(random.normal(size=(m, len(values))))
    return (left * values @ right.T).astype("float32")


MATRICES = {
    "falling": with_singular_values(90, 60, np.geomspace(1, 1e-4, 60)),
    "wide": with_singular_values(60, 90, np.geomspace(5, 1e-3, 60)),
    "all alike": with_singular_values(80, 40, np.full(40, 3.0)),
    "in clusters": with_singular_values(70, 48, np.repeat([1.0, 0.3, 0.1], 16)),
    "identity": np.eye(32, dtype="float32"),
    "low rank": with_singular_values(64, 64, np.array([2.0, 1.0, 0.5])),
    "normal": np.random.default_rng(1).normal(size=(300, 200)).astype("float32"),
    "one row": np.arange(1, 8, dtype="float32")[None],
    "many rows": np.random.default_rng(2).normal(size=(9000, 8)).astype("float32"),
}


@pytest.mark.parametrize("name", MATRICES)
def test_squares_are_the_squared_singular_values(name):
    matrix = MATRICES[name]
    expected = np.linalg.svd(matrix.astype("float64"), compute_uv=False)
    squares = spectrum(matrix).squares
    # What is left out is rounding of float32.
    left_out = expected[squares == 0]
    assert (left_out < 1e-4 * expected[0]).all()
    kept = squares > 0
    np.testing.assert_allclose(np.sqrt(squares[kept]), expected[kept], rtol=1e-6)


def test_the_smallest_singular_values_are_exact_to_their_last_kept_one():
    matrix = MATRICES["falling"]
    squares = spectrum(matrix).squares
    assert squares[-1] > 0
    assert squares[-1] / squares[0] == pytest.approx(1e-8, rel=0.05)


def test_a_matrix_of_low_rank_has_no_energy_beyond_it():
    found = spectrum(MATRICES["low rank"])
    assert np.count_nonzero(found.squares) == 3
    np.testing.assert_array_equal(found.lost[3:], 0)
    np.testing.assert_allclose(found.lost[:4], [1, 1.25 / 5.25, 0.25 / 5.25, 0])


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("name", MATRICES)
def test_factors_are_as_near_as_the_truncated_decomposition(name, share):
    matrix = MATRICES[name]
    rank = max(1, int(share * min(matrix.shape)))
    first, second = spectrum(matrix).factors(matrix, rank)
    assert (first.dtype, second.dtype) == ("float32", "float32")
    assert first.shape == (matrix.shape[0], rank)
    assert second.shape == (rank, matrix.shape[1])
    values = np.linalg.svd(matrix.astype("float64"), compute_uv=False)
    error = np.linalg.norm(matrix - first.astype("float64") @ second)
    bound = np.linalg.norm(values[rank:])
    assert error == pytest.approx(bound, rel=1e-4, abs=1e-6 * values[0] * len(values))


@pytest.mark.parametrize("name", MATRICES)
def test_the_vectors_are_orthonormal_and_sorted(name):
    matrix = MATRICES[name]
    shorter = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    count = max(1, shorter.shape[1] // 2)
    found = spectrum(matrix)
    vectors = found.gram.largest_vectors(count)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(count), atol=1e-10)
    lengths = np.linalg.norm(shorter.astype("float64") @ vectors, axis=0)
    expected = np.linalg.svd(shorter.astype("float64"), compute_uv=False)[:count]
    np.testing.assert_allclose(lengths, expected, rtol=1e-6, atol=1e-6 * expected[0])
