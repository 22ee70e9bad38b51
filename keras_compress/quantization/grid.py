"""The grid that int8 weights lie on: symmetric, one scale per output channel."""

import keras
import tensorflow as tf


def weight_scale(weights, axes: tuple[int, ...], bits: int = 8):
    """max|w| / (2^(bits-1) - 1) over `axes`, 1 where all weights are zero.

    Args:
        weights: Float tensor.
        axes: The axes that share a scale: all but the output channels.
        bits: Width of the integers, 2 to 8.

    Returns:
        A tensor of the rank of `weights`, of size 1 along `axes`.
    """
    largest = keras.ops.max(keras.ops.abs(weights), axis=axes, keepdims=True)
    scale = largest / (2 ** (bits - 1) - 1)
    return keras.ops.where(largest > 0, scale, 1.0)


def on_grid(weights, axes: tuple[int, ...], bits: int = 8):
    """The weights rounded to the grid of `weight_scale`, half to even.

    Narrower integers are then rounded to the int8 grid, in which a file stores them:
    the file holds the very weights that training computed with. The rounded weights
    have the same scale, so rounding them again changes nothing.
    """
    scale = weight_scale(weights, axes, bits)
    rounded = keras.ops.round(weights / scale) * scale
    return rounded if bits == 8 else on_grid(rounded, axes)


def stored_scale(weights, axes: tuple[int, ...], bits: int = 8):
    """The scale of the int8 integers that a file has of `on_grid(weights)`."""
    return weight_scale(weights, axes, bits) * ((2 ** (bits - 1) - 1) / 127)


def bias_on_grid(bias, scale):
    """The bias rounded to multiples of `scale`, as it is where that is zero.

    The int32 bias of an int8 kernel has the scale of the inputs times that of the
    weights, per output channel.
    """
    safe = keras.ops.where(scale > 0, scale, 1.0)
    return keras.ops.where(scale > 0, keras.ops.round(bias / safe) * scale, bias)


def straight_through(weights, axes: tuple[int, ...], bits: int = 8):
    """`on_grid` forwards, the identity backwards (Bengio et al. 2013, 1308.3432)."""

    @tf.custom_gradient
    def rounded(values):
        return on_grid(values, axes, bits), lambda upstream: upstream

    return rounded(tf.convert_to_tensor(weights))
