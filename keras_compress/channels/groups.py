"""`channel_groups`: the channels of a model that stand and fall together."""

from collections.abc import Callable
from dataclasses import dataclass, field

import keras
import numpy as np

from keras_compress.channels.flow import Flow
from keras_compress.channels.table import trace
from keras_compress.graph import Graph, read_graph
from keras_compress.graph.shapes import infer_shapes
from keras_compress.surgery_checks import check_not_quantized


@dataclass(frozen=True, eq=False)
class CoupledAxis:
    """An axis of a layer's weight along which a group's channels lie.

    Attributes:
        layer: The layer.
        variable: The weight.
        axis: Its axis, from 0.
        role: "out" if the weights along it make the channels, "in" if they read them,
            "scale" if they scale or filter each alone, "shift" if they are added.
        index: int array (channels, places): where on the axis each channel is; more
            than one place after a Flatten, for example.
    """

    layer: keras.layers.Layer
    variable: keras.Variable
    axis: int
    role: str
    index: np.ndarray = field(repr=False)

    def __str__(self) -> str:
        places = self.index.shape[1]
        times = f", {places} places each" if places > 1 else ""
        name = f"{self.layer.name}.{self.variable.name}"
        return f"{name} axis {self.axis} ({self.role}{times})"


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels that lie along the same axes; `str()` lists these.

    Attributes:
        name: Of the first layer that makes them.
        size: How many channels there are that can be removed one by one.
        axes: The axes of weights along which they lie.
        reason: Why none of them is removed; "" if they can be.
        channels: int array (size,), their numbers in the model.
    """

    name: str
    size: int
    axes: tuple[CoupledAxis, ...]
    reason: str
    channels: np.ndarray = field(repr=False)

    @property
    def frozen(self) -> bool:
        """Whether all of them are kept."""
        return bool(self.reason)

    def __str__(self) -> str:
        state = f", frozen: {self.reason}" if self.reason else ""
        lines = [f"{self.name}: {self.size} channels{state}", *map(str, self.axes)]
        return "\n  ".join(lines)


@dataclass(frozen=True, eq=False)
class Coupling:
    """A model's groups, and what surgery on them needs.

    Attributes:
        graph: The flat graph.
        flow: The slots of its tensors and weights.
        roots: int array, the channel of each slot.
        groups: All groups, frozen ones too.
        group_of: int array, the group of each channel; -1 for channels without weights.
    """

    graph: Graph
    flow: Flow
    roots: np.ndarray
    groups: tuple[ChannelGroup, ...]
    group_of: np.ndarray


def channel_groups(
    model: keras.Model, *, layers: Callable | None = None
) -> list[ChannelGroup]:
    """Which layers' channels are coupled, and which cannot be removed and why.

    A channel that is removed from one axis of a group is removed from all of them:
    from the layer that makes it, the BatchNormalization after it, the layers that read
    it. Layers whose outputs are added make the same channels.

    Args:
        model: A built Functional or Sequential model; it is only read.
        layers: Called with a layer that makes channels; whether they may be removed.
            By default all.

    Returns:
        The groups in the order of the model, frozen ones too.

    Raises:
        ValueError: If the model is subclassed, not built or quantization-aware.

    Example:

    >>> import keras
    >>> from keras_compress.channels.groups import channel_groups
    >>> layers = [keras.layers.Dense(8, name="a"), keras.layers.Dense(2, name="b")]
    >>> for group in channel_groups(keras.Sequential([keras.Input((3,)), *layers])):
    ...     print(group)
    a: 3 channels, frozen: model input
      a.kernel axis 0 (in)
    a: 8 channels
      a.kernel axis 1 (out)
      b.kernel axis 0 (in)
    b: 2 channels, frozen: model output
      b.kernel axis 1 (out)

    Source: the dependency graph of Fang et al. 2023, 2301.12900.
    """
    return list(couple(model, layers).groups)


def couple(model: keras.Model, layers: Callable | None = None) -> Coupling:
    """The groups of a model and what they were made of."""
    graph = infer_shapes(read_graph(model))
    check_not_quantized(
        model,
        graph,
        "Channels are removed before quantization-aware training: prune first",
    )
    flow = trace(graph, layers)
    roots = flow.roots()
    count = int(roots.max(initial=-1)) + 1
    cuts = [
        (surgery.operation, cut)
        for surgery in flow.surgeries.values()
        for cut in surgery.cuts.values()
    ]
    reasons, why = _reasons(flow, roots, count)
    group_of = _group_of(cuts, roots, why)
    axes = [[] for _ in range(int(group_of.max(initial=-1)) + 1)]
    for layer, cut in cuts:
        if cut.role:
            for group, index in _index_maps(roots[cut.slots], group_of):
                axis = CoupledAxis(layer, cut.variable, cut.axis, cut.role, index)
                axes[group].append(axis)
    order = np.argsort(group_of, kind="stable")
    bounds = np.searchsorted(group_of[order], np.arange(len(axes) + 1))
    groups = []
    for coupled, start, stop in zip(axes, bounds[:-1], bounds[1:], strict=True):
        channels = order[start:stop]
        reason = reasons[why[channels[0]]] if why[channels[0]] >= 0 else ""
        makers = [a.layer.name for a in coupled if a.role == "out"]
        name = (makers or [coupled[0].layer.name])[0]
        groups.append(
            ChannelGroup(name, len(channels), tuple(coupled), reason, channels)
        )
    return Coupling(graph, flow, roots, tuple(groups), group_of)


def _reasons(flow: Flow, roots: np.ndarray, count: int) -> tuple[list[str], np.ndarray]:
    """All reasons, and for each channel the number of its first one, -1 for none."""
    reasons = list(dict.fromkeys(reason for _, reason in flow.frozen))
    numbers = {reason: i for i, reason in enumerate(reasons)}
    why = np.full(count, -1)
    for slots, reason in flow.frozen:
        channels = roots[slots]
        why[channels[why[channels] < 0]] = numbers[reason]
    return reasons, why


def _group_of(cuts, roots: np.ndarray, why: np.ndarray) -> np.ndarray:
    """Channels with the same places on the same axes, and one fate, are a group.

    Each axis gets a random number; a channel's signature is the sum of the numbers of
    its axes, each as often as it is on it.
    """
    random = np.random.default_rng(0)
    draw = lambda n: random.integers(2**62, size=n, dtype=np.uint64)  # noqa: E731
    signatures = draw(len(why) + 1)[why]
    weighs = np.zeros(len(why), bool)
    for (_, cut), number in zip(cuts, draw(len(cuts)), strict=True):
        places = np.bincount(roots[cut.slots], minlength=len(why)).astype(np.uint64)
        signatures += number * places
        weighs |= places > 0
    _, first, group_of = np.unique(
        signatures[weighs], return_index=True, return_inverse=True
    )
    in_order = np.empty(len(first), int)
    in_order[np.argsort(first)] = np.arange(len(first))
    result = np.full(len(why), -1)
    result[weighs] = in_order[group_of.reshape(-1)]
    return result


def _index_maps(channels: np.ndarray, group_of: np.ndarray):
    """(group, index map) of the groups on an axis with these channels."""
    groups = group_of[channels]
    order = np.lexsort((channels, groups))
    groups, starts = np.unique(groups[order], return_index=True)
    for group, places in zip(groups, np.split(order, starts[1:]), strict=True):
        size = len(np.unique(channels[places]))
        yield int(group), places.reshape(size, -1)
