"""Rows of the table for ops that move, join, split or drop axes."""

import keras
import numpy as np

from keras_compress.channels.flow import Channels, Flow
from keras_compress.graph import Ref, Step


def same(flow: Flow, step: Step) -> None:
    """Each channel from itself alone, on the axis where it was."""
    flow.tensors[step.outputs[0]] = flow.tensors[step.inputs[0]]


def elementwise(flow: Flow, step: Step) -> None:
    """All tensors of one shape, or with axes of size 1 that are broadcast."""
    name = step.operation.name
    widest = max((flow.tensors[ref] for ref in step.inputs), key=_width)
    if any(not _fits(flow, ref, widest) for ref in step.inputs):
        flow.freeze_step(step, f"{name} combines channels on different axes")
        return
    for ref in step.inputs:
        each = flow.tensors[ref]
        if _size(flow.shape(ref), widest.axis) == 1 < _width(widest):
            flow.freeze(each.slots, f"{name} broadcasts it over all channels")
        else:
            flow.join(widest.slots, each.slots)
    _constants(flow, step, widest)
    flow.tensors[step.outputs[0]] = widest


def _width(channels: Channels) -> int:
    return len(channels.slots)


def _size(shape: tuple, axis: int) -> int | None:
    return shape[axis] if len(shape) > -axis else 1


def _fits(flow: Flow, ref: Ref, widest: Channels) -> bool:
    """Whether a tensor has the widest one's channels, or one value for all of them."""
    size, each = _size(flow.shape(ref), widest.axis), flow.tensors[ref]
    if size == 1 < _width(widest):
        return True
    return each.axis == widest.axis and _width(each) == _width(widest)


def _constants(flow: Flow, step: Step, channels: Channels) -> None:
    """Arrays among the arguments lose the channels that the tensors lose."""
    slots, axis = channels.slots, channels.axis

    def wide(item) -> bool:
        shape = getattr(item, "shape", ())
        return not isinstance(item, Ref) and len(shape) >= -axis and shape[axis] > 1

    flat = keras.tree.flatten((step.args, step.kwargs))
    if not any(map(wide, flat)):
        return
    if any(isinstance(item, list) for item in (*step.args, *step.kwargs.values())):
        flow.freeze(slots, f"{step.operation.name} has a list as a constant")
        return

    def arguments(kept):
        return keras.tree.map_structure(
            lambda item: (
                np.compress(kept.mask(slots), np.asarray(item), axis)
                if wide(item)
                else item
            ),
            (step.args, step.kwargs),
        )

    flow.arguments[id(step)] = arguments


def concatenate(flow: Flow, step: Step) -> None:
    """The channels of all tensors in a row, if joined on their axis."""
    channels = [flow.tensors[ref] for ref in step.inputs]
    rank = len(flow.shape(step.outputs[0]))
    axis = step.operation.axis % rank - rank
    first = channels[0]
    complete = len(keras.tree.flatten(step.args)) == len(channels)
    apart = any(e.axis != first.axis or not len(e.slots) for e in channels)
    if apart or not complete:
        flow.freeze_step(
            step, f"{step.operation.name} joins channels on different axes"
        )
        return
    if axis != first.axis:
        elementwise(flow, step)
        return
    slots = np.concatenate([each.slots for each in channels])
    flow.tensors[step.outputs[0]] = Channels(axis, slots)


def by_position(flow: Flow, step: Step) -> None:
    """Pooling, padding, cropping and resizing along the axes that are not channels."""
    layer, ref = step.operation, step.inputs[0]
    first = getattr(layer, "data_format", None) == "channels_first"
    axis = 1 - len(flow.shape(ref)) if first else -1
    slots = flow.on_axis(ref, axis, f"{layer.name} reads another axis as channels")
    if first:
        axis = 1 - len(flow.shape(step.outputs[0]))
    flow.tensors[step.outputs[0]] = Channels(axis, slots)


def reduction(flow: Flow, step: Step) -> None:
    """Mean, Max, Sum, ... over axes other than the channels'."""
    operation = step.operation
    channels = flow.tensors[step.inputs[0]]
    rank = len(flow.shape(step.inputs[0]))
    axes = operation.axis
    if axes is None:
        axes = range(rank)
    axes = [a % rank - rank for a in np.atleast_1d(axes).tolist()]
    if channels.axis in axes or -rank in axes:
        flow.freeze_step(step, f"{operation.name} reduces over channels")
        return
    dropped = 0 if operation.keepdims else sum(a > channels.axis for a in axes)
    axis = channels.axis + dropped
    flow.tensors[step.outputs[0]] = Channels(axis, channels.slots)


def flatten(flow: Flow, step: Step) -> None:
    """(H, W, C) in rows: channel c is at p * C + c for every position p."""
    layer, ref = step.operation, step.inputs[0]
    shape, channels = flow.shape(ref), flow.tensors[ref]
    if None in shape[1:] or not len(channels.slots):
        flow.freeze_step(step, f"{layer.name} flattens an axis of open size")
        return
    whole = _everywhere(channels, shape)
    if layer.data_format == "channels_first" and len(shape) > 2:
        whole = np.moveaxis(whole, 0, -1)
    flow.tensors[step.outputs[0]] = Channels(-1, whole.reshape(-1))


