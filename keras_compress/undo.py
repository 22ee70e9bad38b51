"""Undoes what a callback did to a model, also when an exception ends `fit`.

Keras calls no callback then. So the model goes back to what it was as soon as its step
fails and, where the exception came from elsewhere, before it next trains.
"""

import functools

import keras

from keras_compress.training_step import END_OF_DATA, retrace_training_step

# The instance attribute that holds a model's guard while there is one.
_GUARD = "_keras_compress_undo_guard"


def undo_after_fit(model: keras.Model, undo):
    """Traces the step anew now, and undoes and traces it anew after `fit`.

    Args:
        model: A compiled model that has begun to train.
        undo: Called without arguments, once.

    Returns:
        A function without arguments that undoes at once; to be called at the end of
        `fit`. Calling it twice does no harm.
    """
    guard = vars(model).get(_GUARD) or _Guard(model)
    guard.undos.append(undo)
    retrace_training_step(model)
    return functools.partial(guard.undo, undo)


class _Guard:
    """Stands before `make_train_function`, a public method of every model.

    `fit` and `train_on_batch` call it first, without `force`; what changes the step in
    the middle of `fit` forces it.
    """

    def __init__(self, model) -> None:
        self.model = model
        self.undos = []
        attributes = vars(model)
        self._had = "make_train_function" in attributes
        self._original = model.make_train_function
        attributes["make_train_function"] = self._make_train_function
        attributes[_GUARD] = self

    def _make_train_function(self, force=False):
        if not force:
            self._undo_all()
            return self.model.make_train_function()
        self._original(force=True)
        self.model.train_function = self._guarded(self.model.train_function)
        return self.model.train_function

    def _guarded(self, train_function):
        def step(iterator):
            try:
                return train_function(iterator)
            except END_OF_DATA:
                raise
            except BaseException:
                self._undo_all()
                raise

        return step

    def undo(self, undo) -> None:
        if undo in self.undos:
            self.undos.remove(undo)
            undo()
            if not self.undos:
                self._remove()
            retrace_training_step(self.model)

    def _undo_all(self) -> None:
        for undo in list(self.undos):
            self.undo(undo)

    def _remove(self) -> None:
        attributes = vars(self.model)
        del attributes[_GUARD]
        if self._had:
            attributes["make_train_function"] = self._original
        else:
            del attributes["make_train_function"]
