"""The constraint moves the weights of a cluster as one."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_compress.clustering.shared_weights import SharedWeights

WEIGHTS = np.float32([[1, -2, 0], [1, 1, -2]])
CENTROIDS = np.float32([-2, 1])


def test_a_cluster_moves_by_the_mean_of_the_moves_of_its_weights():
    shared = SharedWeights(WEIGHTS, CENTROIDS)
    moves = np.float32([[0.3, 0.5, 9], [0.6, 0, -1]])
    expected = np.float32([[1.3, -2.25, 0], [1.3, 1.3, -2.25]])
    np.testing.assert_allclose(shared(WEIGHTS + moves), expected, rtol=1e-6)


def test_what_the_inner_constraint_zeroes_neither_counts_nor_moves():
    shared = SharedWeights(
        WEIGHTS, CENTROIDS, inner=lambda w: w * [[0.0, 1, 1], [1, 1, 1]]
    )
    moves = np.float32([[100, 0, 9], [0.25, 0.75, 0]])
    expected = np.float32([[0, -2, 0], [1.5, 1.5, -2]])
    np.testing.assert_array_equal(shared(WEIGHTS + moves), expected)


def test_weights_that_do_not_move_stay_to_the_last_bit():
    centroids = np.sort(np.random.default_rng(0).normal(size=7)).astype("float32")
    weights = np.random.default_rng(1).choice(centroids, (1000, 1001))
    np.testing.assert_array_equal(SharedWeights(weights, centroids)(weights), weights)


@pytest.mark.parametrize(("clusters", "dtype"), [(255, "uint8"), (256, "uint16")])
def test_the_memory_is_a_byte_per_weight_and_two_for_many_clusters(clusters, dtype):
    centroids = np.arange(1, clusters + 1, dtype="float32")
    shared = SharedWeights(centroids, centroids)
    assert shared.cluster.dtype == dtype
    np.testing.assert_array_equal(shared(centroids), centroids)


def test_a_kernel_of_zeros_stays_zero():
    zeros = np.zeros((2, 3), "float32")
    shared = SharedWeights(zeros, np.zeros(0, "float32"))
    np.testing.assert_array_equal(shared(zeros + 1), zeros)


@pytest.mark.parametrize("jit", [False, True])
def test_half_precision_weights_are_averaged_precisely(jit):
    weights = np.ones(100_000, "float16")
    shared = SharedWeights(weights, np.ones(1, "float32"))
    moved = weights.copy()
    moved[::2] = 1.5
    found = tf.function(shared, jit_compile=jit)(tf.constant(moved))
    assert found.dtype == "float16"
    np.testing.assert_array_equal(found, np.full(100_000, 1.25, "float16"))


def test_it_is_a_keras_constraint():
    assert isinstance(SharedWeights(WEIGHTS, CENTROIDS), keras.constraints.Constraint)