def _everywhere(channels: Channels, shape: tuple) -> np.ndarray:
    """The slot of every value of one example."""
    narrow = np.ones(len(shape) - 1, int)
    narrow[channels.axis] = len(channels.slots)
    return np.broadcast_to(channels.slots.reshape(narrow), shape[1:])


def reshape(flow: Flow, step: Step) -> None:
    """Reshapes after which channels are on one axis again, all in one order.

    Values keep their order, so a smaller tensor reshapes to the smaller result if what
    is removed is a whole slice of both. One axis split in two leaves its channels on
    the last of them, those that meet there coupled.
    """
    operation, ref = step.operation, step.inputs[0]
    before, after = flow.shape(ref), flow.shape(step.outputs[0])
    channels = flow.tensors[ref]
    found = None
    if None in before[1:] or None in after[1:]:
        if channels.axis == -1 and before[-1] == after[-1]:
            found = channels
    elif len(after) > 1 and len(channels.slots):
        found = _reshaped(flow, channels, before, after)
    if found is None:
        flow.freeze_step(step, f"{operation.name} mixes channels with positions")
        return
    is_layer = isinstance(operation, keras.layers.Layer)
    key = "target_shape" if is_layer else "newshape"
    target = getattr(operation, key)
    target = (target,) if isinstance(target, int) else tuple(target)
    if target[found.axis] != -1:
        slots, place = found.slots, len(target) + found.axis
        flow.set(
            operation,
            key,
            slots,
            lambda kept: (*target[:place], kept(slots), *target[place + 1 :]),
        )
    flow.tensors[step.outputs[0]] = found


def _reshaped(flow: Flow, channels: Channels, before, after) -> Channels | None:
    whole = _everywhere(channels, before).reshape(after[1:])
    for axis in range(-1, -len(after), -1):
        lines = np.moveaxis(whole, axis, -1).reshape(-1, after[axis])
        if (lines == lines[0]).all() and len(lines[0]) > 1:
            return Channels(axis, lines[0])
    width = after[-1]
    if channels.axis != -1 or width < 2 or len(channels.slots) % width:
        return None
    line = flow.join_blocks(channels.slots, len(channels.slots) // width)
    return Channels(-1, line)


def transpose(flow: Flow, step: Step) -> None:
    """Permute, Transpose and other ops that only reorder axes."""
    operation = step.operation
    rank = len(flow.shape(step.inputs[0]))
    if step.kind == "Permute":
        order = (0, *operation.dims)
    elif step.kind == "Transpose":
        order = operation.axes or tuple(reversed(range(rank)))
    else:
        numbered = np.empty(tuple(range(rank)))
        order = np.moveaxis(numbered, operation.source, operation.destination).shape
    order = [axis % rank for axis in order]
    channels = flow.tensors[step.inputs[0]]
    if order[0] != 0:
        flow.freeze_step(step, f"{operation.name} moves the batch's axis")
        return
    axis = order.index(channels.axis + rank) - rank
    flow.tensors[step.outputs[0]] = Channels(axis, channels.slots)


def new_axis(flow: Flow, step: Step) -> None:
    """ExpandDims, Squeeze and RepeatVector: axes of size 1 come, go or grow."""
    before, after = flow.shape(step.inputs[0]), flow.shape(step.outputs[0])
    channels = flow.tensors[step.inputs[0]]
    if step.kind == "RepeatVector":
        axes, grows = [1], True
    else:
        grows = step.kind == "ExpandDims"
        longer = len(after) if grows else len(before)
        axes = step.operation.axis
        if axes is None:
            axes = [i for i, size in enumerate(before) if size == 1]
        axes = [a % longer for a in np.atleast_1d(axes).tolist()]
    rank, place = len(before), channels.axis + len(before)
    if 0 in axes or (not grows and place in axes):
        flow.freeze_step(step, f"{step.operation.name} changes the channels' axis")
        return
    if grows:
        for axis in sorted(axes):
            place += axis <= place
        rank += len(axes)
    else:
        place -= sum(axis < place for axis in axes)
        rank -= len(axes)
    flow.tensors[step.outputs[0]] = Channels(place - rank, channels.slots)


def other_axes(flow: Flow, step: Step) -> None:
    """Flip, Repeat, Take and others along an axis that is not the channels'."""
    channels = flow.tensors[step.inputs[0]]
    rank = len(flow.shape(step.inputs[0]))
    axes = step.operation.axis
    axes = range(rank) if axes is None else np.atleast_1d(axes).tolist()
    if len(step.inputs) > 1 or channels.axis + rank in [a % rank for a in axes]:
        flow.freeze_step(step, f"{step.operation.name} mixes channels")
        return
    flow.tensors[step.outputs[0]] = channels
