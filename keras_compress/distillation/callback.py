"""Distillation: a callback on an ordinary compiled student."""

import functools
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf
from absl import logging
from keras import ops

from keras_compress.distillation.checks import check_outputs
from keras_compress.distillation.fit_features import FitFeatures
from keras_compress.distillation.objective import (
    Objective,
    as_objectives,
    check_number,
)
from keras_compress.distillation.objectives import SoftTargets
from keras_compress.distillation.running import Batch, RunningObjective
from keras_compress.distillation.running_numbers import RunningNumbers
from keras_compress.distillation.teacher_cache_attach import receive_attached
from keras_compress.distillation.teachers import as_teachers
from keras_compress.training_step import (
    TrainingStepExtension,
    extend_training_step,
    restore_training_step,
)
from keras_compress.undo import undo_after_fit


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
        teacher: a built `keras.Model`, a `keras_compress.TeacherCache`, a layer such as
            `keras.layers.TFSMLayer`, a function of the inputs, or a
            `keras_compress.MovingAverageTeacher`. Of a list, class objectives see the
            mean of the softened probabilities, others the mean of the outputs.
        objectives: one objective or a list; by default `SoftTargets()`. An objective is
            one of this package, a `keras.losses.Loss` of (teacher, student), or any
            `f(y_true, y_student, y_teacher)` that returns a loss per example; the last
            two weigh what their attribute `weight` says, or 1.
        student_loss_weight: factor of the student's compiled loss, at least 0; a number
            or, as every weight and temperature of an objective, a schedule such as
            `kc.LinearValue`, which goes on with each batch where the length of the fit
            is known, else with each epoch.
        teacher_weights: of several teachers each one's share in the mean, in any unit.
        teacher_preprocess: a function or layer that makes the teacher's inputs from the
            student's, or a list with one (or None) for each teacher.

    Raises:
        ValueError: on a wrong argument; when `fit` begins, before any update, if the
            numbers of classes differ, if a model ends in what the objective cannot
            compare, if a teacher has weights that are not finite, or if the student has
            a `train_step` of its own; in the first step, before any update, for what
            the models do not say earlier; while training, if a `TeacherCache` does not
            hold an example or a teacher's outputs are not finite.

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
        teacher,
        objectives: Objective | Callable | Sequence | None = None,
        student_loss_weight: float | Callable = 0.1,
        teacher_weights: Sequence[float] | None = None,
        teacher_preprocess: Callable | Sequence | None = None,
    ):
        super().__init__()
        self.teachers = as_teachers(teacher, teacher_weights, teacher_preprocess)
        check_number("student_loss_weight", student_loss_weight)
        self.teacher = teacher
        self.objectives = as_objectives(
            SoftTargets() if objectives is None else objectives
        )
        self.student_loss_weight = student_loss_weight
        self._running = ()
        self._student_weight = None
        self._epoch = 0
        self._features = None
        self._loss_metric = None
        self._undos = []

    def on_train_begin(self, logs=None):
        student = self.model
        restore_training_step(student, left_by=self)
        self._check(student)
        self._features = FitFeatures(self.objectives, student, self.teachers)
        with student.distribute_strategy.scope():
            self._loss_metric = keras.metrics.Mean(name="distillation_loss")
            self._student_weight = RunningNumbers({"weight": self.student_loss_weight})
            self._running = tuple(
                RunningObjective(objective, student, self.teachers, self._features)
                for objective in self.objectives
            )
        for teacher in self.teachers:
            teacher.begin(student)
        self._undos = self._changes_of(student)

    def _changes_of(self, student):
        """Change what must be for this fit; the functions that undo it."""
        caches = [teacher.source for teacher in self.teachers if teacher.is_cache]
        looks_up = not all(cache.is_attached for cache in caches)
        if looks_up and student.jit_compile:
            logging.warning(
                "XLA cannot look up a TeacherCache: %r trains without jit_compile "
                "during this fit. TeacherCache.attach(dataset) looks up before.",
                student.name,
            )
        extension = TrainingStepExtension(
            self._distillation_loss,
            owner=self,
            compiled_loss_weight=self._student_weight.values["weight"],
            metrics=[self._loss_metric],
            explain=self._explain,
            allows_jit=not looks_up,
        )
        undos = [extend_training_step(student, extension)]
        if caches:
            undos.append(receive_attached(student))
        if self._features:
            self._features.install()
            undos.append(undo_after_fit(student, self._features.remove))
        return undos

    def on_epoch_begin(self, epoch, logs=None):
        self._loss_metric.reset_state()
        self._epoch = epoch
        self._set_time(epoch)

    def on_train_batch_begin(self, batch, logs=None):
        steps = self.params["steps"]
        if steps and any(numbers.changes for numbers in self._running_numbers()):
            self._set_time(self._epoch + batch / steps)

    def _set_time(self, epochs):
        """Give schedules their values after so many epochs, a fraction included."""
        for numbers in self._running_numbers():
            numbers.set_time(epochs / self.params["epochs"], self._epoch)

    def _running_numbers(self):
        return [self._student_weight, *(o.numbers for o in self._running)]

    def on_train_end(self, logs=None):
        for undo in reversed(self._undos):
            undo()
        for teacher in self.teachers:
            teacher.end()
        # Variables of this fit, and what the trace holds, go.
        self._running, self._features, self._undos = (), None, []

    def _check(self, student):
        for teacher in self.teachers:
            teacher.check_weights()
        for objective in self.objectives:
            check_outputs(objective, student, self.teachers)

    def _explain(self, error):
        explanations = [teacher.explain(error) for teacher in self.teachers]
        return next(filter(None, explanations), None)

    def _distillation_loss(self, x, y, y_pred, sample_weight):
        of_student = self._features.take_student()
        answers, of_teachers = self._features.ask(x)
        features = functools.partial(
            self._features.of_pairs, of_student=of_student, of_teachers=of_teachers
        )
        batch = Batch(y, y_pred, sample_weight, answers, features)
        loss = ops.zeros(())
        for objective in self._running:
            loss += objective.loss(batch)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        self._loss_metric.update_state(
            loss * replicas,
            sample_weight=ops.shape(keras.tree.flatten(x)[0])[0],
        )
        return loss
