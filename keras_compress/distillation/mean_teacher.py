"""`MovingAverageTeacher`: a student learns from the average of its own weights."""

import keras
from keras import ops


class MovingAverageTeacher:
    """The student with a moving average of its weights, as a `teacher`.

    Before each step the averages move towards the student's weights `w`,

        average = decay * average + (1 - decay) * w,

    in the beginning with the smaller decay `1 - 1 / (steps + 1)`, so that the first
    weights do not linger. They start anew from the student's weights in each `fit`, and
    are gone after it. BatchNormalization statistics are averaged likewise.

    Args:
        decay: in [0, 1).

    Raises:
        ValueError: `decay` is not in [0, 1).

    Example:

    >>> import keras, numpy as np
    >>> from keras_compress.distillation.callback import Distillation
    >>> from keras_compress.distillation.mean_teacher import MovingAverageTeacher
    >>> student = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> student.compile("adam", loss)
    >>> x, y = np.ones((8, 4), "float32"), np.zeros(8, "int32")
    >>> callback = Distillation(MovingAverageTeacher(0.99), student_loss_weight=1.0)
    >>> history = student.fit(x, y, callbacks=[callback], verbose=0)

    Reference: Tarvainen and Valpola 2017, Mean teachers are better role models,
    arXiv:1703.01780.
    """

    def __init__(self, decay: float = 0.999):
        if not 0 <= decay < 1:
            raise ValueError(f"`decay` must be in [0, 1). Received: decay={decay!r}")
        self.decay = decay
        self.name = "moving_average"
        self._student = None
        self._averages = None

    def begin(self, student: keras.Model) -> None:
        """Average this student's weights from now on."""
        if not student.built:
            raise ValueError(
                "MovingAverageTeacher needs a student that has its weights. Received: "
                f"{student.name!r}, which is not built. Give it a keras.Input, or call "
                "it once on an example."
            )
        self._student, self._averages = student, _Averages(student, self.decay)

    def end(self) -> None:
        """Let go of the student and the averages."""
        self._student = self._averages = None

    def __call__(self, x, training=False):
        """Move the averages by a step, and call the student with them."""
        student = self._student
        trainable, others = self._averages.moved()
        outputs, _ = student.stateless_call(trainable, others, x, training=training)
        return outputs


class _Averages:
    """The averages of a model's variables, as variables."""

    def __init__(self, model, decay):
        self.model = model
        self.decay = decay
        with model.distribute_strategy.scope():
            self.steps = _variable(0.0, "steps", "float32")
            self.of = {
                id(v): _variable(ops.convert_to_tensor(v), "average", v.dtype)
                for v in model.variables
                if "float" in keras.backend.standardize_dtype(v.dtype)
            }

    def moved(self):
        """The averages after a step: of trainable and of other variables."""
        decay = ops.minimum(self.decay, 1 - 1 / (self.steps + 1))
        self.steps.assign(self.steps + 1)
        model = self.model
        for variable in model.variables:
            average = self.of.get(id(variable))
            if average is not None:
                step = (1 - ops.cast(decay, average.dtype)) * (variable - average)
                average.assign(average + step)
        return [
            [ops.convert_to_tensor(self.of.get(id(v), v)) for v in variables]
            for variables in (model.trainable_variables, model.non_trainable_variables)
        ]


def _variable(value, name, dtype):
    return keras.Variable(
        value,
        trainable=False,
        dtype=dtype,
        # One value in all replicas: they average the same weights.
        aggregation="only_first_replica",
        name=name,
    )
