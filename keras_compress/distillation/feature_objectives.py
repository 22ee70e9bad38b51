"""`AttentionTransfer` and `SimilarityPreserving`: features of any width compared."""

import keras
from keras import ops

from keras_compress.distillation.objective import Objective
from keras_compress.distillation.positions import same_positions
from keras_compress.distillation.replicas import gather


class FeatureObjective(Objective):
    """An objective that compares what layers return in the forward pass.

    Args:
        pairs: `(student_layer, teacher_layer)` or a list of them, each the name of a
            layer, however deep it is nested, or the layer itself.
        weight: see `Objective`.
        name: of the loss.
    """

    def __init__(self, pairs, weight, name: str):
        super().__init__(weight, name)
        self.pairs = _as_pairs(pairs)

    def call(self, y_true, y_pred):
        teacher, student = _as_list(y_true), _as_list(y_pred)
        return sum(self.of_pair(t, s) for t, s in zip(teacher, student, strict=True))

    def of_pair(self, teacher, student):
        """The loss of each example, for one pair of features."""
        raise NotImplementedError


@keras.saving.register_keras_serializable(package="keras_compress")
class AttentionTransfer(FeatureObjective):
    """Matches where in an image (or sequence) features are strong.

    The attention map of a feature is the mean over its channels of their squares, as a
    vector over the positions of length 1. The loss of an example is the mean over
    positions of the squared difference of the two maps, summed over the pairs. Widths
    may differ; the finer of two features is averaged to the positions of the coarser.

    Sample weights weigh the examples, unless the student has several outputs with
    weights of their own. Padding of sequences counts.

    Args:
        pairs: `(student_layer, teacher_layer)` or a list of them, each the name of a
            layer, however deep it is nested, or the layer itself.
        weight: what `Distillation` multiplies this loss by, at least 0; a number or a
            schedule.

    Call arguments:
        y_true: the teacher's features, `(batch, ..., channels)`; a list where there are
            several pairs.
        y_pred: the student's, likewise. Computed in float32.

    Raises:
        ValueError: wrong `pairs` or `weight`; when `fit` begins, an unknown layer; in
            the first step, features without positions or with other numbers of axes.

    Example:

    >>> import numpy as np
    >>> from keras_compress.distillation.feature_objectives import AttentionTransfer
    >>> objective = AttentionTransfer(("conv", "block3_conv3"))
    >>> teacher, student = np.zeros((2, 1, 2, 2, 1))
    >>> teacher[0, 0, 0], student[0, 1, 0] = 1, 3
    >>> float(objective(teacher, student))
    0.5

    Reference: Zagoruyko and Komodakis 2017, Paying More Attention to Attention,
    arXiv:1612.03928.
    """

    def __init__(self, pairs, weight: float = 1000.0, name: str = "attention_transfer"):
        super().__init__(pairs, weight, name)

    def of_pair(self, teacher, student):
        if len(student.shape) < 3:
            raise ValueError(
                "AttentionTransfer compares features with positions, (batch, ..., "
                f"channels). Received: shape {tuple(student.shape)}. Choose a layer "
                "before the global pooling."
            )
        teacher, student = same_positions(teacher, student)
        difference = _attention(teacher) - _attention(student)
        return ops.mean(ops.square(difference), axis=-1)


@keras.saving.register_keras_serializable(package="keras_compress")
class SimilarityPreserving(FeatureObjective):
    """Matches which examples of a batch have similar features.

    With the features of a batch of b examples as rows of a matrix `F`, and `G` the rows
    of `F F^T` scaled to length 1, the loss is the sum of `(G_teacher - G_student)^2`
    over `b^2`, summed over the pairs. Neither widths nor positions need be the same.

    Under `tf.distribute` the batch is that of all replicas. Sample weights weigh the
    rows of `G`, unless the student has several outputs with weights of their own.

    Args:
        pairs: `(student_layer, teacher_layer)` or a list of them, each the name of a
            layer, however deep it is nested, or the layer itself.
        weight: what `Distillation` multiplies this loss by, at least 0; a number or a
            schedule.

    Call arguments:
        y_true: the teacher's features, `(batch, ...)`; a list where there are several
            pairs.
        y_pred: the student's, likewise. Computed in float32.

    Raises:
        ValueError: wrong `pairs` or `weight`; when `fit` begins, an unknown layer.

    Example:

    >>> import numpy as np
    >>> from keras_compress.distillation.feature_objectives import SimilarityPreserving
    >>> objective = SimilarityPreserving(("dense", "block5_pool"))
    >>> alike, apart = np.ones((2, 3)), np.eye(2)
    >>> round(float(objective(alike, apart)), 4)
    0.2929

    Reference: Tung and Mori 2019, Similarity-Preserving Knowledge Distillation,
    arXiv:1907.09682.
    """

    def __init__(
        self, pairs, weight: float = 3000.0, name: str = "similarity_preserving"
    ):
        super().__init__(pairs, weight, name)

    def of_pair(self, teacher, student):
        return ops.mean(
            ops.square(_similarities(teacher) - _similarities(student)), axis=-1
        )


def _attention(features):
    energy = ops.mean(ops.square(features), axis=-1)
    return _unit_length(ops.reshape(energy, (ops.shape(energy)[0], -1)))


def _similarities(features):
    """This replica's rows of the matrix of all."""
    rows = ops.reshape(features, (ops.shape(features)[0], -1))
    return _unit_length(ops.matmul(rows, ops.transpose(gather(rows))))


def _unit_length(rows):
    squares = ops.sum(ops.square(rows), axis=-1, keepdims=True)
    # The floor keeps the gradient of a row of zeros finite.
    return rows / ops.sqrt(ops.maximum(squares, 1e-24))


def _as_list(features):
    return list(features) if isinstance(features, list | tuple) else [features]


def _as_pairs(pairs) -> tuple:
    if _is_pair(pairs):
        pairs = [pairs]
    if (
        not isinstance(pairs, list | tuple)
        or not pairs
        or not all(map(_is_pair, pairs))
    ):
        raise ValueError(
            "`pairs` must be (student_layer, teacher_layer) or a list of such pairs, "
            f"each a layer or its name. Received: {pairs!r}"
        )
    return tuple(map(tuple, pairs))


def _is_pair(pair) -> bool:
    return (
        isinstance(pair, list | tuple)
        and len(pair) == 2
        and all(isinstance(item, str | keras.layers.Layer) for item in pair)
    )
