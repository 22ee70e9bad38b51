"""What every objective is: a Keras loss of teacher and student, with a weight."""

import numbers
from collections.abc import Callable

import keras
from keras import ops

from keras_compress.distillation.fit_schedules import FitSchedule, start_of


class Objective(keras.losses.Loss):
    """A Keras loss whose targets are what the teacher made of the same examples.

    `call(teacher, student)` returns one loss per example; sample weights, masks and
    the division by the number of replicas are Keras' own. Numbers that are schedules
    have their first value when an objective is called outside `fit`.

    Args:
        weight: what `Distillation` multiplies the loss by, at least 0; a number, or a
            schedule such as `kc.LinearValue`.
        output: of models with several outputs, the name (or place) of the one to
            compare; all by default.
        name: of the loss.
    """

    # Whether the first argument of `call` is (labels, teacher).
    needs_labels = False
    # Layers whose features are compared, (student, teacher); outputs where empty.
    pairs = ()
    # Whether outputs are class scores, which become logits before the call.
    compares_classes = False
    # The attributes that may be schedules.
    scheduled = ("weight",)

    def __init__(self, weight, name: str, output: str | int | None = None):
        super().__init__(name=name, dtype="float32")
        check_number("weight", weight)
        self.weight = weight
        self.output = output

    def factor_at(self, epoch: int) -> float:
        """What the weight is multiplied by in an epoch, counted from 0."""
        del epoch
        return 1.0

    def with_attributes(self, **attributes) -> "Objective":
        """A shallow copy with other attributes.

        `copy.copy` would serialise it, as Keras objects ask for.
        """
        other = object.__new__(type(self))
        vars(other).update(vars(self), **attributes)
        return other

    def for_fit(self, **variables) -> "Objective":
        """A copy for one `fit`, its schedules replaced by variables."""
        return self.with_attributes(**variables)

    def get_config(self) -> dict:
        """The arguments of `__init__`."""
        values = {name: getattr(self, name) for name in self.arguments()}
        return {"name": self.name} | {
            name: keras.saving.serialize_keras_object(value)
            if isinstance(value, FitSchedule)
            else keras.tree.map_structure(_name_of_layer, value)
            for name, value in values.items()
        }

    @classmethod
    def arguments(cls) -> tuple[str, ...]:
        """The names of the arguments of `__init__`, which are attributes."""
        code = cls.__init__.__code__
        names = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
        return tuple(name for name in names if name != "name")

    @classmethod
    def from_config(cls, config: dict) -> "Objective":
        """The objective that `get_config` described."""
        return cls(
            **{
                name: keras.saving.deserialize_keras_object(value)
                if isinstance(value, dict)
                else value
                for name, value in config.items()
            }
        )


class ClassObjective(Objective):
    """An objective that compares softened class probabilities.

    Args:
        temperature: above 0; a number or a schedule.
        weight: see `Objective`.
        from_logits: whether the models return logits (True) or probabilities (False);
            None sees for each model whether it ends in softmax.
        output: see `Objective`.
        name: of the loss.
    """

    compares_classes = True
    scheduled = ("weight", "temperature")

    def __init__(self, temperature, weight, from_logits, output, name: str):
        super().__init__(weight, name, output)
        check_number("temperature", temperature, above=True)
        if from_logits not in (None, True, False):
            raise ValueError(
                "`from_logits` must be True (logits), False (probabilities) or None "
                "(seen for each model from whether it ends in softmax). "
                f"Received: from_logits={from_logits!r}"
            )
        self.temperature = temperature
        self.from_logits = from_logits
        self._are_logits = (from_logits is not False,) * 2

    def of_logits(self, student_too: bool) -> "ClassObjective":
        """One for logits of the teacher, and of the student or its probabilities."""
        return self.with_attributes(_are_logits=(True, student_too))

    def softened(self, teacher, student):
        """Log-probabilities of both at the temperature."""
        return [
            ops.log_softmax(
                (outputs if are_logits else logits_of_probabilities(outputs))
                / start_of(self.temperature),
                axis=-1,
            )
            for outputs, are_logits in zip(
                (teacher, student), self._are_logits, strict=True
            )
        ]

    def squared_temperature(self):
        """The factor that keeps gradients of one size at every temperature."""
        return start_of(self.temperature) ** 2


