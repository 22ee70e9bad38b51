"""`SoftTargets` and `MeanSquaredTargets`: match the teacher's outputs one by one."""

import keras
from keras import ops

from keras_compress.distillation.objective import (
    ClassObjective,
    Objective,
    check_same_shape,
)


@keras.saving.register_keras_serializable(package="keras_compress")
class SoftTargets(ClassObjective):
    """Matches the teacher's softened class probabilities.

    The loss of an example is `T^2 * KL(softmax(t / T) || softmax(s / T))`, for the
    teacher's logits `t` and the student's logits `s`, in nats; its gradient keeps the
    same size when the temperature `T` changes. A batch's loss is the mean over its
    examples, each times its sample weight, as in any Keras loss.

    Args:
        temperature: `T`, above 0; a number, or a schedule such as `kc.LinearValue`. The
            higher, the more the student learns of how the teacher ranks the wrong
            classes.
        weight: what `Distillation` multiplies this loss by, at least 0; a number or a
            schedule.
        from_logits: whether the models return logits. With `False` both return
            probabilities, whose logarithms then serve as logits. `None` sees for each
            model whether it ends in softmax; called by itself, it stands for `True`.
        output: of models with several outputs, the name (or place) of the one to
            compare; all by default.

    Call arguments (it is an ordinary Keras loss):
        y_true: the teacher's outputs, `(batch, ..., classes)`, any float dtype.
        y_pred: the student's outputs, same shape. Computed in float32.

    Raises:
        ValueError: `temperature` is not above 0 or `weight` is below 0; when called,
            the two shapes differ.

    Example:

    >>> import numpy as np
    >>> import keras_compress as kc
    >>> objective = kc.SoftTargets(temperature=2.0)
    >>> teacher, student = np.array([[2.0, 0.0]]), np.array([[0.0, 0.0]])
    >>> round(float(objective(teacher, student)), 4)
    0.4438

    Reference: Hinton, Vinyals and Dean 2015, Distilling the Knowledge in a Neural
    Network, arXiv:1503.02531.
    """

    def __init__(
        self,
        temperature: float = 4.0,
        weight: float = 0.9,
        from_logits: bool | None = None,
        output: str | int | None = None,
        name: str = "soft_targets",
    ):
        super().__init__(temperature, weight, from_logits, output, name)

    def call(self, y_true, y_pred):
        check_same_shape(y_true, y_pred)
        teacher, student = self.softened(y_true, y_pred)
        divergence = ops.sum(ops.exp(teacher) * (teacher - student), axis=-1)
        return self.squared_temperature() * divergence


@keras.saving.register_keras_serializable(package="keras_compress")
class MeanSquaredTargets(Objective):
    """Matches the teacher's outputs as they are: regression, sigmoids, logits.

    The loss of an example is the mean of `(t - s)^2` over the last axis, for the
    teacher's outputs `t` and the student's outputs `s`. Several teachers' outputs are
    averaged.

    Args:
        weight: what `Distillation` multiplies this loss by, at least 0; a number or a
            schedule.
        output: of models with several outputs, the name (or place) of the one to
            compare; all by default.

    Call arguments:
        y_true: the teacher's outputs, `(batch, ..., units)`, any float dtype.
        y_pred: the student's outputs, same shape. Computed in float32.

    Raises:
        ValueError: `weight` is below 0; when called, the two shapes differ.

    Example:

    >>> import numpy as np
    >>> import keras_compress as kc
    >>> teacher, student = np.array([[1.0, 3.0]]), np.array([[0.0, 1.0]])
    >>> float(kc.MeanSquaredTargets()(teacher, student))
    2.5

    Reference: Ba and Caruana 2014, Do Deep Nets Really Need to be Deep?,
    arXiv:1312.6184.
    """

    def __init__(
        self,
        weight: float = 1.0,
        output: str | int | None = None,
        name: str = "mean_squared_targets",
    ):
        super().__init__(weight, name, output)

    def call(self, y_true, y_pred):
        check_same_shape(y_true, y_pred)
        squares = ops.square(y_true - y_pred)
        return ops.mean(squares, axis=-1) if len(y_pred.shape) > 1 else squares
