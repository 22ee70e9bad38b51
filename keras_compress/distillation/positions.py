"""Features of two models at the same positions: pooled where one has more."""

import keras
import numpy as np
from keras import ops


def same_positions(teacher, student):
    """Both features, the finer one averaged to the positions of the coarser.

    Args:
        teacher: `(batch, ..., channels)`.
        student: likewise, with as many axes.

    Returns:
        The two, with equal sizes between the first and the last axis. Where one size
        is no multiple of the other, each new position is the mean over its share of
        the old ones, those on its borders by what lies inside.

    Raises:
        ValueError: the numbers of axes differ.
    """
    if len(teacher.shape) != len(student.shape):
        raise ValueError(
            "Features of teacher and student must have as many axes. Received: "
            f"teacher {tuple(teacher.shape)}, student {tuple(student.shape)}. Choose "
            "layers of the same kind, such as two convolutions."
        )
    for axis in range(1, len(student.shape) - 1):
        sizes = teacher.shape[axis], student.shape[axis]
        if None not in sizes and sizes[0] != sizes[1]:
            size = min(sizes)
            teacher, student = _pool(teacher, axis, size), _pool(student, axis, size)
    return teacher, student


def channels_last(layer: keras.layers.Layer, features):
    """A layer's output with its channels as last axis."""
    default = keras.config.image_data_format()
    data_format = getattr(layer, "data_format", None) or default
    if data_format == "channels_first" and len(features.shape) > 3:
        return ops.moveaxis(features, 1, -1)
    return features


def _pool(features, axis, size):
    """The features averaged to another size of an axis."""
    if features.shape[axis] == size:
        return features
    shares = ops.convert_to_tensor(_shares(features.shape[axis], size), features.dtype)
    pooled = ops.tensordot(features, shares, axes=[[axis], [0]])
    return ops.moveaxis(pooled, -1, axis)


def _shares(size: int, smaller: int) -> np.ndarray:
    """`(size, smaller)`: the share of each old position in each new one."""
    width = size / smaller
    begins = np.arange(smaller) * width
    old = np.arange(size)[:, None]
    overlap = np.minimum(old + 1, begins + width) - np.maximum(old, begins)
    return np.maximum(overlap, 0) / width
