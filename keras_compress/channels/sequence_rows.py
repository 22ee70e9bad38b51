"""Rows of the table for layers over sequences: recurrent layers and attention."""

from keras_compress.channels.flow import Channels, Flow
from keras_compress.graph import Ref, Step


def recurrent(flow: Flow, step: Step) -> None:
    """Reads channels with the kernels of its first cells; its own units stay."""
    layer = step.operation
    if layer.get_config().get("stateful") or len(step.inputs) != 1:
        flow.freeze_step(step, f"{layer.name} has a state of its own")
        return
    reason = f"{layer.name} reads another axis as channels"
    slots = flow.on_axis(step.inputs[0], -1, reason)
    parts = [layer]
    if step.kind == "Bidirectional":
        parts = [layer.forward_layer, layer.backward_layer]
        for key in ("layer", "backward_layer"):
            if key in layer.get_config():
                flow.set(layer, key, slots, lambda kept, key=key: _unbuilt(layer, key))
    for part in parts:
        flow.cut(layer, part.cell.kernel, 0, slots, "in")
    for ref in step.outputs:
        flow.give_frozen(ref, f"units of {layer.name}")


def _unbuilt(layer, key: str) -> dict:
    """The wrapped layer's configuration, without the shape that it was built for."""
    config = layer.get_config()[key]
    return {k: v for k, v in config.items() if k != "build_config"}


def attention(flow: Flow, step: Step) -> None:
    """Reads query, value and key; makes as many channels as the query has.

    Heads and their depth stay as they are.
    """
    layer = step.operation
    names = ("query", "value", "key")
    given = dict(zip(names, step.args, strict=False)) | step.kwargs
    query, value = given.get("query"), given.get("value")
    key = given.get("key") or value
    tensors = (query, value, key)
    plain = all(isinstance(t, Ref) and flow.tensors[t].axis == -1 for t in tensors)
    one_axis = plain and len(flow.shape(query)) == 3 and len(step.outputs) == 1
    if not one_axis or layer.get_config()["output_shape"] is not None:
        flow.freeze_step(step, f"{layer.name} has a form that no row knows")
        return
    masks = {ref for ref in step.inputs if ref not in tensors}
    for ref in masks:
        flow.freeze(flow.tensors[ref].slots, f"mask of {layer.name}")
    made = flow.tensors[query].slots
    by_part = dict(zip(names, (flow.tensors[t].slots for t in tensors), strict=True))
    for variable in layer.weights:
        *_, part, name = variable.path.split("/")
        if part == "attention_output":
            axis, role = (2, "out") if name == "kernel" else (0, "")
            flow.cut(layer, variable, axis, made, role)
        elif name == "kernel":
            flow.cut(layer, variable, 0, by_part[part], "in")
    flow.tensors[step.outputs[0]] = Channels(-1, made)


def constants(flow: Flow, step: Step) -> None:
    """Layers with a fixed value for each channel."""
    flow.freeze_step(step, f"{step.operation.name} has a constant for each channel")
