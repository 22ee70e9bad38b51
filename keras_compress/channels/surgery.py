"""Build the model without the removed channels."""

import dataclasses

import keras
import numpy as np

from keras_compress.channels.flow import Surgery
from keras_compress.channels.groups import Coupling
from keras_compress.graph import Builder, Step, rebuild


class Kept:
    """Which channels survive, asked with slots."""

    def __init__(self, coupling: Coupling, channels: np.ndarray) -> None:
        self._roots = coupling.roots
        self._channels = channels

    def mask(self, slots: np.ndarray) -> np.ndarray:
        """bool array: which of these slots survive."""
        return self._channels[self._roots[slots]]

    def __call__(self, slots: np.ndarray) -> int:
        """How many of these slots survive."""
        return int(np.count_nonzero(self.mask(slots)))


def operate(model: keras.Model, coupling: Coupling, channels: np.ndarray):
    """A new model with only these channels.

    Args:
        model: The model that the coupling is of.
        coupling: Its groups.
        channels: bool array, for every channel of the model whether it is kept.
    """
    kept = Kept(coupling, channels)
    flow, graph = coupling.flow, coupling.graph
    smaller: dict[int, keras.Operation] = {}

    def make(builder: Builder, step: Step):
        if id(step) in flow.arguments:
            args, kwargs = flow.arguments[id(step)](kept)
            step = dataclasses.replace(step, args=args, kwargs=kwargs)
        surgery = flow.surgeries.get(id(step.operation))
        if surgery is None:
            outputs = builder.copy(step)
        else:
            operation = smaller.get(id(step.operation))
            if operation is None:
                operation = smaller[id(step.operation)] = _smaller(surgery, kept)
            weights = _weights(surgery, kept)
            outputs = builder.copy(
                dataclasses.replace(step, operation=operation, weights=weights)
            )
        _check(coupling, kept, step, outputs)
        return outputs

    return rebuild(model, graph, make, lambda builder, ref, tensor: tensor)


def _smaller(surgery: Surgery, kept: Kept) -> keras.Operation:
    """The operation with its new settings, not built; itself if none changes."""
    operation = surgery.operation
    settings = {
        key: setting.value(kept)
        for key, setting in surgery.settings.items()
        if not kept.mask(setting.slots).all()
    }
    if not settings:
        return operation
    return type(operation).from_config({**operation.get_config(), **settings})


def _weights(surgery: Surgery, kept: Kept) -> tuple:
    """The values of the operation's variables, without what is removed."""
    values = []
    for variable in getattr(surgery.operation, "variables", ()):
        value = None
        for cut in surgery.cuts.values():
            if cut.variable is variable and not (mask := kept.mask(cut.slots)).all():
                if value is None:
                    value = keras.ops.convert_to_numpy(variable)
                value = np.compress(mask, value, cut.axis)
        values.append(variable if value is None else value)
    return tuple(values)


def _check(coupling: Coupling, kept: Kept, step: Step, outputs) -> None:
    """Every tensor has as many channels as were planned."""
    for ref, tensor in zip(step.outputs, keras.tree.flatten(outputs), strict=True):
        planned = coupling.flow.tensors[ref]
        if len(planned.slots) and tensor.shape[planned.axis] != kept(planned.slots):
            raise ValueError(
                f"The row of {step.kind} is wrong: {step.operation.name!r} should have "
                f"{kept(planned.slots)} channels on axis {planned.axis}. Received: "
                f"{tensor.shape}. Keep its channels with `layers`, and report this."
            )
