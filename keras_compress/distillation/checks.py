"""What can be refused before the first step: outputs that cannot be compared."""

import keras

from keras_compress.distillation.objective import (
    FunctionObjective,
    LossObjective,
    Objective,
)
from keras_compress.distillation.outputs import (
    known_structure,
    last_activations,
    output_index,
    units,
)


def check_outputs(objective: Objective, student, teachers) -> None:
    """ValueError if the student's outputs cannot be compared with the teachers'.

    What models do not say, as subclassed ones, is checked in the first step.
    """
    if objective.pairs or isinstance(objective, FunctionObjective | LossObjective):
        return
    student_units = _chosen(objective, student, units(student))
    for teacher in teachers:
        teacher_units = _chosen(objective, teacher.source, teacher.units())
        if None not in (teacher_units, student_units) and (
            teacher_units != student_units
        ):
            raise ValueError(
                "Teacher and student must have the same outputs and numbers of "
                f"classes. Received: teacher {teacher_units}, student "
                f"{student_units}. Give the student's last layer the teacher's units, "
                'or choose outputs to compare, as in SoftTargets(output="name").'
            )
    if objective.compares_classes:
        _check_classes(objective, "student", student, student_units)
        _check_ends(objective, "student", student, last_activations(student))
        for teacher in teachers:
            ends = teacher.last_activations()
            _check_ends(objective, "teacher", teacher.source, ends)


def _chosen(objective, model, of_each: list | None) -> list | None:
    """What belongs to the outputs that are compared."""
    if of_each is None or objective.output is None:
        return of_each
    structure = known_structure(model) if isinstance(model, keras.Model) else None
    if structure is None:
        return of_each if len(of_each) == 1 else None
    is_single_teacher = len(of_each) == 1 and not isinstance(structure, dict)
    if is_single_teacher:
        return of_each
    return [of_each[output_index(model, structure, objective.output)]]


def _check_classes(objective, role, model, found) -> None:
    if found and 1 in found:
        raise ValueError(
            f"{type(objective).__name__} compares 2 or more classes, and a softmax "
            f"over one unit is always 1. Received: {role} {model.name!r} with outputs "
            f"of {found} units. Use keras_compress.MeanSquaredTargets()."
        )


def _check_ends(objective, role, model, ends) -> None:
    if ends is None:
        return
    name, found = type(objective).__name__, _chosen(objective, model, ends) or []
    if "sigmoid" in found:
        raise ValueError(
            f"The {role} {model.name!r} ends in sigmoid, but {name} compares classes "
            "that exclude one another. Use keras_compress.MeanSquaredTargets()."
        )
    if objective.from_logits is True and "softmax" in found:
        raise ValueError(
            f"The {role} {model.name!r} ends in softmax, but the objective "
            f"expects logits. Leave `from_logits` out, so that {name} sees which model "
            "returns probabilities. Received: from_logits=True"
        )
    if objective.from_logits is False and "logits" in found:
        raise ValueError(
            f"The {role} {model.name!r} ends in logits, but the objective expects "
            f"probabilities. Leave `from_logits` out, so that {name} sees which model "
            "returns probabilities. Received: from_logits=False"
        )
