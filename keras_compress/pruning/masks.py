"""The mask of a kernel, held by the optimizer after every step."""

import keras
import tensorflow as tf
from keras import ops


class MaskConstraint(keras.constraints.Constraint):
    """Keeps a kernel's pruned weights at exactly zero.

    Stands on the variable, never on the layer, whose config stays the user's. The mask
    is a variable, so a new one needs no new trace.

    Args:
        kernel: The kernel variable.
        growing: A bool variable. While it is true, a pruned weight that a step makes
            larger than the smallest kept one stays.
        averages: Variables of the optimizer that hold moving averages of the kernel.
    """

    def __init__(self, kernel: keras.Variable, growing, averages=()) -> None:
        self.users = kernel.constraint
        self.mask = keras.Variable(
            ops.ones(kernel.shape, "bool"),
            dtype="bool",
            trainable=False,
            name="mask",
            aggregation="only_first_replica",
        )
        self._kernel = kernel
        self._growing = growing
        self._averages = averages
        self._released = False
        kernel.constraint = self

    def __call__(self, w):
        """The weights with the user's constraint and exact zeros."""
        if self._released:
            return w if self.users is None else self.users(w)
        w = ops.convert_to_tensor(w)
        kept = self._kept(w)
        for average in self._averages:
            average.assign(_masked(average, kept))
        if self.users is None:
            return _masked(w, kept)
        return _masked(self.users(_masked(w, kept)), kept)

    def apply(self) -> None:
        """Zero what the mask prunes, in the kernel and its averages."""
        for variable in (self._kernel, *self._averages):
            variable.assign(_masked(variable, self.mask))

    def release(self) -> None:
        """Give the kernel its own constraint back.

        Where another constraint was put around this one, this one does nothing more.
        """
        self._released = True
        if self._kernel.constraint is self:
            self._kernel.constraint = self.users

    @property
    def released(self) -> bool:
        """Whether `release` was called."""
        return self._released

    def _kept(self, w):
        mask = ops.convert_to_tensor(self.mask)

        def grown():
            size = ops.abs(w)
            infinite = ops.full_like(size, float("inf"))
            smallest = ops.min(ops.where(mask, size, infinite))
            return ops.logical_or(mask, size > smallest)

        return tf.cond(self._growing.value, grown, lambda: mask)


def _masked(w, mask):
    w = ops.convert_to_tensor(w)
    # Not a product, which would make -0 of negative weights and keep NaN.
    return ops.where(mask, w, ops.zeros_like(w))
