"""From a TensorFlow function in a Keras 2 graph to a function of keras.ops.

Keras 2 turns `x + 1` and `tf.nn.relu(x)` on symbolic tensors into layers that hold the
TensorFlow function. One row per function; arguments come in TensorFlow's order.
"""

import functools
import inspect
from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_compress.keras_2.layers import unknown, valid_name

_FUNCTION_LAYERS = ("TFOpLambda", "SlicingOpLambda")


def is_function(old) -> bool:
    """Whether the Keras 2 layer stands for a TensorFlow function."""
    return type(old).__name__ in _FUNCTION_LAYERS


def convert_function(old, custom_objects: Mapping) -> Callable:
    """A function of Keras tensors that takes the arguments of the one in `old`.

    Raises:
        ValueError: there is no row for it.
    """
    key = f"tf.{old.symbol}"
    custom = custom_objects.get(old.name, custom_objects.get(key))
    function = custom or _FUNCTIONS.get(old.symbol.removeprefix("compat.v1."))
    if function is None:
        raise unknown(old, key)

    def call(*args, **kwargs):
        given = args if custom else _positional(old.function, args, kwargs)
        try:
            result = function(*given, **(kwargs if custom else {}))
        except TypeError as error:
            raise ValueError(
                f"Layer {old.name!r} calls {key} in a way that does not move to Keras "
                f"3: {error}. Pass `custom_objects={{{key!r}: ...}}` with a function "
                "of Keras tensors."
            ) from error
        _rename_operation(result, valid_name(old))
        return result

    return call


def _positional(function, args, kwargs) -> list:
    """All arguments in their order, without `name` and defaults at the end."""
    signature = inspect.signature(function)
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    bound.arguments.pop("name", None)
    given = list(bound.arguments.items())
    while given and given[-1][1] is signature.parameters[given[-1][0]].default:
        given.pop()
    return [value for _, value in given]


def _rename_operation(result, name: str) -> None:
    """Gives the op its Keras 2 name; a generated one may be that of a layer.

    Checked on Keras 3.15.1: a Keras tensor knows its op as `_keras_history.operation`.
    """
    for tensor in keras.tree.flatten(result):
        tensor._keras_history.operation.name = name


def _getitem(x, key):
    def part(item):
        if isinstance(item, Mapping):
            return slice(item["start"], item["stop"], item["step"])
        return item

    return x[tuple(map(part, key if isinstance(key, tuple | list) else [key]))]


def _matmul(x, y, transpose_x=False, transpose_y=False):
    x = ops.swapaxes(x, -1, -2) if transpose_x else x
    return ops.matmul(x, ops.swapaxes(y, -1, -2) if transpose_y else y)


def _gather(x, indices, validate_indices=None, axis=None, batch_dims=0):
    if batch_dims:
        raise TypeError("`batch_dims` must be 0")
    return ops.take(x, indices, axis or 0)


def _argmax(x, axis=None, output_type=tf.int64):
    return ops.cast(ops.argmax(x, axis or 0), tf.as_dtype(output_type).name)


def _split(x, sizes, axis=0):
    if not isinstance(sizes, int):
        sizes = np.cumsum(sizes)[:-1].tolist()
    return ops.split(x, sizes, axis)


def _pad(x, paddings, mode="CONSTANT", constant_values=0):
    value = {"constant_values": constant_values} if mode == "CONSTANT" else {}
    return ops.pad(x, np.asarray(paddings).tolist(), mode.lower(), **value)


def _unit_norm(x, axis, epsilon=1e-12):
    total = ops.sum(ops.square(x), axis, keepdims=True)
    return ops.multiply(x, ops.rsqrt(ops.maximum(total, epsilon)))


_FUNCTIONS = {
    "__operators__.add": ops.add,
    "__operators__.getitem": _getitem,
    "broadcast_to": ops.broadcast_to,
    "cast": lambda x, dtype: ops.cast(x, tf.as_dtype(dtype).name),
    "clip_by_value": ops.clip,
    "concat": ops.concatenate,
    "convert_to_tensor": lambda x: x,
    "einsum": lambda equation, inputs, _=None: ops.einsum(equation, *inputs),
    "expand_dims": ops.expand_dims,
    "floor_div": ops.floor_divide,
    "gather": _gather,
    "identity": lambda x: x,
    "image.resize": lambda x, size, method="bilinear": ops.image.resize(
        x, size, interpolation=method
    ),
    "linalg.matmul": _matmul,
    "math.abs": ops.abs,
    "math.add": ops.add,
    "math.add_n": lambda xs: functools.reduce(ops.add, xs),
    "math.argmax": _argmax,
    "math.cos": ops.cos,
    "math.cumsum": ops.cumsum,
    "math.divide": ops.divide,
    "math.equal": ops.equal,
    "math.erf": ops.erf,
    "math.exp": ops.exp,
    "math.floor": ops.floor,
    "math.floordiv": ops.floor_divide,
    "math.floormod": ops.mod,
    "math.greater": ops.greater,
    "math.greater_equal": ops.greater_equal,
    "math.l2_normalize": _unit_norm,
    "math.less": ops.less,
    "math.less_equal": ops.less_equal,
    "math.log": ops.log,
    "math.log1p": ops.log1p,
    "math.logical_and": ops.logical_and,
    "math.logical_not": ops.logical_not,
    "math.logical_or": ops.logical_or,
    "math.maximum": ops.maximum,
    "math.minimum": ops.minimum,
    "math.multiply": ops.multiply,
    "math.negative": ops.negative,
    "math.not_equal": ops.not_equal,
    "math.pow": ops.power,
    "math.reduce_max": ops.max,
    "math.reduce_mean": ops.mean,
    "math.reduce_min": ops.min,
    "math.reduce_prod": ops.prod,
    "math.reduce_std": ops.std,
    "math.reduce_sum": ops.sum,
    "math.reduce_variance": ops.var,
    "math.round": ops.round,
    "math.rsqrt": ops.rsqrt,
    "math.sigmoid": ops.sigmoid,
    "math.sign": ops.sign,
    "math.sin": ops.sin,
    "math.softplus": ops.softplus,
    "math.sqrt": ops.sqrt,
    "math.square": ops.square,
    "math.squared_difference": lambda x, y: ops.square(ops.subtract(x, y)),
    "math.subtract": ops.subtract,
    "math.tanh": ops.tanh,
    "math.truediv": ops.true_divide,
    "nn.bias_add": ops.add,
    "nn.elu": ops.elu,
    "nn.gelu": lambda x, approximate=False: ops.gelu(x, approximate),
    "nn.leaky_relu": ops.leaky_relu,
    "nn.log_softmax": ops.log_softmax,
    "nn.relu": ops.relu,
    "nn.relu6": ops.relu6,
    "nn.selu": ops.selu,
    "nn.silu": ops.silu,
    "nn.softmax": ops.softmax,
    "pad": _pad,
    "reshape": ops.reshape,
    "reverse": ops.flip,
    "split": _split,
    "squeeze": ops.squeeze,
    "stack": ops.stack,
    "stop_gradient": ops.stop_gradient,
    "tile": ops.tile,
    "transpose": ops.transpose,
    "unstack": lambda x, num=None, axis=0: ops.unstack(x, num, axis),
    "where": ops.where,
}
