"""The features that the objectives of one `fit` compare."""

import keras

from keras_compress.distillation.mean_teacher import MovingAverageTeacher
from keras_compress.distillation.positions import channels_last
from keras_compress.distillation.taps import Taps, find_layer


class FitFeatures:
    """Reads features of student and teachers, each off one forward pass.

    Args:
        objectives: all objectives; those that compare outputs have no pairs.
        student: the model in training.
        teachers: the `Teacher`s.

    Raises:
        ValueError: a layer is not in the student, or in no teacher, or in several.
    """

    def __init__(self, objectives, student, teachers):
        self._teachers = teachers
        self._models = [_model_of(teacher, student) for teacher in teachers]
        wanted = dict.fromkeys(pair for o in objectives for pair in o.pairs)
        self._found = {
            (of_student, of_teacher): (
                find_layer(student, of_student),
                self._find(of_teacher),
            )
            for of_student, of_teacher in wanted
        }
        found = self._found.values()
        self._student = Taps([layer for layer, _ in found], student)
        self._taps = [
            Taps(key for _, (at, key) in found if at == place and not teacher.is_cache)
            for place, teacher in enumerate(teachers)
        ]

    def __bool__(self) -> bool:
        return bool(self._found)

    def install(self) -> None:
        """Begin to read."""
        for taps in (self._student, *self._taps):
            taps.install()

    def remove(self) -> None:
        """Take everything off the models."""
        for taps in (self._student, *self._taps):
            taps.remove()

    def take_student(self) -> dict:
        """What the student's layers returned in the step, by `id` of the layer.

        To be called before a teacher is asked, which may share layers.
        """
        return self._student.take() if self else {}

    def ask(self, x) -> tuple[list, list[dict]]:
        """What each teacher answers, and its features by `id` of the layer or name."""
        answers, features = [], []
        for place, (teacher, taps) in enumerate(
            zip(self._teachers, self._taps, strict=True)
        ):
            taps.clear()
            answers.append(teacher(x))
            wanted = [key for _, (at, key) in self._found.values() if at == place]
            if teacher.is_cache:
                features.append(teacher.features(x) if wanted else {})
            else:
                features.append(teacher.checked(taps.take()) if wanted else {})
        return answers, features

    def of_pairs(self, pairs, of_student: dict, of_teachers: list[dict]):
        """The teachers' and the student's features of an objective, pair by pair."""
        teacher_features, student_features = [], []
        for pair in pairs:
            layer, (at, key) = self._found[pair]
            student_features.append(channels_last(layer, of_student[id(layer)]))
            if isinstance(key, str):
                teacher_features.append(of_teachers[at][key])
            else:
                teacher_features.append(channels_last(key, of_teachers[at][id(key)]))
        return teacher_features, student_features

    def widths(self, pair) -> tuple[int, int] | None:
        """Channels of the teacher's and the student's layer, if known before a step."""
        layer, (at, key) = self._found[pair]
        if isinstance(key, str):
            teacher = self._teachers[at].source.feature_shapes[key][-1]
        else:
            teacher = _width(key)
        student = _width(layer)
        return None if None in (teacher, student) else (teacher, student)

    def _find(self, wanted) -> tuple:
        """The place of the only teacher that has a layer, and the layer or its name."""
        found, errors = [], []
        for place, teacher in enumerate(self._teachers):
            try:
                found.append((place, self._in_teacher(place, teacher, wanted)))
            except ValueError as error:
                errors.append(error)
        if len(found) > 1:
            raise ValueError(
                f"{len(found)} teachers have a layer {wanted!r}. Pass the layer itself "
                "in place of its name."
            )
        if not found:
            raise ValueError(" ".join(map(str, errors))) from errors[0]
        return found[0]

    def _in_teacher(self, place, teacher, wanted):
        if teacher.is_cache:
            name = getattr(wanted, "name", wanted)
            stored = teacher.source.feature_shapes
            if name not in stored:
                raise ValueError(
                    f"The teacher cache holds no features of layer {name!r}, but of "
                    f"{sorted(stored)}. Build it with feature_layers=[{name!r}]."
                )
            return name
        model = self._models[place]
        if model is None:
            raise ValueError(
                f"The teacher {teacher.name!r} has no layers whose features can be "
                "read. Expected a keras.Model or a TeacherCache with feature_layers."
            )
        return find_layer(model, wanted)


def _model_of(teacher, student):
    if isinstance(teacher.source, MovingAverageTeacher):
        return student
    return teacher.source if isinstance(teacher.source, keras.Model) else None


def _width(layer):
    """Channels of what a layer of a graph returns; None where it is in none."""
    try:
        output = layer.output
    except (AttributeError, ValueError):  # never called on a symbolic tensor
        return None
    if not isinstance(output, keras.KerasTensor):
        return None
    return channels_last(layer, output).shape[-1]
