"""Distillation: a callback on an ordinary compiled student."""

from collections.abc import Sequence

import keras
import tensorflow as tf
from absl import logging
from keras import ops

from keras_compress.distillation.objectives import SoftTargets
from keras_compress.distillation.teacher_cache import TeacherCache
from keras_compress.training_step import (
    TrainingStepExtension,
    extend_training_step,
    restore_training_step,
)


class Distillation(keras.callbacks.Callback):
    """Trains a student on its teacher's outputs beside the labels.

    While `fit` runs, the student's loss is

        student_loss_weight * (the compiled loss) + sum(o.weight * o.loss)

    plus the student's regularisers at full strength. The teacher sees the batch that
    the student sees, in inference mode, inside the compiled step. Nothing is left on
    the student after `fit`, and nothing is changed on the teacher.

    The training logs (progress bar, `History`, TensorBoard) get `distillation_loss`,
    the weighted sum of the objectives; their `loss` is the whole sum. `val_loss` stays
    the compiled loss alone. A student compiled without a loss learns from the teacher
    only, without labels.

    Sample weights and class weights weigh the objectives as they weigh the compiled
    loss: an example of weight 0 teaches nothing.

    Args:
        teacher: a built `keras.Model` that takes the student's inputs and returns
            outputs of the student's shape, or a `keras_compress.TeacherCache`.
        objectives: one objective or a list; by default `SoftTargets()`.
        student_loss_weight: factor of the student's compiled loss, at least 0.

    Raises:
        ValueError: on a wrong argument; when `fit` begins, before any update, if the
            numbers of classes differ, if a model ends in softmax where the objective
            expects logits, or if the student has a `train_step` of its own; while
            training, if a `TeacherCache` does not hold an example.

    Example:

    >>> import keras, numpy as np
    >>> import keras_compress as kc
    >>> teacher = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> student = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> student.compile("adam", loss)
    >>> x, y = np.ones((8, 4), "float32"), np.zeros(8, "int32")
    >>> history = student.fit(x, y, callbacks=[kc.Distillation(teacher)], verbose=0)
    >>> sorted(history.history)
    ['distillation_loss', 'loss']

    Reference: Hinton, Vinyals and Dean 2015, Distilling the Knowledge in a Neural
    Network, arXiv:1503.02531.
    """

    def __init__(
        self,
        teacher: "keras.Model | TeacherCache",
        objectives: "SoftTargets | Sequence[SoftTargets] | None" = None,
        student_loss_weight: float = 0.1,
    ):
        super().__init__()
        if not isinstance(teacher, keras.Model | TeacherCache):
            raise ValueError(
                "`teacher` must be a keras.Model or a keras_compress.TeacherCache. "
                f"Received: {teacher!r} of type {type(teacher).__name__}"
            )
        if isinstance(teacher, keras.Model) and not teacher.built:
            raise ValueError(
                f"The teacher {teacher.name!r} is not built, so it has no trained "
                "weights. Load its weights, or call it on a batch, first."
            )
        if not student_loss_weight >= 0:
            raise ValueError(
                "`student_loss_weight` must be at least 0. "
                f"Received: student_loss_weight={student_loss_weight}"
            )
        self.teacher = teacher
        self.objectives = _as_objectives(objectives)
        self.student_loss_weight = student_loss_weight
        self._loss_metric = None
        self._remove_extension = None

    def on_train_begin(self, logs=None):
        student = self.model
        restore_training_step(student, left_by=self)
        self._check(student)
        with student.distribute_strategy.scope():
            self._loss_metric = keras.metrics.Mean(name="distillation_loss")
        from_cache = isinstance(self.teacher, TeacherCache)
        if from_cache and student.jit_compile:
            logging.warning(
                "XLA cannot look up a TeacherCache: %r trains without jit_compile "
                "during this fit.",
                student.name,
            )
        self._remove_extension = extend_training_step(
            student,
            TrainingStepExtension(
                self._distillation_loss,
                owner=self,
                compiled_loss_weight=self.student_loss_weight,
                metrics=[self._loss_metric],
                explain=self.teacher.explain if from_cache else None,
                allows_jit=not from_cache,
            ),
        )

    def on_epoch_begin(self, epoch, logs=None):
        self._loss_metric.reset_state()

    def on_train_end(self, logs=None):
        self._remove_extension()

    def _check(self, student):
        from_logits = any(getattr(o, "from_logits", False) for o in self.objectives)
        for role, model in (("teacher", self.teacher), ("student", student)):
            if from_logits and _ends_in_softmax(model):
                raise ValueError(
                    f"The {role} {model.name!r} ends in softmax, but the objective "
                    "expects logits. Remove that activation, or pass "
                    "SoftTargets(from_logits=False) where both models return "
                    "probabilities."
                )
        teacher_shapes, student_shapes = map(_class_axes, (self.teacher, student))
        if None not in (teacher_shapes, student_shapes) and (
            teacher_shapes != student_shapes
        ):
            raise ValueError(
                "Teacher and student must have the same outputs and numbers of "
                f"classes. Received: teacher {teacher_shapes}, student "
                f"{student_shapes}. Give the student's last layer the teacher's units."
            )

    def _distillation_loss(self, x, y, y_pred, sample_weight):
        del y
        if isinstance(self.teacher, TeacherCache):
            targets = self.teacher.look_up_in_graph(x)
        else:
            targets = self.teacher(x, training=False)
        targets = keras.tree.map_structure(ops.stop_gradient, targets)
        distillation_loss = ops.zeros(())
        for objective in self.objectives:
            value = _sum_over_outputs(objective, targets, y_pred, sample_weight)
            distillation_loss += objective.weight * value
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        self._loss_metric.update_state(
            distillation_loss * replicas,
            sample_weight=ops.shape(keras.tree.flatten(x)[0])[0],
        )
        return distillation_loss


