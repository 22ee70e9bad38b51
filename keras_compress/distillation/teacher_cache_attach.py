"""Teacher outputs that travel along with each batch, from the pipeline into the step.

`TeacherCache.attach` adds one column, a dictionary, behind the inputs, labels and
sample weights of a dataset. `receive_attached` takes it off again before Keras' own
`train_step` sees the batch, and keeps it for `attached_to_step`, which the added loss
calls while the step is traced.
"""

import functools
import threading
from collections.abc import Callable, Mapping

import keras
import tensorflow as tf

from keras_compress.undo import undo_after_fit

# The instance attribute that holds a model's receiver while there is one.
_RECEIVER = "_keras_compress_attached_outputs"
_PREFIX = "keras_compress.TeacherCache:"
# Each replica traces its step in a thread of its own.
_step = threading.local()


def column_name(teacher_sha256: str) -> str:
    """The key of one teacher's outputs in the column."""
    return f"{_PREFIX}{teacher_sha256[:16]}"


def attach_column(
    dataset: tf.data.Dataset, name: str, look_up: Callable, keyed: bool
) -> tf.data.Dataset:
    """`dataset` with `look_up(x)`, or of its last component where `keyed`, behind."""

    def add(*element):
        element, column = _split(element)
        source = element[-1] if keyed else element[0]
        data = element[:-1] if keyed else element
        return (*data, {**column, name: look_up(source)})

    if not isinstance(dataset, tf.data.Dataset):
        raise ValueError(
            "`dataset` must be a batched tf.data.Dataset of inputs, (inputs, labels) "
            f"or (inputs, labels, sample weights). Received: {type(dataset).__name__}"
        )
    spec = dataset.element_spec
    parts = len(_split(spec)[0]) if isinstance(spec, tuple) else 1
    if keyed and parts < 2:
        raise ValueError(
            "With keyed=True the last component of `dataset` must be `cache.keys(x)`. "
            f"Received elements of {spec}"
        )
    if isinstance(spec, tuple):
        return dataset.map(add, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.map(lambda x: add(x), num_parallel_calls=tf.data.AUTOTUNE)


def receive_attached(model: keras.Model) -> Callable:
    """Lets the training step of `model` take attached outputs, until `fit` ends.

    Returns:
        A function without arguments that undoes it.
    """
    receiver = vars(model).get(_RECEIVER) or _Receiver(model)
    receiver.users += 1
    return undo_after_fit(model, receiver.leave)


def attached_to_step(name: str) -> Mapping | None:
    """What is attached to the batch of the step being traced, if it is.

    Raises:
        ValueError: nothing is, and XLA compiles the step, so nothing can be looked up.
    """
    columns = getattr(_step, "columns", {})
    if name not in columns and getattr(_step, "jit_compile", False):
        raise ValueError(
            "The training data carries no outputs of this teacher, and XLA, which "
            "compiles this student, cannot look them up in the step. Train on "
            "`cache.attach(dataset)`, or compile the student with jit_compile=False."
        )
    return columns.get(name)


class _Receiver:
    """Stands before a model's `train_step`, shared by all callbacks that use it."""

    def __init__(self, model):
        self.users = 0
        self._model = model
        attributes = vars(model)
        self._had = "train_step" in attributes
        self._original = model.train_step
        attributes["train_step"] = self._train_step()
        attributes[_RECEIVER] = self

    def _train_step(self):
        @functools.wraps(self._original)
        def train_step(data):
            data, _step.columns = _split(data)
            _step.jit_compile = self._model.jit_compile
            try:
                return self._original(data)
            finally:
                del _step.columns, _step.jit_compile

        return train_step

    def leave(self):
        self.users -= 1
        attributes = vars(self._model)
        if self.users or attributes.get(_RECEIVER) is not self:
            return
        del attributes[_RECEIVER]
        if self._had:
            attributes["train_step"] = self._original
        else:
            del attributes["train_step"]


def _split(element):
    """A batch without its column, and the column."""
    last = element[-1] if isinstance(element, tuple) and element else None
    is_column = isinstance(last, Mapping) and all(
        isinstance(key, str) and key.startswith(_PREFIX) for key in last
    )
    if not (is_column and last):
        return element, {}
    return element[:-1], dict(last)
