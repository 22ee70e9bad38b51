"""`DecoupledTargets`: the label's class and the other classes, weighed apart."""

import keras
from keras import ops

from keras_compress.distillation.objective import (
    ClassObjective,
    check_number,
    check_same_shape,
)


@keras.saving.register_keras_serializable(package="keras_compress")
class DecoupledTargets(ClassObjective):
    """Matches how sure the teacher is of the label, and how it ranks the rest, apart.

    With softened probabilities `p = softmax(z / T)` and an example of class `y`, the
    loss is

        T^2 * (target_weight * KL([t_y, 1 - t_y] || [s_y, 1 - s_y])
               + non_target_weight * KL(t without y || s without y))

    where `without y` is the softmax over the other classes. `SoftTargets` is the same
    with the second term weighed by `1 - t_y`, which is next to nothing for examples
    that the teacher is sure of.

    Args:
        target_weight: of the first term, at least 0.
        non_target_weight: of the second term, at least 0.
        temperature: `T`, above 0; a number or a schedule.
        weight: what `Distillation` multiplies this loss by, at least 0; a number or a
            schedule.
        warmup_epochs: the weight grows linearly over that many epochs: in epoch n,
            counted from 1, it is `min(n / warmup_epochs, 1)` of the whole.
        from_logits: see `SoftTargets`.
        output: of models with several outputs, the name (or place) of the one to
            compare; all by default.

    Call arguments:
        y_true: `(labels, teacher)`. Labels are classes, `(batch, ...)` or
            `(batch, ..., 1)`, or one-hot (or mixed) of the shape of the outputs, where
            the greatest counts. The teacher's outputs are `(batch, ..., classes)`.
        y_pred: the student's outputs, of the shape of the teacher's.

    Raises:
        ValueError: a weight is below 0, `temperature` not above 0 or `warmup_epochs`
            below 0; when called, shapes that differ, no labels or labels of another
            shape, or fewer than 2 classes.

    Example:

    >>> import numpy as np
    >>> import keras_compress as kc
    >>> objective = kc.DecoupledTargets(temperature=1.0)
    >>> teacher, student = np.log([[0.5, 0.4, 0.1]]), np.log([[0.5, 0.25, 0.25]])
    >>> round(float(objective((np.array([0]), teacher), student)), 4)
    1.542

    Reference: Zhao, Cui, Song, Qiu and Liang 2022, Decoupled Knowledge Distillation,
    arXiv:2203.08679.
    """

    needs_labels = True

    def __init__(
        self,
        target_weight: float = 1.0,
        non_target_weight: float = 8.0,
        temperature: float = 4.0,
        weight: float = 1.0,
        warmup_epochs: int = 20,
        from_logits: bool | None = None,
        output: str | int | None = None,
        name: str = "decoupled_targets",
    ):
        super().__init__(temperature, weight, from_logits, output, name)
        check_number("target_weight", target_weight)
        check_number("non_target_weight", non_target_weight)
        check_number("warmup_epochs", warmup_epochs)
        self.target_weight = target_weight
        self.non_target_weight = non_target_weight
        self.warmup_epochs = warmup_epochs

    def factor_at(self, epoch: int) -> float:
        """The share of the weight that is in force in an epoch, counted from 0."""
        return min((epoch + 1) / self.warmup_epochs, 1.0) if self.warmup_epochs else 1.0

    def call(self, y_true, y_pred):
        labels, teacher = y_true
        check_same_shape(teacher, y_pred)
        target = _one_hot(labels, y_pred)
        (t_is, t_not, t_rest), (s_is, s_not, s_rest) = (
            _split(log_probabilities, target)
            for log_probabilities in self.softened(teacher, y_pred)
        )
        binary = ops.exp(t_is) * (t_is - s_is) + ops.exp(t_not) * (t_not - s_not)
        others = ops.exp(t_rest) * (t_rest - s_rest)
        loss = self.target_weight * binary
        loss += self.non_target_weight * ops.sum(others, axis=-1)
        return self.squared_temperature() * loss


def _split(log_probabilities, target):
    """log p(target), log p(not target), log p(each other | not target)."""
    of_target = ops.sum(target * log_probabilities, axis=-1)
    # Far below any logarithm of a probability: exp of it is zero.
    others = ops.where(target > 0, -1e9, log_probabilities)
    of_rest = ops.logsumexp(others, axis=-1)
    return of_target, of_rest, others - ops.expand_dims(of_rest, -1)


def _one_hot(labels, outputs):
    """The label's class as a one-hot of the shape of the outputs."""
    classes = outputs.shape[-1]
    if classes < 2:
        raise ValueError(
            "DecoupledTargets compares 2 or more classes. Received: outputs of shape "
            f"{tuple(outputs.shape)}. For one unit use MeanSquaredTargets."
        )
    shape, rank = tuple(labels.shape), len(outputs.shape)
    if len(shape) == rank and shape[-1] == classes:
        labels = ops.argmax(labels, axis=-1)
    elif len(shape) == rank and shape[-1] == 1:
        labels = ops.squeeze(labels, axis=-1)
    elif len(shape) != rank - 1:
        raise ValueError(
            "DecoupledTargets needs the class of every example as label: a number, or "
            f"one-hot of {classes} classes. Received: labels of shape {shape} for "
            f"outputs of shape {tuple(outputs.shape)}."
        )
    return ops.one_hot(ops.cast(labels, "int32"), classes, dtype=outputs.dtype)
