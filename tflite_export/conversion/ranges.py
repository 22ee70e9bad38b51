"""Activation ranges that are too narrow for the int8 kernels, and how to widen them.

An activation that is zero on all representative data gets a scale of about 1e-8. The
convolution before it then has to multiply its sums by more than 256 and the one after
it cannot represent its bias: XNNPACK refuses such a file, or aborts the process.

The rule: an activation needs no finer scale than what one step of the op's input can
change. Ranges below that are rounding noise, so widening them loses nothing.
"""

from collections.abc import Callable

import numpy as np

from tflite_export.flatbuffer import dtype_name, listed, op_name, parse, text

_STEPS = 255
# TensorFlow gives a constant zero activation a width of 2e-6; see DEAD in the tests.
_DEAD_WIDTH = 2.1e-6
# XNNPACK adds two tensors whose scales are at most a factor of 1024 apart.
_ADD_SPAN = 512
# The reference kernel of SOFTMAX takes input scales over 2^-26.
_SOFTMAX_WIDTH = _STEPS * 2.0**-25


def dead_tensors(content: bytes) -> list[str]:
    """Names of int8 activations that were zero on all representative data.

    Those that are only zero because an input of their op is zero are left out.
    """
    model = parse(content, "the new file")
    graph = model.subgraphs[0]
    return [
        text(tensor.name)
        for operator in graph.operators
        for tensor in _tensors(graph, operator.outputs)
        if _is_dead(tensor) and not any(map(_is_dead, _tensors(graph, operator.inputs)))
    ]


def _is_dead(tensor) -> bool:
    found = tensor.quantization
    if dtype_name(tensor) != "int8" or found is None or found.scale is None:
        return False
    return len(found.scale) == 1 and found.scale[0] * _STEPS < _DEAD_WIDTH


def with_same_scales(calibrated: bytes, *, inputs_too: bool = False) -> bytes:
    """The calibrated model with ranges for ops whose kernels want one scale throughout.

    Such an op (a pool, a concatenation, a slice ...) gets the range of all its inputs
    for its outputs. Left to itself the converter may give the inputs the narrower range
    of the output, and clips them without a word.

    Args:
        calibrated: The float model with the ranges of its activations.
        inputs_too: Give the inputs that range as well, and so on through all such ops
            that hang together: coarser, but no two of them can disagree.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    model = parse(bytes(calibrated), "the calibrated model")
    graph = model.subgraphs[0]
    ops = [op for op in graph.operators if op_name(model, op) in _SAME_SCALE]
    changed = any([_share_range(graph, op, inputs_too) for op in ops])
    while inputs_too and any([_share_range(graph, op, True) for op in ops]):
        pass
    if not changed:
        return bytes(calibrated)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _share_range(graph, operator, inputs_too: bool) -> bool:
    """Give the op's outputs its range, or all its tensors; whether that changed any."""
    inputs = [t for t in _tensors(graph, operator.inputs) if _has_range(t)]
    outputs = [t for t in _tensors(graph, operator.outputs) if _has_range(t)]
    if not inputs_too:
        return any([_take_union(tensor, inputs) for tensor in outputs])
    both = inputs + outputs
    return any([_take_union(tensor, both) for tensor in both])


def _take_union(tensor, others: list) -> bool:
    """Give the tensor the union of the others' ranges; whether that changed it."""
    if not others:
        return False
    found = tensor.quantization
    old = (found.min[0], found.max[0])
    found.min = np.array([min(t.quantization.min[0] for t in others)], np.float32)
    found.max = np.array([max(t.quantization.max[0] for t in others)], np.float32)
    return old != (found.min[0], found.max[0])


def _has_range(tensor) -> bool:
    return bool(np.isfinite(_width(tensor)))


def with_floors(calibrated: bytes) -> bytes:
    """The calibrated float model with every activation range at least at its floor."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = parse(bytes(calibrated), "the calibrated model")
    graph = model.subgraphs[0]
    for operator in graph.operators:
        _raise_outputs(model, graph, operator)
    for operator in reversed(graph.operators):
        name, least = op_name(model, operator), 0.0
        if name in ("ADD", "SUB"):
            least = max(map(_width, _tensors(graph, operator.outputs))) / _ADD_SPAN
        elif name == "SOFTMAX":
            least = _SOFTMAX_WIDTH
        for tensor in _tensors(graph, operator.inputs):
            _raise_to(tensor, least)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _raise_outputs(model, graph, operator) -> None:
    inputs = _tensors(graph, operator.inputs)
    rule = _FLOORS.get(op_name(model, operator), _widest_input)
    floor = rule(model, inputs) / _STEPS
    for tensor in _tensors(graph, operator.outputs):
        _raise_to(tensor, floor)


def _raise_to(tensor, floor: float) -> None:
    """Widen a calibrated range around zero; constants have none and stay."""
    if _width(tensor) < floor:
        found = tensor.quantization
        found.min = np.array([min(found.min[0], -floor)], np.float32)
        found.max = np.array([max(found.max[0], floor)], np.float32)


def _tensors(graph, indices) -> list:
    return [graph.tensors[index] for index in listed(indices)]


def _width(tensor) -> float:
    """How far the calibrated values reach, zero included; else infinite."""
    found = tensor.quantization
    if found is None or found.min is None or not len(found.min):
        return np.inf
    return float(max(found.max[0], 0) - min(found.min[0], 0))


def _largest(model, tensor) -> float:
    """The largest absolute value of a constant, else the width of an activation."""
    data = model.buffers[tensor.buffer].data
    if data is None or not len(data) or dtype_name(tensor) != "float32":
        return _width(tensor)
    return float(np.abs(np.frombuffer(bytes(data), "<f4")).max())


def _widest_input(model, inputs) -> float:
    widths = [_width(tensor) for tensor in inputs if np.isfinite(_width(tensor))]
    return max(widths, default=0.0)


def _product(first: int, second: int) -> Callable[..., float]:
    """The floor's 255-fold of an op that sums products of two of its inputs."""

    def rule(model, inputs) -> float:
        product = _largest(model, inputs[first]) * _largest(model, inputs[second])
        if np.isfinite(product) and product > 0:
            return product
        return _widest_input(model, inputs)

    return rule


_SAME_SCALE = frozenset(
    """
    AVERAGE_POOL_2D CONCATENATION GATHER MAXIMUM MAX_POOL_2D MINIMUM PACK PAD PADV2
    REDUCE_MAX REDUCE_MIN RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR SLICE SPLIT
    SPLIT_V SQUEEZE STRIDED_SLICE TILE TRANSPOSE UNPACK
    """.split()  # noqa: SIM905
)
_FLOORS: dict[str, Callable[..., float]] = {
    "CONV_2D": _product(0, 1),
    "DEPTHWISE_CONV_2D": _product(0, 1),
    "FULLY_CONNECTED": _product(0, 1),
    "BATCH_MATMUL": _product(0, 1),
    "MUL": _product(0, 1),
    "TRANSPOSE_CONV": _product(2, 1),
}
