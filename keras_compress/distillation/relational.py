"""`RelationalTargets`: outputs that go up and down with the teacher's."""

import keras
from keras import ops

from keras_compress.distillation.objective import (
    ClassObjective,
    check_number,
    check_same_shape,
)
from keras_compress.distillation.replicas import gather


@keras.saving.register_keras_serializable(package="keras_compress")
class RelationalTargets(ClassObjective):
    """Matches probabilities up to scale and shift: by Pearson's correlation.

    With softened probabilities `t` and `s`, of shape `(examples, classes)`, and the
    correlation `rho`, the loss of a batch is

        T^2 * (inter_weight * (1 - mean over examples i of rho(t[i, :], s[i, :]))
               + intra_weight * (1 - mean over classes c of rho(t[:, c], s[:, c])))

    A strong teacher's probabilities need not be reached, only their order and
    proportions: among the classes of an example, and among the examples for a class.
    The second term looks at the whole batch, under `tf.distribute` at those of all
    replicas. Sample weights weigh each example's part of both terms, but not the means
    and deviations over the batch.

    Args:
        inter_weight: of the first term, at least 0.
        intra_weight: of the second term, at least 0.
        temperature: `T`, above 0; a number or a schedule.
        weight: what `Distillation` multiplies this loss by, at least 0; a number or a
            schedule.
        from_logits: see `SoftTargets`.
        output: of models with several outputs, the name (or place) of the one to
            compare; all by default.

    Call arguments:
        y_true: the teacher's outputs, `(batch, ..., classes)`, any float dtype. All
            axes but the last count as examples.
        y_pred: the student's outputs, same shape. Computed in float32.

    Raises:
        ValueError: a weight is below 0 or `temperature` is not above 0; when called,
            the two shapes differ or there are fewer than 2 classes.

    Example:

    >>> import numpy as np
    >>> import keras_compress as kc
    >>> objective = kc.RelationalTargets(intra_weight=0.0, temperature=1.0)
    >>> teacher, student = np.log([[0.6, 0.3, 0.1]]), np.log([[0.1, 0.3, 0.6]])
    >>> round(float(objective(teacher, student)), 4)
    1.9737

    Reference: Huang, You, Wang, Qian and Xu 2022, Knowledge Distillation from A
    Stronger Teacher, arXiv:2205.10536.
    """

    def __init__(
        self,
        inter_weight: float = 1.0,
        intra_weight: float = 1.0,
        temperature: float = 4.0,
        weight: float = 1.0,
        from_logits: bool | None = None,
        output: str | int | None = None,
        name: str = "relational_targets",
    ):
        super().__init__(temperature, weight, from_logits, output, name)
        check_number("inter_weight", inter_weight)
        check_number("intra_weight", intra_weight)
        self.inter_weight = inter_weight
        self.intra_weight = intra_weight

    def call(self, y_true, y_pred):
        check_same_shape(y_true, y_pred)
        if y_pred.shape[-1] < 2:
            raise ValueError(
                "RelationalTargets compares 2 or more classes. Received: outputs of "
                f"shape {tuple(y_pred.shape)}. For one unit use MeanSquaredTargets."
            )
        teacher, student = map(ops.exp, self.softened(y_true, y_pred))
        loss = self.inter_weight * (1 - _between_classes(teacher, student))
        if self.intra_weight:
            between = _between_examples(teacher, student)
            loss += self.intra_weight * (1 - between)
        return self.squared_temperature() * loss


def _between_classes(teacher, student):
    """The correlation over the classes, of each example."""
    product = _standardised(teacher, teacher, -1) * _standardised(student, student, -1)
    return ops.sum(product, axis=-1)


def _between_examples(teacher, student):
    """Each example's part in the mean over classes of the correlation over examples.

    The mean of the parts over all examples is that mean.
    """
    everywhere = tuple(range(len(student.shape) - 1))
    all_teacher, all_student = gather(teacher), gather(student)
    product = _standardised(teacher, all_teacher, everywhere) * _standardised(
        student, all_student, everywhere
    )
    examples = ops.prod(ops.shape(all_student)[:-1])
    return ops.mean(product, axis=-1) * ops.cast(examples, product.dtype)


def _standardised(values, population, axis):
    """Values less the population's mean, by the length of its deviation."""
    mean = ops.mean(population, axis=axis, keepdims=True)
    squares = ops.sum(ops.square(population - mean), axis=axis, keepdims=True)
    # The floor keeps the gradient of a constant population finite.
    return (values - mean) / ops.sqrt(ops.maximum(squares, 1e-16))
