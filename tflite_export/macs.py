"""Multiply-accumulates of one op, from the shapes of its tensors."""

import math
from collections.abc import Callable

from tflite_export.flatbuffer import shape_of


def op_macs(name: str, operator, inputs: list, outputs: list) -> int:
    """Multiply-accumulates of one run of an op; 0 for ops without a matrix product.

    Args:
        name: The op's name, such as "CONV_2D".
        operator: Its `OperatorT`.
        inputs: Its input tensors by position, None where an optional one is left out.
        outputs: Its output tensors.
    """
    count = _MACS.get(name)
    return count(operator, inputs, outputs) if count else 0


def _per_output(*axes: int) -> Callable[..., int]:
    """MACs of an op whose every output sums over these axes of its weights."""

    def count(operator, inputs, outputs):
        weights = shape_of(inputs[1])
        window = math.prod(weights[axis] for axis in axes)
        return math.prod(shape_of(outputs[0])) * window

    return count


def _transpose_conv(operator, inputs, outputs) -> int:
    # Every input value is spread over a window of every output channel.
    return math.prod(shape_of(inputs[2])) * math.prod(shape_of(inputs[1])[:-1])


def _batch_matmul(operator, inputs, outputs) -> int:
    axis = -2 if operator.builtinOptions.adjX else -1
    return math.prod(shape_of(outputs[0])) * shape_of(inputs[0])[axis]


def _every_step(*positions: int) -> Callable[..., int]:
    """MACs of an op that multiplies these weights by every row of its input."""

    def count(operator, inputs, outputs):
        weights = [inputs[index] for index in positions if index < len(inputs)]
        used = sum(math.prod(shape_of(item)) for item in weights if item is not None)
        return math.prod(shape_of(inputs[0])[:-1]) * used

    return count


# Weights: CONV_2D (out, h, w, in / groups), DEPTHWISE_CONV_2D (1, h, w, out),
# FULLY_CONNECTED (out, in), TRANSPOSE_CONV (out, h, w, in), CONV_3D (d, h, w, in, out),
# LSTM four of (units, in), four of (units, state) and a projection (state, units), RNN
# (units, in) and (units, units), SVDF (filters, in) and (filters, memory).
_LSTM = _every_step(1, 2, 3, 4, 5, 6, 7, 8, 16)
_MACS: dict[str, Callable[..., int]] = {
    "CONV_2D": _per_output(1, 2, 3),
    "DEPTHWISE_CONV_2D": _per_output(1, 2),
    "FULLY_CONNECTED": _per_output(1),
    "CONV_3D": _per_output(0, 1, 2, 3),
    "TRANSPOSE_CONV": _transpose_conv,
    "BATCH_MATMUL": _batch_matmul,
    "LSTM": _LSTM,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _LSTM,
    "RNN": _every_step(1, 2),
    "UNIDIRECTIONAL_SEQUENCE_RNN": _every_step(1, 2),
    "SVDF": _every_step(1, 2),
}
