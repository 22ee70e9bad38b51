"""`FeatureMatch`: a layer of the student reproduces a layer of the teacher."""

import keras
import tensorflow as tf
from keras import ops

from keras_compress.distillation.feature_objectives import FeatureObjective
from keras_compress.distillation.objective import check_number
from keras_compress.distillation.positions import same_positions


@keras.saving.register_keras_serializable(package="keras_compress")
class FeatureMatch(FeatureObjective):
    """Matches what a layer of the teacher returns, position by position.

    The loss of an example is the mean of `(t - s)^2` over positions and channels. Where
    the student's layer has another number of channels, an adaptor, one Dense layer
    shared by all positions (a 1x1 convolution), maps them to the teacher's. It learns
    along, with an Adam of its own, in each step; it begins anew with each `fit` and is
    gone after it. The finer of two features is averaged to the positions of the
    coarser.

    The loss grows with the square of the teacher's features: choose `weight` so that
    `weight * loss` is of the size of the other terms. Sample weights weigh the
    examples, unless the student has several outputs with weights of their own. Padding
    of sequences counts.

    Args:
        student_layer: the name of a layer, however deep it is nested, or the layer.
        teacher_layer: likewise; a `TeacherCache` must have been built with it among its
            `feature_layers`.
        weight: what `Distillation` multiplies this loss by, at least 0; a number or a
            schedule.
        learning_rate: of the adaptor, above 0.

    Call arguments:
        y_true: the teacher's features, `(batch, ..., channels)`.
        y_pred: the student's, of as many axes. Computed in float32.

    Raises:
        ValueError: a wrong argument; when `fit` begins, an unknown layer; in the first
            step, before any update, other numbers of axes.

    Example:

    >>> import numpy as np
    >>> from keras_compress.distillation.feature_match import FeatureMatch
    >>> objective = FeatureMatch("conv2d_1", "block3_conv3")
    >>> teacher, student = np.full((1, 4, 4, 8), 3.0), np.full((1, 2, 2, 8), 1.0)
    >>> float(objective(teacher, student))
    4.0

    Reference: Romero et al. 2015, FitNets: Hints for Thin Deep Nets, arXiv:1412.6550.
    """

    _adaptor = None

    def __init__(
        self,
        student_layer,
        teacher_layer,
        weight: float = 1.0,
        learning_rate: float = 1e-3,
        name: str = "feature_match",
    ):
        super().__init__((student_layer, teacher_layer), weight, name)
        check_number("learning_rate", learning_rate, above=True)
        self.student_layer = student_layer
        self.teacher_layer = teacher_layer
        self.learning_rate = learning_rate
        self._adaptor = None

    def for_fit(self, **variables) -> "FeatureMatch":
        """A copy with an adaptor, which is built when it is first needed."""
        return self.with_attributes(_adaptor=_Adaptor(self.learning_rate), **variables)

    def build_adaptor(self, widths: tuple[int, int] | None) -> None:
        """Make the adaptor's weights before the step is traced.

        Args:
            widths: channels of the teacher's layer and of the student's. None where
                they are not known yet: then the first step makes them.

        Raises:
            ValueError: they are not known, and there are several replicas.
        """
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if widths is None and replicas > 1:
            raise ValueError(
                "Under tf.distribute FeatureMatch must know the channels of both "
                "layers before the first step. Expected layers of Functional or "
                "Sequential models, or features of a TeacherCache. Received: pair "
                f"{self.pairs[0]}"
            )
        if widths is not None and widths[0] != widths[1]:
            self._adaptor.build(*widths)

    def __call__(self, y_true, y_pred, sample_weight=None):
        if self._adaptor is None:
            return super().__call__(y_true, y_pred, sample_weight)
        with tf.GradientTape() as tape:
            loss = super().__call__(y_true, y_pred, sample_weight)
        self._adaptor.learn(tape, loss)
        return loss

    def of_pair(self, teacher, student):
        teacher, student = same_positions(teacher, student)
        if self._adaptor is not None:
            student = self._adaptor(student, teacher.shape[-1])
        if teacher.shape[-1] != student.shape[-1]:
            raise ValueError(
                "Outside `fit` there is no adaptor: features must have as many "
                f"channels. Received: teacher {tuple(teacher.shape)}, student "
                f"{tuple(student.shape)}"
            )
        positions = tuple(range(1, len(student.shape)))
        return ops.mean(ops.square(teacher - student), axis=positions)


class _Adaptor:
    """A Dense layer between two widths, and the optimizer that trains it."""

    def __init__(self, learning_rate):
        self._layer = None
        self._optimizer = keras.optimizers.Adam(
            learning_rate, name="feature_adaptor_adam"
        )

    def __call__(self, student, width):
        if student.shape[-1] == width:
            return student
        if self._layer is None:
            self.build(width, student.shape[-1])
        return self._layer(student)

    def build(self, width, student_width):
        """From the student's number of channels to another."""
        self._layer = keras.layers.Dense(
            width,
            # A seed of its own: it draws nothing from the program's generators.
            kernel_initializer=keras.initializers.GlorotUniform(seed=0),
            dtype="float32",
            name="feature_adaptor",
        )
        self._layer.build((None, student_width))
        self._optimizer.build(self._layer.trainable_variables)

    def learn(self, tape, loss):
        """One step of the optimizer."""
        if self._layer is None:
            return
        variables = self._layer.trainable_variables
        self._optimizer.apply(tape.gradient(loss, variables), variables)