def _as_objectives(objectives):
    if objectives is None:
        return (SoftTargets(),)
    if isinstance(objectives, SoftTargets):
        return (objectives,)
    is_list = isinstance(objectives, list | tuple)
    if not (is_list and objectives):
        raise ValueError(
            "`objectives` must be an objective such as keras_compress.SoftTargets(), "
            f"or a list with at least one. Received: {objectives!r}"
        )
    for objective in objectives:
        if not isinstance(objective, SoftTargets):
            raise ValueError(
                "Every objective must be a keras_compress.SoftTargets. "
                f"Received: {objective!r}"
            )
    return tuple(objectives)


def _sum_over_outputs(objective, targets, y_pred, sample_weight):
    """The objective's loss, summed over the models' outputs in their flat order."""
    targets, outputs = keras.tree.flatten(targets), keras.tree.flatten(y_pred)
    if len(targets) != len(outputs):
        raise ValueError(
            f"The teacher has {len(targets)} outputs, the student {len(outputs)}. "
            "Expected one teacher output for each of the student's."
        )
    weights = keras.tree.flatten(sample_weight)
    if len(weights) != len(outputs):
        weights = [sample_weight] * len(outputs)
    return sum(
        objective(target, output, sample_weight=weight)
        for target, output, weight in zip(targets, outputs, weights, strict=True)
    )


def _class_axes(model):
    """Units of every output's last axis, or `None` where the model does not say."""
    if isinstance(model, TeacherCache):
        return [model.output_shape[-1]]
    try:
        outputs = model.outputs
    except AttributeError:  # a subclassed model has none
        return None
    return [output.shape[-1] for output in outputs] if outputs else None


def _ends_in_softmax(model):
    if isinstance(model, TeacherCache) or not getattr(model, "layers", None):
        return False
    last = model.layers[-1]
    is_softmax = getattr(last, "activation", None) is keras.activations.softmax
    return is_softmax or isinstance(last, keras.layers.Softmax)
