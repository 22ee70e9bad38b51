"""Rows of the table for layers with weights: what makes, reads and scales channels."""

import keras
import numpy as np

from keras_compress.channels.flow import Channels, Flow
from keras_compress.graph import Step

# Functions that compute each channel from itself alone.
_FUNCTIONS = (
    "linear relu relu6 sigmoid tanh silu hard_silu hard_sigmoid gelu elu selu celu "
    "leaky_relu softplus softsign exponential mish log_sigmoid hard_tanh soft_shrink "
    "hard_shrink tanh_shrink squareplus threshold sparse_plus"
)
_BY_CHANNEL = frozenset(_FUNCTIONS.split())


def mixes_channels(function) -> str:
    """Why channels cannot pass an activation function; "" if they can."""
    name = getattr(function, "__name__", type(function).__name__)
    of_keras = getattr(keras.activations, name, None) is function
    if of_keras and name in _BY_CHANNEL:
        return ""
    if of_keras and name in ("softmax", "log_softmax"):
        return f"{name} over channels"
    return f"activation function {name!r} is unknown"


def channel_axis(layer, rank: int) -> int:
    """The axis, from the end, that the layer takes for that of the channels."""
    first = getattr(layer, "data_format", None) == "channels_first"
    return 1 - rank if first else -1


def _why_not(layer) -> str:
    if getattr(layer, "quantization_mode", None):
        return f"{layer.name} is quantized"
    if getattr(layer, "lora_enabled", False):
        return f"{layer.name} has LoRA weights"
    return ""


def _read(flow: Flow, step: Step) -> tuple[np.ndarray, int] | None:
    """The slots that a layer reads and their axis; None if the layer is frozen."""
    layer, ref = step.operation, step.inputs[0]
    reason = _why_not(layer)
    if reason:
        flow.freeze_step(step, reason)
        return None
    axis = channel_axis(layer, len(flow.shape(ref)))
    slots = flow.on_axis(ref, axis, f"{layer.name} reads another axis as channels")
    return slots, axis


def _write(flow: Flow, step: Step, axis: int, slots: np.ndarray) -> None:
    reason = mixes_channels(
        getattr(step.operation, "activation", keras.activations.linear)
    )
    if reason:
        flow.freeze(slots, f"{reason} in {step.operation.name}")
    flow.tensors[step.outputs[0]] = Channels(axis, slots)


def convolution(flow: Flow, step: Step) -> None:
    """Reads channels on the kernel's last but one axis, makes those of its last."""
    layer = step.operation
    read = _read(flow, step)
    if read is None:
        return
    slots, axis = read
    groups = layer.groups
    if groups > 1 and groups == len(slots):
        _depthwise_by_groups(flow, step, slots, axis)
        return
    made = flow.source(layer, layer.filters)
    if groups > 1:
        # The same channels of every group, so that the groups stay equally large.
        flow.join_blocks(made, groups)
        slots = flow.join_blocks(slots, groups)
    flow.cut(layer, layer.kernel, -2, slots, "in")
    _made(flow, layer, layer.kernel, "filters", -1, made)
    _write(flow, step, axis, made)


def _made(flow: Flow, layer, kernel, setting: str, axis: int, slots) -> None:
    """The kernel's axis, the bias and the setting for the channels that it makes."""
    flow.cut(layer, kernel, axis, slots, "out")
    flow.cut(layer, layer.bias, 0, slots)
    flow.set(layer, setting, slots)


