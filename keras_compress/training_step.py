"""Extends a compiled model's training step for the length of one `fit`.

A callback calls `extend_training_step` in `on_train_begin`, and calls what it gets back
in `on_train_end`. In between its `added_loss` is part of the model's loss. Several
extensions may be on one model at a time, in any order.

Keras does not call `on_train_end` when an exception ends `fit`. So the model goes back
to what it was as soon as its step fails and, where the exception came from elsewhere
(another callback, say), at its next `fit`, `compile` or `train_on_batch`.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf
from keras import ops

# How Keras ends an epoch whose length it did not know.
END_OF_DATA = (StopIteration, tf.errors.OutOfRangeError)

# The instance attribute that holds a model's patch while there is one.
_PATCH = "_keras_compress_step_patch"


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingStepExtension:
    """What one callback adds to the training step of a model.

    Args:
        added_loss: called in each training step, inside the compiled function, as
            `added_loss(x, y, y_pred, sample_weight)`; returns a float32 scalar.
        owner: the callback this extension belongs to.
        compiled_loss_weight: factor of the model's compiled loss. Its regularisers and
            other added losses keep their strength.
        metrics: `keras.metrics.Metric` objects that `added_loss` updates. They stand
            in the training logs under their names, not in those of validation.
        explain: given the exception that a step raised, returns the one to raise in
            its stead, or `None` to let it pass.
        allows_jit: whether `added_loss` can be compiled by XLA.
    """

    added_loss: Callable
    owner: object
    compiled_loss_weight: float = 1.0
    metrics: Sequence[keras.metrics.Metric] = ()
    explain: Callable[[BaseException], BaseException | None] | None = None
    allows_jit: bool = True


def extend_training_step(model: keras.Model, extension: TrainingStepExtension):
    """Adds `extension` to the training step of `model`, which must be compiled.

    Returns:
        A function without arguments that takes the extension off again; calling it
        twice does no harm.

    Raises:
        ValueError: the model's class has a `train_step` of its own, which need not ask
            `compute_loss` for its loss.
    """
    if type(model).train_step is not keras.Model.train_step:
        raise ValueError(
            f"{type(model).__name__} has its own `train_step`, which bypasses the loss "
            "that this callback extends. Expected a model that trains with "
            "`keras.Model.train_step`. Remove the override, or move what it does to "
            "`compute_loss`, `call` or a callback."
        )
    patch = vars(model).get(_PATCH) or _StepPatch(model)
    patch.add(extension)
    return functools.partial(patch.remove, extension)


def retrace_training_step(model: keras.Model):
    """Traces the step anew, as after a change of a layer's `trainable` in mid-`fit`."""
    model.make_train_function(force=True)
    patch = vars(model).get(_PATCH)
    if patch:
        model.train_function = patch.guarded(model.train_function)


def restore_training_step(model: keras.Model, left_by: object):
    """Takes every extension off `model` if `left_by` has one: a `fit` crashed there."""
    patch = vars(model).get(_PATCH)
    if patch and any(e.owner is left_by for e in patch.extensions):
        patch.restore()


class _StepPatch:
    """The instance attributes that stand before a model's methods during `fit`.

    Checked on Keras 3.15.1: `train_step` calls `self.compute_loss` by way of
    `_compute_loss`, passes `training` where `_compute_loss_has_training_arg` says so,
    and returns `self.get_metrics_result()`, which `fit` asks again after the epoch.
    """

    def __init__(self, model):
        self.model = model
        self.extensions = []
        self.evaluating = False
        self.saved = {}

    def add(self, extension):
        if not self.extensions:
            self._install()
        self.extensions.append(extension)
        model = self.model
        if not extension.allows_jit and model.jit_compile:
            model.jit_compile = False
        retrace_training_step(model)

    def remove(self, extension):
        if extension in self.extensions:
            self.extensions.remove(extension)
            if not self.extensions:
                self.restore()

    def restore(self):
        if not self.saved:
            return
        self.extensions.clear()
        attributes = vars(self.model)
        for name, (was_set, value) in self.saved["attributes"].items():
            if was_set:
                attributes[name] = value
            else:
                attributes.pop(name, None)
        if self.model.jit_compile != self.saved["jit_compile"]:
            self.model.jit_compile = self.saved["jit_compile"]
        self.saved = {}

    def _install(self):
        model = self.model
        methods = {
            "compute_loss": self._compute_loss(),
            "get_metrics_result": self._get_metrics_result(),
            "evaluate": self._evaluation(model.evaluate),
            "test_on_batch": self._evaluation(model.test_on_batch),
            "fit": self._restored_first("fit"),
            "compile": self._restored_first("compile"),
            "train_on_batch": self._restored_first("train_on_batch"),
            "_compute_loss_has_training_arg": True,
            _PATCH: self,
        }
        attributes = vars(model)
        self.saved = {
            "jit_compile": model.jit_compile,
            "attributes": {
                name: (name in attributes, attributes.get(name))
                for name in (*methods, "train_function")
            },
        }
        attributes.update(methods)

    def _compute_loss(self):
        original = self.model.compute_loss
        takes_training = self.model._compute_loss_has_training_arg

        @functools.wraps(original)
        def compute_loss(
            x=None, y=None, y_pred=None, sample_weight=None, training=True
        ):
            options = {"training": training} if takes_training else {}
            if not training:
                return original(x, y, y_pred, sample_weight, **options)
            loss = 0.0
            if not _has_no_loss(self.model):
                loss = original(x, y, y_pred, sample_weight, **options)
            weight = math.prod(e.compiled_loss_weight for e in self.extensions)
            total = weight * ops.cast(loss, "float32")
            total += (1 - weight) * _regularizers(self.model)
            for extension in self.extensions:
                total += extension.added_loss(x, y, y_pred, sample_weight)
            return total

        return compute_loss

    def _get_metrics_result(self):
        original = self.model.get_metrics_result

        @functools.wraps(original)
        def get_metrics_result():
            result = original()
            if not self.evaluating:
                for extension in self.extensions:
                    result |= {m.name: m.result() for m in extension.metrics}
            return result

        return get_metrics_result

    def _evaluation(self, original):
        @functools.wraps(original)
        def evaluate(*args, **kwargs):
            before, self.evaluating = self.evaluating, True
            try:
                return original(*args, **kwargs)
            finally:
                self.evaluating = before

        return evaluate

    def _restored_first(self, name):
        @functools.wraps(getattr(self.model, name))
        def method(*args, **kwargs):
            self.restore()
            return getattr(self.model, name)(*args, **kwargs)

        return method

    def guarded(self, train_function):
        """The function, which restores the model when a step raises."""

        def step(iterator):
            try:
                return train_function(iterator)
            except END_OF_DATA:
                raise
            except BaseException as error:
                explanations = [
                    e.explain(error) for e in self.extensions if e.explain is not None
                ]
                self.restore()
                for explanation in filter(None, explanations):
                    raise explanation from error
                raise

        return step


def _has_no_loss(model):
    """Whether Keras' own `compute_loss` would refuse: nothing compiled or added."""
    return _has_stock_loss(model) and model.loss is None and not model.losses


def _regularizers(model):
    """What Keras' own `compute_loss` adds beside the compiled loss."""
    if not _has_stock_loss(model):
        return 0.0
    return sum((ops.cast(ops.sum(loss), "float32") for loss in model.losses), 0.0)


def _has_stock_loss(model):
    return type(model).compute_loss is keras.Model.compute_loss
