"""k-means in one dimension: sorted values and their running sums, no distances."""

import numpy as np

# Seeding by kmeans++ looks at no more values than this, drawn evenly.
_SEEDING_SAMPLE = 2**16

# Lloyd's iteration ends by itself; this bounds it where it creeps.
_MOST_ITERATIONS = 2000


def find_centroids(values, num_clusters: int, init: str, seed: int = 0) -> np.ndarray:
    """The centroids of k-means (Lloyd 1982) over the values.

    At most `num_clusters` different values are their own centroids.

    Args:
        values: Finite floats of any shape.
        num_clusters: Number of centroids, at least 1.
        init: Where the centroids start: "linear", "density" or "kmeans++".
        seed: Of the draws of "kmeans++".

    Returns:
        float32, ascending, at most `num_clusters` of them, each of which is nearest to
        at least one value.
    """
    ordered = np.sort(np.ravel(values).astype("float32"))
    first_of_its_value = np.diff(ordered, prepend=-np.inf) > 0
    if np.count_nonzero(first_of_its_value) <= num_clusters:
        return ordered[first_of_its_value]
    centroids = np.sort(INITS[init](ordered, num_clusters, seed)).astype("float64")
    return _lloyd(ordered, centroids)


def _lloyd(ordered, centroids) -> np.ndarray:
    """The iteration to its fixed point; every centroid is the mean of its values."""
    sums = np.append(0.0, np.cumsum(ordered, dtype="float64"))
    squares = np.append(0.0, np.cumsum(np.square(ordered, dtype="float64")))
    edges = None
    for _ in range(_MOST_ITERATIONS):
        before, edges = edges, _edges(ordered, centroids)
        counts = np.diff(edges)
        if np.array_equal(before, edges) and counts.all():
            break
        centroids = np.diff(sums[edges]) / np.maximum(counts, 1)
        if not counts.all():
            errors = np.diff(squares[edges]) - counts * np.square(centroids)
            _employ_idle(centroids, counts, np.maximum(errors, 0))
    used = np.diff(_edges(ordered, centroids)) > 0
    return np.unique(centroids[used].astype("float32"))


def _employ_idle(centroids, counts, errors) -> None:
    """Centroids of no value halve the clusters of the largest squared error."""
    idle = np.flatnonzero(counts == 0)
    worst = np.argsort(errors)[::-1][: len(idle)]
    deviations = np.sqrt(errors[worst] / np.maximum(counts[worst], 1))
    centroids[idle] = centroids[worst] + deviations
    centroids.sort()


def nearest(values, centroids: np.ndarray) -> np.ndarray:
    """For each value the position of the nearest of the ascending centroids."""
    middles = (centroids[1:].astype("float64") + centroids[:-1]) / 2
    return np.searchsorted(middles.astype("float32"), values)


def _edges(ordered, centroids) -> np.ndarray:
    """Where in the ordered values the cluster of each centroid begins and ends."""
    middles = (centroids[1:] + centroids[:-1]) / 2
    inner = np.searchsorted(ordered, middles.astype("float32"))
    return np.concatenate(([0], inner, [len(ordered)]))


def _linear(ordered, num_clusters, seed):
    return np.linspace(ordered[0], ordered[-1], num_clusters)


def _density(ordered, num_clusters, seed):
    ranks = (np.arange(num_clusters) + 0.5) / num_clusters * len(ordered)
    return ordered[ranks.astype(int)]


def _kmeans_plus_plus(ordered, num_clusters, seed):
    random = np.random.default_rng(seed)
    sample = ordered
    if len(ordered) > _SEEDING_SAMPLE:
        positions = np.linspace(0, len(ordered) - 1, _SEEDING_SAMPLE)
        sample = ordered[positions.astype(int)]
    chosen = [random.choice(sample)]
    distances = np.square(sample - chosen[0], dtype="float64")
    while len(chosen) < num_clusters and distances.any():
        following = random.choice(sample, p=distances / distances.sum())
        chosen.append(following)
        distances = np.minimum(distances, np.square(sample - following))
    return np.array(chosen)


# How the initial centroids lie (Han et al. 2016, section 3.2): evenly between the
# extremes; evenly among the values; or at values far from those chosen before (Arthur
# and Vassilvitskii 2007).
INITS = {"linear": _linear, "density": _density, "kmeans++": _kmeans_plus_plus}
