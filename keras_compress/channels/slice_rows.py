"""Rows of the table for ops that add or pick some of the channels."""

import numpy as np

from keras_compress.channels.flow import Channels, Flow
from keras_compress.graph import Step


def pad(flow: Flow, step: Step) -> None:
    """On the axis of channels: what is added stays, since no layer makes it."""
    channels = flow.tensors[step.inputs[0]]
    widths = step.operation.pad_width
    widths = [(w, w) if isinstance(w, int) else tuple(w) for w in widths]
    before, after = widths[channels.axis] if len(widths) > 1 else widths[0]
    slots = channels.slots
    if before or after:
        if step.operation.mode != "constant":
            flow.freeze_step(step, f"{step.operation.name} mirrors channels")
            return
        padding = flow.new(before + after)
        flow.freeze(padding, f"{step.operation.name} pads channels")
        slots = np.concatenate([padding[:before], slots, padding[before:]])
    flow.tensors[step.outputs[0]] = Channels(channels.axis, slots)


def get_item(flow: Flow, step: Step) -> None:
    """x[..., start:stop]: those channels of x that it keeps, at their new places."""
    ref, key = step.args
    channels, shape = flow.tensors[ref], flow.shape(ref)
    keys = list(key) if isinstance(key, tuple) else [key]
    plain = all(isinstance(k, int | slice) or k is Ellipsis for k in keys)
    if not plain or len(flow.shape(step.outputs[0])) < 2:
        flow.freeze_step(step, f"{step.operation.name} picks by an index of its own")
        return
    if Ellipsis in keys:
        at = keys.index(Ellipsis)
        keys[at : at + 1] = [slice(None)] * (len(shape) - len(keys) + 1)
    keys += [slice(None)] * (len(shape) - len(keys))
    place = channels.axis + len(shape)
    chosen = keys[place]
    regular = isinstance(chosen, slice) and chosen.step in (None, 1)
    if not regular or keys[0] != slice(None):
        flow.freeze_step(step, f"{step.operation.name} picks single channels")
        return
    start, stop, _ = chosen.indices(len(channels.slots))
    before, slots = channels.slots[:start], channels.slots[start:stop]
    dropped = sum(isinstance(k, int) for k in keys[place + 1 :])
    flow.tensors[step.outputs[0]] = Channels(channels.axis + dropped, slots)
    if (start, stop) == (0, len(channels.slots)):
        return

    def arguments(kept):
        first = kept(before)
        new = slice(first, first + kept(slots))
        return (ref, (*keys[:place], new, *keys[place + 1 :])), step.kwargs

    flow.arguments[id(step)] = arguments


def split(flow: Flow, step: Step) -> None:
    """Each part has channels of its own, if split on their axis."""
    operation, channels = step.operation, flow.tensors[step.inputs[0]]
    rank = len(flow.shape(step.inputs[0]))
    if operation.axis % rank - rank != channels.axis:
        for ref in step.outputs:
            flow.tensors[ref] = channels
        return
    sizes = [flow.shape(ref)[channels.axis] for ref in step.outputs]
    parts = np.split(channels.slots, np.cumsum(sizes)[:-1])
    for ref, slots in zip(step.outputs, parts, strict=True):
        flow.tensors[ref] = Channels(channels.axis, slots)
    flow.set(
        operation,
        "indices_or_sections",
        channels.slots,
        lambda kept: np.cumsum([kept(part) for part in parts])[:-1].tolist(),
    )
