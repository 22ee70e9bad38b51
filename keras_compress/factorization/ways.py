"""The table: layer -> how its kernel is a matrix, and which two layers stand for it."""

import math
from dataclasses import dataclass

import keras
import numpy as np


@dataclass(frozen=True)
class Matrix:
    """A kernel that is a matrix (inputs, outputs): two layers of the same kind."""

    name = "matrix"

    def unfold(self, kernel: np.ndarray) -> np.ndarray:
        """The kernel as the matrix that is factorised."""
        return kernel

    def fold(self, first: np.ndarray, second: np.ndarray, shape: tuple) -> tuple:
        """The kernels of both layers, from the factors of a kernel of this shape."""
        return first, second

    def settings(self, layer, rank: int) -> tuple[dict, dict]:
        """What the two layers do otherwise than the one they stand for."""
        if isinstance(layer, keras.layers.EinsumDense):
            shape = layer.get_config()["output_shape"]
            return {"output_shape": (*shape[:-1], rank), "bias_axes": None}, {}
        return {"units": rank, "use_bias": False}, {}


@dataclass(frozen=True)
class Channel:
    """The same convolution to fewer channels, then one of size 1.

    Source: Zhang et al. 2015, 1505.06798.
    """

    name = "channel"

    def unfold(self, kernel: np.ndarray) -> np.ndarray:
        """(*size, inputs, outputs) as (size * inputs, outputs)."""
        return kernel.reshape(-1, kernel.shape[-1])

    def fold(self, first: np.ndarray, second: np.ndarray, shape: tuple) -> tuple:
        """(*size, inputs, rank) and (1, ..., rank, outputs)."""
        ones = (1,) * (len(shape) - 2)
        return first.reshape(*shape[:-1], -1), second.reshape(*ones, *second.shape)

    def settings(self, layer, rank: int) -> tuple[dict, dict]:
        """What the two layers do otherwise than the one they stand for."""
        ones = (1,) * layer.rank
        point = {"kernel_size": ones, "strides": ones, "dilation_rate": ones}
        return {"filters": rank, "use_bias": False}, point | {"padding": "valid"}


@dataclass(frozen=True)
class Spatial:
    """A convolution down the columns, then one along the rows.

    Source: Jaderberg et al. 2014, 1405.3866.
    """

    name = "spatial"

    def unfold(self, kernel: np.ndarray) -> np.ndarray:
        """(height, width, inputs, outputs) as (height * inputs, width * outputs)."""
        height, width, inputs, outputs = kernel.shape
        return kernel.transpose(0, 2, 1, 3).reshape(height * inputs, width * outputs)

    def fold(self, first: np.ndarray, second: np.ndarray, shape: tuple) -> tuple:
        """(height, 1, inputs, rank) and (1, width, rank, outputs)."""
        height, width, inputs, outputs = shape
        first = first.reshape(height, 1, inputs, -1)
        second = second.reshape(-1, 1, width, outputs)
        return first, second.transpose(1, 2, 0, 3)

    def settings(self, layer, rank: int) -> tuple[dict, dict]:
        """What the two layers do otherwise than the one they stand for."""
        both = {
            key: getattr(layer, key)
            for key in ("kernel_size", "strides", "dilation_rate")
        }
        down = {key: (height, 1) for key, (height, _) in both.items()}
        along = {key: (1, width) for key, (_, width) in both.items()}
        return down | {"filters": rank, "use_bias": False}, along


Way = Matrix | Channel | Spatial


def ways_of(layer) -> tuple[tuple[Way, ...], str]:
    """The ways to factorise a layer; none, and why, if it is left alone."""
    rule = _ROWS.get(type(layer))
    if rule is None:
        return (), f"no way for a {type(layer).__name__}"
    dtype = keras.backend.standardize_dtype(layer.kernel.dtype)
    if "float" not in dtype:
        return (), f"kernel of {dtype}"
    if layer.kernel_constraint is not None:
        return (), "its kernel has a constraint"
    if getattr(layer, "lora_enabled", False):
        return (), "its kernel has a LoRA update"
    return rule(layer)


def _matrix(layer) -> tuple:
    return (Matrix(),), ""


def _einsum(layer) -> tuple:
    """A product with a matrix along the last axis, such as "abc,cd->abd"."""
    given, rest = layer.equation.replace(" ", "").split(",")
    kernel, made = rest.split("->")
    plain = len(kernel) == 2 and given[-1] == kernel[0] and made[-1] == kernel[1]
    if plain and given[:-1] == made[:-1]:
        return (Matrix(),), ""
    return (), "its kernel is no matrix along the last axis"


def _convolution(layer) -> tuple:
    if layer.groups > 1:
        return (), "grouped"
    if layer.rank == 2 and min(layer.kernel_size) > 1:
        return (Spatial(), Channel()), ""
    return (Channel(),), ""


_ROWS = {
    keras.layers.Dense: _matrix,
    keras.layers.EinsumDense: _einsum,
    keras.layers.Conv1D: _convolution,
    keras.layers.Conv2D: _convolution,
    keras.layers.Conv3D: _convolution,
}


def has_kernel(operation) -> bool:
    """Whether it has weights of two axes or more."""
    return any(len(v.shape) > 1 for v in getattr(operation, "weights", ()))


def two_layers(layer, way: Way, rank: int, names: tuple[str, str]) -> tuple:
    """The two layers that stand for a layer, not built.

    The first has no bias and is linear; bias, activation and what weighs the output are
    the second's. Both have the layer's kernel regulariser.
    """
    first, second = way.settings(layer, rank)
    # An initializer of the user's own may only know the shape of the whole kernel.
    common = {"kernel_initializer": "glorot_uniform"}
    plain = {"activation": "linear", "activity_regularizer": None}
    plain |= {"bias_regularizer": None, "bias_constraint": None}
    made = [
        type(layer).from_config(layer.get_config() | common | changes | {"name": name})
        for changes, name in zip((plain | first, second), names, strict=True)
    ]
    made[1].activity_regularizer = layer.activity_regularizer
    return tuple(made)


def params_of(layer) -> int:
    """Numbers in the layer's weights."""
    return sum(math.prod(variable.shape) for variable in layer.weights)
