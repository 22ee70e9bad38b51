"""`profile`: parameters, non-zeros, multiply-accumulates and bytes, layer by layer."""

import math
from dataclasses import dataclass

import keras
import numpy as np

from keras_compress.accounting.macs import cost_of
from keras_compress.graph import Graph, read_graph
from keras_compress.graph.shapes import infer_shapes, with_open_size
from keras_compress.tables import tabulate


@dataclass(frozen=True)
class LayerProfile:
    """What one layer costs, all of its calls together.

    Attributes:
        name: The layer's name.
        kind: Its class.
        params: Numbers in its weights.
        nonzero: Those that are not zero.
        bytes: Their size in memory, zeros included.
        macs: Multiply-accumulates per example; None if a dimension is open.
    """

    name: str
    kind: str
    params: int
    nonzero: int
    bytes: int
    macs: int | None


@dataclass(frozen=True)
class ModelProfile:
    """One row per layer that costs something; `str()` of it is a table."""

    layers: tuple[LayerProfile, ...]

    @property
    def params(self) -> int:
        """Numbers in all weights."""
        return sum(layer.params for layer in self.layers)

    @property
    def nonzero(self) -> int:
        """Numbers that are not zero."""
        return sum(layer.nonzero for layer in self.layers)

    @property
    def bytes(self) -> int:
        """Size of all weights in memory."""
        return sum(layer.bytes for layer in self.layers)

    @property
    def macs(self) -> int | None:
        """Multiply-accumulates per example; None if a dimension is open."""
        counts = [layer.macs for layer in self.layers]
        return None if None in counts else sum(counts)

    def __str__(self) -> str:
        rows = [_row(layer.name, layer.kind, layer) for layer in self.layers]
        rows.append(_row("total", "", self))
        headers = ("layer", "kind", "parameters", "non-zero", "bytes", "MACs")
        align = ("left", "left", *("right",) * 4)
        return tabulate(rows, headers, disable_numparse=True, colalign=align)


def _row(name: str, kind: str, costs) -> tuple:
    counts = (costs.params, costs.nonzero, costs.bytes, costs.macs)
    return (name, kind, *("open" if n is None else f"{n:,}" for n in counts))


def profile(model: keras.Model, *, open_size: int | None = None) -> ModelProfile:
    """Count a model's parameters, non-zeros, multiply-accumulates and bytes.

    Args:
        model: A built Functional or Sequential model; it is only read.
        open_size: The size that dimensions left open by the inputs, other than the
            batch's, shall have for the MACs. By default the MACs of such a model are
            None.

    Returns:
        A `ModelProfile`. Its MACs are those of matrix products: convolutions, Dense,
        recurrent layers, attention. `tflite_export.inspect` counts the same in a file.

    Raises:
        ValueError: If the model is subclassed or not built.

    Example:

    >>> import keras
    >>> from keras_compress.accounting.profile import profile
    >>> layers = [keras.layers.Dense(8, name="a"), keras.layers.Dense(2, name="b")]
    >>> print(profile(keras.Sequential([keras.Input((3,)), *layers])).macs)
    40
    """
    graph = infer_shapes(read_graph(model))
    sized = graph if open_size is None else with_open_size(graph, open_size)
    steps: dict[int, list] = {}
    for step in sized.steps:
        steps.setdefault(id(step.operation), []).append(step)
    found = [_layer(calls, sized) for calls in steps.values()]
    return ModelProfile(tuple(row for row in found if row.params or row.macs))


def _layer(calls: list, graph: Graph) -> LayerProfile:
    operation = calls[0].operation
    weights = [keras.ops.convert_to_numpy(w) for w in getattr(operation, "weights", ())]
    try:
        macs = sum(cost_of(step, graph).macs for step in calls)
    except ValueError:
        macs = None
    return LayerProfile(
        operation.name,
        calls[0].kind,
        sum(math.prod(w.shape) for w in weights),
        sum(int(np.count_nonzero(w)) for w in weights),
        sum(w.nbytes for w in weights),
        macs,
    )
