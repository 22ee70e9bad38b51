"""Which channels of which tensors and weights are one and the same channel.

Every tensor has one axis of channels, and every channel on it a number, its slot. An
op's row in the table says how the slots of its outputs follow from those of its inputs,
and which axes of its weights they index. Slots that must be kept or removed together
are joined; what is left of all slots are the channels of the model.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import keras
import numpy as np

from keras_compress.graph import Graph, Ref, Step


@dataclass(frozen=True, eq=False)
class Channels:
    """The channels of a tensor.

    Attributes:
        axis: Where they are, from the end: -1 with channels_last.
        slots: int array, one slot for each channel; empty if their number is unknown.
    """

    axis: int
    slots: np.ndarray


@dataclass(frozen=True, eq=False)
class Cut:
    """An axis of a weight from which channels are removed.

    `role` says what the weights along it do to a channel: "out" make it, "in" read it,
    "scale" scale it, "shift" or "" (the bias, statistics, ...) go with it.
    """

    variable: keras.Variable
    axis: int
    slots: np.ndarray
    role: str


@dataclass(frozen=True, eq=False)
class Setting:
    """A setting of an operation that depends on how many of these slots are kept.

    `value` is called with a function from slots to the number of those that are kept.
    """

    slots: np.ndarray
    value: Callable


@dataclass
class Surgery:
    """What becomes of one operation, however often it is called.

    `outputs` are the slots that a layer makes.
    """

    operation: keras.Operation
    cuts: dict[tuple[int, int], Cut] = field(default_factory=dict)
    settings: dict[str, Setting] = field(default_factory=dict)
    outputs: np.ndarray | None = None


class Flow:
    """Slots of all tensors of a graph, as rows of the table fill them in."""

    def __init__(self, graph: Graph, included: Callable | None = None) -> None:
        self.graph = graph
        self.included = included
        self.surgeries: dict[int, Surgery] = {}
        self.arguments: dict[int, Callable] = {}
        self.tensors: dict[Ref, Channels] = {}
        self.frozen: list[tuple[np.ndarray, str]] = []
        self._parents: list[int] = []

    def shape(self, ref: Ref) -> tuple:
        """The tensor's shape, the batch's dimension included."""
        return tuple(self.graph.tensors[ref].shape)

    def new(self, count: int | None) -> np.ndarray:
        """New slots."""
        start = len(self._parents)
        self._parents.extend(range(start, start + (count or 0)))
        return np.arange(start, len(self._parents))

    def freeze(self, slots: np.ndarray, reason: str) -> None:
        """Say why these are not removed; the first reason is the one that is told."""
        if len(slots):
            self.frozen.append((slots, reason))

    def freeze_step(self, step: Step, reason: str) -> None:
        """Freeze what the step reads, and give its outputs frozen channels."""
        for ref in step.inputs:
            self.freeze(self.tensors[ref].slots, reason)
        for ref in step.outputs:
            self.give_frozen(ref, reason)

    def give_frozen(self, ref: Ref, reason: str) -> None:
        """Frozen channels on the tensor's last axis."""
        shape = self.shape(ref)
        slots = self.new(shape[-1] if len(shape) > 1 else None)
        self.freeze(slots, reason)
        self.tensors[ref] = Channels(-1, slots)

    def on_axis(self, ref: Ref, axis: int, reason: str) -> np.ndarray:
        """The slots on an axis; frozen ones if the tensor's channels are elsewhere."""
        channels = self.tensors[ref]
        if channels.axis == axis:
            return channels.slots
        self.freeze(channels.slots, reason)
        slots = self.new(self.shape(ref)[axis])
        self.freeze(slots, reason)
        return slots

    def join(self, first: np.ndarray, second: np.ndarray) -> None:
        """Couple two lists of slots, position by position."""
        if first is second:
            return
        for a, b in zip(first.tolist(), second.tolist(), strict=True):
            a, b = self._root(a), self._root(b)
            if a != b:
                self._parents[max(a, b)] = min(a, b)

    def join_blocks(self, slots: np.ndarray, blocks: int) -> np.ndarray:
        """Couple the i-th channels of all blocks; returns those of the first block."""
        parts = slots.reshape(blocks, -1)
        for part in parts[1:]:
            self.join(parts[0], part)
        return parts[0]

    def surgery(self, operation: keras.Operation) -> Surgery:
        """What is done to the operation, to be filled in."""
        return self.surgeries.setdefault(id(operation), Surgery(operation))

    def source(self, operation, count: int) -> np.ndarray:
        """The channels that a layer makes, the same at each of its calls."""
        surgery = self.surgery(operation)
        if surgery.outputs is None:
            surgery.outputs = self.new(count)
            if self.included is not None and not self.included(operation):
                self.freeze(surgery.outputs, "left out by `layers`")
        return surgery.outputs

    def cut(self, operation, variable, axis: int, slots: np.ndarray, role="") -> None:
        """An axis of the layer's weight has these slots; None is no weight."""
        if variable is None:
            return
        axis %= len(variable.shape)
        cuts = self.surgery(operation).cuts
        known = cuts.setdefault((id(variable), axis), Cut(variable, axis, slots, role))
        self.join(known.slots, slots)

    def set(self, operation, key: str, slots: np.ndarray, value=None) -> None:
        """A setting is the number of these slots, or a `value` that depends on it."""
        setting = Setting(slots, value or (lambda kept: kept(slots)))
        known = self.surgery(operation).settings.setdefault(key, setting)
        self.join(known.slots, slots)

    def roots(self) -> np.ndarray:
        """The number of the channel that each slot belongs to, from 0."""
        found = np.array([self._root(slot) for slot in range(len(self._parents))], int)
        return np.unique(found, return_inverse=True)[1].reshape(-1)

    def _root(self, slot: int) -> int:
        parents = self._parents
        while parents[slot] != slot:
            parents[slot] = parents[parents[slot]]
            slot = parents[slot]
        return slot
