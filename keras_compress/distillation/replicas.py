"""A batch that is spread over the replicas of `tf.distribute`, whole again."""

import tensorflow as tf


def gather(batch: tf.Tensor) -> tf.Tensor:
    """The examples of all replicas, in every one of them; differentiable.

    Args:
        batch: `(examples, ...)`, one replica's part.

    Returns:
        `(all examples, ...)`; `batch` itself where there is one replica.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return batch
    return context.all_gather(batch, axis=0)