def _depthwise_by_groups(flow: Flow, step: Step, slots, axis: int) -> None:
    """A convolution with one group for each channel."""
    layer = step.operation
    made = np.repeat(slots, layer.filters // layer.groups)
    flow.cut(layer, layer.kernel, -1, made, "scale")
    flow.cut(layer, layer.bias, 0, made)
    flow.set(layer, "filters", made)
    flow.set(layer, "groups", slots)
    _write(flow, step, axis, made)


def transposed(flow: Flow, step: Step) -> None:
    """As `convolution`, with the two axes of the kernel the other way round."""
    layer = step.operation
    read = _read(flow, step)
    if read is None:
        return
    slots, axis = read
    made = flow.source(layer, layer.filters)
    flow.cut(layer, layer.kernel, -1, slots, "in")
    _made(flow, layer, layer.kernel, "filters", -2, made)
    _write(flow, step, axis, made)


def dense(flow: Flow, step: Step) -> None:
    """Reads and makes channels on the last axis."""
    layer = step.operation
    read = _read(flow, step)
    if read is None:
        return
    made = flow.source(layer, layer.units)
    flow.cut(layer, layer.kernel, 0, read[0], "in")
    _made(flow, layer, layer.kernel, "units", 1, made)
    _write(flow, step, -1, made)


def depthwise(flow: Flow, step: Step) -> None:
    """Each channel makes `depth_multiplier` of its own."""
    layer = step.operation
    read = _read(flow, step)
    if read is None:
        return
    slots, axis = read
    flow.cut(layer, layer.kernel, -2, slots, "scale")
    made = np.repeat(slots, layer.depth_multiplier)
    flow.cut(layer, layer.bias, 0, made)
    _write(flow, step, axis, made)


def separable(flow: Flow, step: Step) -> None:
    """A depthwise kernel, then one that makes new channels."""
    layer = step.operation
    read = _read(flow, step)
    if read is None:
        return
    slots, axis = read
    flow.cut(layer, layer.depthwise_kernel, -2, slots, "scale")
    between = np.repeat(slots, layer.depth_multiplier)
    flow.cut(layer, layer.pointwise_kernel, -2, between, "in")
    made = flow.source(layer, layer.filters)
    _made(flow, layer, layer.pointwise_kernel, "filters", -1, made)
    _write(flow, step, axis, made)


def embedding(flow: Flow, step: Step) -> None:
    """Makes channels from indices, which are none themselves."""
    layer = step.operation
    reason = _why_not(layer)
    if reason:
        flow.freeze_step(step, reason)
        return
    flow.freeze(flow.tensors[step.inputs[0]].slots, "indices")
    made = flow.source(layer, layer.output_dim)
    flow.cut(layer, layer.embeddings, 1, made, "out")
    flow.set(layer, "output_dim", made)
    flow.tensors[step.outputs[0]] = Channels(-1, made)


def _scaled_axes(flow: Flow, step: Step) -> tuple[Channels, list[int]]:
    """The input's channels, and the axes, from the end, that its weights index."""
    layer, ref = step.operation, step.inputs[0]
    rank = len(flow.shape(ref))
    axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    return flow.tensors[ref], [axis % rank - rank for axis in axes]


def normalization(flow: Flow, step: Step) -> None:
    """BatchNormalization, LayerNormalization and RMSNormalization."""
    channels, axes = _scaled_axes(flow, step)
    layer = step.operation
    if channels.axis in axes:
        place = axes.index(channels.axis)
        _scale(flow, layer, place, channels.slots)
    flow.tensors[step.outputs[0]] = channels


def _scale(flow: Flow, layer, place: int, slots: np.ndarray) -> None:
    scales = [getattr(layer, name, None) for name in ("gamma", "scale")]
    scales = [w for w in scales if isinstance(w, keras.Variable)]
    others = [
        getattr(layer, name, None)
        for name in ("beta", "moving_mean", "moving_variance")
    ]
    others = [w for w in others if w is not None]
    for variable in scales:
        flow.cut(layer, variable, place, slots, "scale")
    for variable in others:
        role = "" if scales or variable is not others[0] else "shift"
        flow.cut(layer, variable, place, slots, role)


def group_normalization(flow: Flow, step: Step) -> None:
    """The same channels of every group go; a group of one channel goes with it."""
    channels, axes = _scaled_axes(flow, step)
    layer, slots = step.operation, channels.slots
    if axes != [channels.axis]:
        flow.freeze_step(step, f"{layer.name} normalises another axis")
        return
    if layer.groups == len(slots):
        flow.set(layer, "groups", slots)
    else:
        flow.join_blocks(slots, layer.groups)
    _scale(flow, layer, 0, slots)
    flow.tensors[step.outputs[0]] = channels


def prelu(flow: Flow, step: Step) -> None:
    """The slopes of channels that go are cut, where slopes differ by channel."""
    layer = step.operation
    channels = flow.tensors[step.inputs[0]]
    axis = channels.axis + len(layer.alpha.shape)
    if layer.alpha.shape[axis] == len(channels.slots):
        flow.cut(layer, layer.alpha, axis, channels.slots)
    flow.tensors[step.outputs[0]] = channels


def layer_scale(flow: Flow, step: Step) -> None:
    """The one of keras.applications' ConvNeXt."""
    layer = step.operation
    slots = flow.on_axis(step.inputs[0], -1, f"{layer.name} scales another axis")
    flow.cut(layer, layer.gamma, 0, slots, "scale")
    flow.set(layer, "projection_dim", slots)
    flow.tensors[step.outputs[0]] = Channels(-1, slots)
