"""An objective in the course of one `fit`."""

import dataclasses
from collections.abc import Callable

import keras
from keras import ops

from keras_compress.distillation.feature_match import FeatureMatch
from keras_compress.distillation.objective import (
    FunctionObjective,
    Objective,
)
from keras_compress.distillation.outputs import last_activations, output_index
from keras_compress.distillation.running_numbers import RunningNumbers
from keras_compress.distillation.teachers import mean_outputs, targets_for_classes


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """What one training step knows of its examples.

    `answers` holds what each teacher returned. All are as Keras hands them to
    `compute_loss`, alone or in the structure of the model's outputs. `features` gives
    for pairs of layers the teacher's and the student's.
    """

    y: object
    y_pred: object
    sample_weight: object
    answers: list
    features: Callable


class RunningObjective:
    """A copy of an objective whose schedules are variables.

    Args:
        objective: the user's, which stays as it is.
        student: the model in training.
        teachers: the `Teacher`s.
        features: the `FitFeatures` of this fit.
    """

    def __init__(self, objective: Objective, student, teachers, features):
        self.student = student
        self.teachers = teachers
        has_factor = type(objective).factor_at is not Objective.factor_at
        self.numbers = RunningNumbers(
            {name: getattr(objective, name) for name in objective.scheduled},
            objective.factor_at if has_factor else None,
        )
        self.objective = objective.for_fit(**self.numbers.values)
        if isinstance(self.objective, FeatureMatch):
            self.objective.build_adaptor(features.widths(self.objective.pairs[0]))
        self._student_ends = last_activations(student)
        self._teacher_ends = [t.last_activations() for t in teachers]

    def loss(self, batch: Batch):
        """The weighted loss of a batch, a float32 scalar."""
        of = self._of_features if self.objective.pairs else self._of_outputs
        return self.objective.weight * of(batch)

    def _of_features(self, batch):
        teacher, student = batch.features(self.objective.pairs)
        weight = _for_each_example(batch.sample_weight)
        return self.objective(teacher, student, sample_weight=weight)

    def _of_outputs(self, batch):
        outputs = keras.tree.flatten(batch.y_pred)
        if isinstance(self.objective, FunctionObjective) and len(outputs) > 1:
            return self._of_structures(batch)
        output = self.objective.output
        places = range(len(outputs))
        if output is not None:
            places = [output_index(self.student, batch.y_pred, output)]
        weights = _for_each(batch.sample_weight, len(outputs))
        return sum(self._of_output(batch, i, outputs[i], weights[i]) for i in places)

    def _of_output(self, batch, place, student, weight):
        places = [
            self._teacher_place(teacher, answer, place, batch)
            for teacher, answer in zip(self.teachers, batch.answers, strict=True)
        ]
        answers = [
            keras.tree.flatten(answer)[at]
            for answer, at in zip(batch.answers, places, strict=True)
        ]
        objective = self.objective
        if objective.compares_classes:
            targets = targets_for_classes(
                self.teachers,
                answers,
                [
                    self._are_logits(ends, at)
                    for ends, at in zip(self._teacher_ends, places, strict=True)
                ],
                objective.temperature,
            )
            are_logits = self._are_logits(self._student_ends, place)
            objective = objective.of_logits(student_too=are_logits)
        else:
            targets = mean_outputs(self.teachers, answers)
        if objective.needs_labels:
            targets = (self._labels(batch, place), targets)
        return objective(targets, student, sample_weight=weight)

    def _of_structures(self, batch):
        """A user's function of several outputs gets them as the models return them."""
        answers = [
            keras.tree.pack_sequence_as(batch.y_pred, keras.tree.flatten(answer))
            for answer in batch.answers
        ]
        targets = keras.tree.map_structure(
            lambda *of_each: mean_outputs(self.teachers, of_each), *answers
        )
        labels = () if batch.y is None else batch.y
        weight = _for_each_example(batch.sample_weight)
        return self.objective((labels, targets), batch.y_pred, sample_weight=weight)

    def _teacher_place(self, teacher, answer, place, batch):
        count = len(keras.tree.flatten(answer))
        if self.objective.output is not None:
            if count == 1:
                return 0
            return output_index(teacher.source, answer, self.objective.output)
        wanted = len(keras.tree.flatten(batch.y_pred))
        if count != wanted:
            raise ValueError(
                f"The teacher has {count} outputs, the student {wanted}. Expected one "
                "teacher output for each of the student's; or choose the outputs to "
                f'compare, as in SoftTargets(output="name"). Received: {teacher.name!r}'
            )
        return place

    def _are_logits(self, ends, place):
        if self.objective.from_logits is not None:
            return self.objective.from_logits
        return not (ends and ends[min(place, len(ends) - 1)] == "softmax")

    def _labels(self, batch, place):
        labels = batch.y
        outputs = len(keras.tree.flatten(batch.y_pred))
        if isinstance(labels, dict) and isinstance(batch.y_pred, dict):
            labels = labels.get(sorted(batch.y_pred)[place])
        elif labels is not None:
            flat = keras.tree.flatten(labels)
            labels = flat[place] if len(flat) == outputs else None
        if labels is not None:
            return labels
        if isinstance(self.objective, FunctionObjective):
            return ()
        raise ValueError(
            f"{type(self.objective).__name__} needs the label of every example. "
            "Received: no labels for the output it compares. Pass them to `fit`, as "
            "classes or one-hot, or use SoftTargets."
        )


def _for_each(sample_weight, count):
    """The sample weights of each output."""
    weights = keras.tree.flatten(sample_weight)
    return weights if len(weights) == count else [sample_weight] * count


def _for_each_example(sample_weight):
    """`(batch,)` weights; None where outputs have weights of their own."""
    weights = keras.tree.flatten(sample_weight)
    if len(weights) != 1 or weights[0] is None:
        return None
    axes = tuple(range(1, len(weights[0].shape)))
    return ops.mean(weights[0], axis=axes) if axes else weights[0]
