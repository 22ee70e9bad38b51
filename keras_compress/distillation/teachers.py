"""One teacher or several, of every kind: how they are asked, and what about."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_compress.distillation.mean_teacher import MovingAverageTeacher
from keras_compress.distillation.objective import check_number, logits_of_probabilities
from keras_compress.distillation.outputs import last_activations, units
from keras_compress.distillation.teacher_cache import TeacherCache

_NOT_FINITE = "keras_compress: outputs that are not finite from teacher "


@dataclasses.dataclass(frozen=True, eq=False)
class Teacher:
    """A teacher and what it is fed.

    Args:
        source: a `keras.Model` or layer, a `TeacherCache`, a `MovingAverageTeacher` or
            a function of the inputs.
        weight: its share in the mean over teachers.
        preprocess: makes its inputs from the student's; None where they are the same.
    """

    source: object
    weight: float = 1.0
    preprocess: Callable | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        unnamed = getattr(self.source, "__name__", type(self.source).__name__)
        return getattr(self.source, "name", unnamed)

    @property
    def is_cache(self) -> bool:
        """Whether its outputs are looked up."""
        return isinstance(self.source, TeacherCache)

    def units(self) -> list | None:
        """Units of every output's last axis, or None where that is not known."""
        if self.is_cache:
            return [shape[-1] for shape in _flat_shapes(self.source.output_shape)]
        return units(self.source) if isinstance(self.source, keras.Model) else None

    def last_activations(self) -> list[str] | None:
        """See `outputs.last_activations`."""
        if self.is_cache:
            return self.source.ends_in
        is_model = isinstance(self.source, keras.Model)
        return last_activations(self.source) if is_model else None

    def __call__(self, x):
        """The teacher's outputs for the student's inputs, in inference mode."""
        if self.preprocess is not None:
            x = _infer(self.preprocess, x)
        if self.is_cache:
            outputs = self.source.look_up_in_graph(x)
        else:
            outputs = _infer(self.source, x)
        return self.checked(outputs)

    def features(self, x) -> dict:
        """Stored features of a cache, by the name of the teacher's layer."""
        return self.checked(self.source.look_up_features_in_graph(x))

    def checked(self, outputs):
        """Without gradients; a step fails where one is not a finite number."""
        return keras.tree.map_structure(self._checked, outputs)

    def _checked(self, output):
        output = ops.stop_gradient(ops.convert_to_tensor(output))
        if not output.dtype.is_floating:
            return output
        return tf.debugging.check_numerics(output, f"{_NOT_FINITE}{self.name!r}")

    def begin(self, student: keras.Model) -> None:
        """What a teacher that follows the student needs at the start of `fit`."""
        if isinstance(self.source, MovingAverageTeacher):
            self.source.begin(student)

    def end(self) -> None:
        """Let go of the student."""
        if isinstance(self.source, MovingAverageTeacher):
            self.source.end()

    def check_weights(self) -> None:
        """ValueError if a weight is not a finite number."""
        if not isinstance(self.source, keras.layers.Layer):
            return
        for variable in self.source.variables:
            value = ops.convert_to_numpy(variable)
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise ValueError(
                    f"The weights of a teacher must be finite numbers. Received: "
                    f"teacher {self.name!r} with NaN or infinity in "
                    f"{variable.path!r}. Load a good checkpoint."
                )

    def explain(self, error: BaseException) -> BaseException | None:
        """The `ValueError` behind an exception of TensorFlow, if it is of this one."""
        if self.is_cache:
            return self.source.explain(error)
        if f"{_NOT_FINITE}{self.name!r}" in str(error):
            return ValueError(
                f"The outputs of the teacher {self.name!r} must be finite numbers. "
                "Received: NaN or infinity. Look for them in the data, and check that "
                "the teacher is fed what it was trained on (`teacher_preprocess`)."
            )
        return None


def as_teachers(teacher, weights, preprocess) -> tuple[Teacher, ...]:
    """One teacher or a list of them, with weights that add up to 1."""
    sources = list(teacher) if isinstance(teacher, list | tuple) else [teacher]
    if not sources:
        raise ValueError("`teacher` must have at least one teacher. Received: []")
    for source in sources:
        _check_source(source)
    weights = _as_weights(weights, len(sources))
    preprocess = _one_each("teacher_preprocess", preprocess, len(sources))
    for source, function in zip(sources, preprocess, strict=True):
        if function is not None and not callable(function):
            raise ValueError(
                "`teacher_preprocess` must be a function or layer of the student's "
                f"inputs. Received: {function!r}"
            )
        if function is not None and isinstance(source, TeacherCache):
            raise ValueError(
                "`teacher_preprocess` must be None for a TeacherCache, which knows the "
                "student's own inputs. Preprocess for the teacher when the cache is "
                f"built. Received: {function!r}"
            )
    return tuple(map(Teacher, sources, weights, preprocess))


def targets_for_classes(teachers, outputs, are_logits, temperature):
    """Logits whose softmax at the temperature is the mean of the teachers'.

    Args:
        teachers: the `Teacher`s, for their weights.
        outputs: one tensor of each, `(batch, ..., classes)`.
        are_logits: for each whether these are logits or probabilities.
        temperature: a number or variable.
    """
    logits = [
        ops.cast(output, "float32")
        if are
        else logits_of_probabilities(ops.cast(output, "float32"))
        for output, are in zip(outputs, are_logits, strict=True)
    ]
    if len(logits) == 1:
        return logits[0]
    logs = [
        ops.log_softmax(z / temperature, axis=-1) + float(np.log(teacher.weight))
        for teacher, z in zip(teachers, logits, strict=True)
        if teacher.weight
    ]
    return temperature * ops.logsumexp(ops.stack(logs), axis=0)


def mean_outputs(teachers, outputs):
    """The weighted mean of one output of each teacher."""
    if len(outputs) == 1:
        return outputs[0]
    return sum(
        teacher.weight * ops.cast(output, "float32")
        for teacher, output in zip(teachers, outputs, strict=True)
    )


def _flat_shapes(shapes) -> list[tuple]:
    if isinstance(shapes, dict):
        return [shapes[name] for name in sorted(shapes)]
    return shapes if isinstance(shapes, list) else [shapes]


def _infer(function, x):
    if isinstance(function, keras.layers.Layer | MovingAverageTeacher):
        return function(x, training=False)
    return function(x)


def _check_source(source):
    if isinstance(source, keras.Model) and not source.built:
        raise ValueError(
            f"The teacher {source.name!r} is not built, so it has no trained "
            "weights. Load its weights, or call it on a batch, first."
        )
    known = isinstance(source, TeacherCache) or callable(source)
    if not known or isinstance(source, type):
        raise ValueError(
            "`teacher` must be a keras.Model, a keras_compress.TeacherCache, a layer, "
            "a function of the inputs, a keras_compress.MovingAverageTeacher, or a "
            f"list of these. Received: {source!r} of type {type(source).__name__}"
        )


def _as_weights(weights, count):
    weights = [1.0] * count if weights is None else list(weights)
    for weight in weights:
        check_number("teacher_weights", weight)
    if len(weights) != count or not sum(weights) > 0:
        raise ValueError(
            f"`teacher_weights` must be {count} numbers, one for each teacher and at "
            f"least one above 0. Received: teacher_weights={weights}"
        )
    return [weight / sum(weights) for weight in weights]


def _one_each(name, value, count):
    if not isinstance(value, list | tuple):
        return [value] * count
    if len(value) != count:
        raise ValueError(
            f"`{name}` must be one for all teachers, or a list of {count}. "
            f"Received: {len(value)}"
        )
    return list(value)
