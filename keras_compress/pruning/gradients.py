"""Collects a score of every weight from the gradients that an optimizer gets."""

import keras
import tensorflow as tf
from keras import ops


class GradientScores:
    """A float32 score per weight, updated by each step of an optimizer.

    Stands before the optimizer's public `apply` until `release`.

    Args:
        optimizer: The optimizer that updates the variables.
        variables: The kernels.
        criterion: One that needs gradients.
    """

    def __init__(self, optimizer, variables, criterion) -> None:
        self._optimizer = optimizer
        self._criterion = criterion
        self._scores = {
            id(variable): keras.Variable(
                ops.zeros(variable.shape, "float32"),
                trainable=False,
                name="score",
                aggregation="only_first_replica",
            )
            for variable in variables
        }
        self._original = optimizer.apply
        vars(optimizer)["apply"] = self._apply

    def of(self, variable):
        """The kernel's scores, of its shape."""
        return ops.convert_to_numpy(self._scores[id(variable)])

    def updated(self) -> None:
        """Start anew after an update of the masks, where the criterion does."""
        if self._criterion.starts_anew:
            for score in self._scores.values():
                score.assign(ops.zeros(score.shape, "float32"))

    def release(self) -> None:
        """Let the optimizer be as it was."""
        vars(self._optimizer).pop("apply", None)

    def _apply(self, grads, trainable_variables=None):
        grads = list(grads)
        variables = list(trainable_variables or self._optimizer.trainable_variables)
        for gradient, variable in zip(grads, variables, strict=True):
            score = self._scores.get(id(variable))
            if score is not None and gradient is not None:
                total = _over_replicas(ops.cast(gradient, "float32"))
                weights = ops.cast(variable, "float32")
                score.assign(self._criterion.collect(score, weights, total))
        return self._original(grads, variables)


def _over_replicas(gradient):
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return gradient
    return context.all_reduce(tf.distribute.ReduceOp.SUM, gradient)
