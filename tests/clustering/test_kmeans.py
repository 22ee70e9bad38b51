"""The centroids are those of k-means, worked out by hand, in NumPy and by a peer."""

import numpy as np
import pytest
from sklearn.cluster import KMeans

from keras_compress.clustering.kmeans import INITS, find_centroids, nearest


def values(count=2000):
    return np.random.default_rng(0).standard_t(4, count).astype("float32")


@pytest.mark.parametrize("init", INITS)
def test_two_groups_get_their_means(init):
    centroids = find_centroids([-3, -1, 8, 10, 12], 2, init)
    np.testing.assert_array_equal(centroids, np.float32([-2, 10]))


def test_linear_centroids_start_evenly_between_the_extremes():
    start = INITS["linear"](np.float32([-1, 0, 0, 0, 3]), 5, seed=0)
    np.testing.assert_array_equal(start, [-1, 0, 1, 2, 3])


def test_dense_centroids_start_evenly_among_the_values():
    start = INITS["density"](np.arange(8, dtype="float32") ** 2, 4, seed=0)
    np.testing.assert_array_equal(start, [1, 9, 25, 49])


def test_kmeans_plus_plus_starts_at_values_far_apart():
    x = np.float32([0] * 1000 + [100] * 1000 + [200])
    starts = [INITS["kmeans++"](x, 3, seed) for seed in range(20)]
    assert all(sorted(start) == [0, 100, 200] for start in starts)


@pytest.mark.parametrize("clusters", [2, 8, 24])
@pytest.mark.parametrize("init", INITS)
def test_scikit_learn_finds_the_same_from_the_same_start(init, clusters):
    x = np.sort(np.random.default_rng(0).uniform(-1, 1, 2000)).astype("float32")
    start = INITS[init](x, clusters, seed=0).reshape(-1, 1)
    peer = KMeans(clusters, init=start, n_init=1, tol=0, max_iter=2000).fit(x[:, None])
    expected = np.sort(peer.cluster_centers_[:, 0])
    np.testing.assert_allclose(find_centroids(x, clusters, init), expected, atol=1e-4)


@pytest.mark.parametrize("init", INITS)
def test_every_centroid_is_the_mean_of_the_values_nearest_to_it(init):
    x = values()
    centroids = find_centroids(x, 16, init)
    cluster = np.abs(x[:, None] - centroids).argmin(axis=1)
    means = [x[cluster == k].mean() for k in range(16)]
    np.testing.assert_allclose(centroids, means, rtol=1e-4, atol=1e-6)


def test_outliers_leave_no_centroid_idle():
    x = np.append(values(1000), [50, 1000])
    centroids = find_centroids(x, 16, "linear")
    assert len(centroids) == 16
    assert len(np.unique(nearest(x, centroids))) == 16


def test_few_different_values_are_kept_exactly():
    x = np.float32([0.1, 0.3, 0.1, -0.7, 0.3])
    np.testing.assert_array_equal(
        find_centroids(x, 3, "linear"), np.float32([-0.7, 0.1, 0.3])
    )


def test_equal_values_are_one_cluster():
    np.testing.assert_array_equal(find_centroids(np.ones(9), 4, "kmeans++"), [1])


def test_nearest_agrees_with_the_distances():
    x, centroids = values(), np.float32([-2, -0.1, 0.05, 1, 7])
    distances = np.abs(x[:, None] - centroids)
    found = np.take_along_axis(distances, nearest(x, centroids)[:, None], axis=1)
    np.testing.assert_array_equal(found[:, 0], distances.min(axis=1))
