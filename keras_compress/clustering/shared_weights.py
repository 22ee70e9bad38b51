"""`SharedWeights`: the constraint that keeps the weights of a cluster equal."""

import keras
import numpy as np
import tensorflow as tf

from keras_compress.clustering.kmeans import nearest


class SharedWeights(keras.constraints.Constraint):
    """Gives all weights of a cluster one value, their mean; zeros stay zero.

    The optimizer moves every weight by itself and then calls this constraint, so each
    centroid moves by the mean of what its weights were moved by. For SGD that is a step
    along the mean of their gradients. A weight never changes to another cluster.

    A weight that the inner constraint has set to zero, a pruned one, stays zero and
    does not count.

    Args:
        weights: Float array, the kernel as it is now.
        centroids: float32 `(clusters,)`, ascending; at most 65,535.
        inner: The constraint that the variable had, called first, or None.

    The memory is one byte per weight, two for more than 255 centroids.
    """

    def __init__(self, weights, centroids, inner=None) -> None:
        # Cluster 0 is that of the zeros.
        cluster = np.where(weights != 0, nearest(weights, centroids) + 1, 0)
        dtype = "uint8" if len(centroids) < 256 else "uint16"
        self.cluster = keras.Variable(
            cluster.astype(dtype), trainable=False, dtype=dtype, name="cluster"
        )
        self.clusters = len(centroids)
        self.inner = inner

    def __call__(self, w):
        """The weights as they are stored: constrained by `inner`, then shared."""
        return self.shared(w if self.inner is None else self.inner(w))

    def shared(self, w):
        """The weights, each replaced by the mean of its cluster."""
        w = tf.convert_to_tensor(w)
        cluster = tf.cast(self.cluster.value, "int32")
        cluster = tf.where(w != 0, cluster, 0)
        # In float64 the mean of equal float32 weights is exactly their value.
        weights = tf.reshape(tf.cast(w, "float64"), [-1])
        sums = self._sums(cluster, weights)
        counts = self._sums(cluster, tf.zeros([0], "float64"))
        means = sums[1:] / tf.maximum(counts[1:], 1)
        values = tf.concat([[0], tf.cast(means, w.dtype)], axis=0)
        return tf.gather(values, cluster)

    def _sums(self, cluster, weights):
        """The sum of the weights of each cluster; of no weights, their numbers.

        The operation itself: `tf.math.bincount` looks for the largest cluster first,
        which costs time, and which XLA cannot compile.
        """
        return tf.raw_ops.DenseBincount(
            input=tf.reshape(cluster, [-1]), size=self.clusters + 1, weights=weights
        )