class FunctionObjective(Objective):
    """A user's `f(y_true, y_student, y_teacher)` as an objective.

    It gets float32 tensors, or where the models have several outputs these in the
    structure of the student's; `y_true` is None in a fit without labels.

    Args:
        function: returns one loss per example, or a scalar for the batch. Its attribute
            `weight`, if it has one, is the objective's.
    """

    needs_labels = True

    def __init__(self, function: Callable):
        super().__init__(getattr(function, "weight", 1.0), "function_objective")
        self.function = function

    def call(self, y_true, y_pred):
        labels, teacher = y_true
        if isinstance(labels, tuple) and not labels:
            labels = None
        loss = ops.convert_to_tensor(self.function(labels, y_pred, teacher))
        if len(loss.shape) == 0:
            of_each = keras.tree.flatten(y_pred)[0]
            first = (slice(None), *[0] * (len(of_each.shape) - 1))
            loss += ops.zeros_like(of_each[first])
        return loss


class LossObjective(Objective):
    """A plain Keras loss of (teacher outputs, student outputs) as an objective.

    Args:
        loss: a `keras.losses.Loss`. Its attribute `weight`, if it has one, is the
            objective's.
    """

    def __init__(self, loss: keras.losses.Loss):
        super().__init__(getattr(loss, "weight", 1.0), loss.name)
        self.loss = loss

    def __call__(self, y_true, y_pred, sample_weight=None):
        return self.loss(y_true, y_pred, sample_weight=sample_weight)


def as_objectives(objectives) -> tuple[Objective, ...]:
    """One objective or a list, each an objective, a Keras loss or a function."""
    if not isinstance(objectives, list | tuple):
        objectives = [objectives]
    if not objectives:
        raise ValueError(
            "`objectives` must be an objective such as keras_compress.SoftTargets(), "
            f"or a list with at least one. Received: {objectives!r}"
        )
    return tuple(map(_as_objective, objectives))


def _as_objective(objective):
    if isinstance(objective, Objective):
        return objective
    if isinstance(objective, keras.losses.Loss):
        return LossObjective(objective)
    if callable(objective) and not isinstance(objective, type):
        return FunctionObjective(objective)
    raise ValueError(
        "`objectives` must be an objective such as keras_compress.SoftTargets(), a "
        "keras.losses.Loss of (teacher, student), a function f(y_true, y_student, "
        f"y_teacher), or a list of these. Received: {objective!r}"
    )


def _name_of_layer(value):
    return value.name if isinstance(value, keras.layers.Layer) else value


def check_number(name: str, value, above: bool = False) -> None:
    """ValueError unless the number, or a schedule at both its ends, is in range."""
    ends = [value(0.0), value(1.0)] if callable(value) else [value]
    for number in ends:
        is_number = isinstance(number, numbers.Real) and not isinstance(number, bool)
        good = is_number and (number > 0 if above else number >= 0)
        if not good or number == float("inf"):
            wanted = "above 0" if above else "at least 0"
            raise ValueError(
                f"`{name}` must be {wanted}: a finite number, or a schedule of such "
                f"numbers. Received: {name}={value!r}"
            )


def check_same_shape(teacher, student) -> None:
    """ValueError unless both have the same shape, batch aside."""
    if tuple(teacher.shape[1:]) != tuple(student.shape[1:]):
        raise ValueError(
            "Teacher and student must have outputs of the same shape, the last "
            f"axis being the classes. Received: teacher {tuple(teacher.shape)}, "
            f"student {tuple(student.shape)}. Give both models the same number of "
            "output units."
        )


def logits_of_probabilities(probabilities):
    """Logits whose softmax these are: their logarithms, zero kept finite."""
    return ops.log(ops.maximum(probabilities, 1e-37))
