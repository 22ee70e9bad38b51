"""What a student is asked to match in its teacher."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_compress")
class SoftTargets(keras.losses.Loss):
    """Matches the teacher's softened class probabilities.

    The loss of an example is `T^2 * KL(softmax(t / T) || softmax(s / T))`, for the
    teacher's logits `t` and the student's logits `s`, in nats; its gradient keeps the
    same size when the temperature `T` changes. A batch's loss is the mean over its
    examples, each times its sample weight, as in any Keras loss.

    Args:
        temperature: `T`, above 0. The higher, the more the student learns of how the
            teacher ranks the wrong classes.
        weight: what `Distillation` multiplies this loss by, at least 0.
        from_logits: whether both models return logits. With `False` both return
            probabilities, whose logarithms then serve as logits.

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
        from_logits: bool = True,
        name: str = "soft_targets",
    ):
        super().__init__(name=name, dtype="float32")
        if not temperature > 0:
            raise ValueError(
                f"`temperature` must be above 0. Received: temperature={temperature}"
            )
        if not weight >= 0:
            raise ValueError(f"`weight` must be at least 0. Received: weight={weight}")
        self.temperature = temperature
        self.weight = weight
        self.from_logits = from_logits

    def call(self, y_true, y_pred):
        if y_true.shape[1:] != y_pred.shape[1:]:
            raise ValueError(
                "Teacher and student must have outputs of the same shape, the last "
                f"axis being the classes. Received: teacher {tuple(y_true.shape)}, "
                f"student {tuple(y_pred.shape)}. Give both models the same number of "
                "output units."
            )
        teacher = ops.log_softmax(self._logits(y_true) / self.temperature, axis=-1)
        student = ops.log_softmax(self._logits(y_pred) / self.temperature, axis=-1)
        divergence = ops.sum(ops.exp(teacher) * (teacher - student), axis=-1)
        return self.temperature**2 * divergence

    def _logits(self, outputs):
        if self.from_logits:
            return outputs
        return ops.log(ops.maximum(outputs, keras.config.epsilon()))

    def get_config(self):
        return {
            "temperature": self.temperature,
            "weight": self.weight,
            "from_logits": self.from_logits,
            "name": self.name,
        }
