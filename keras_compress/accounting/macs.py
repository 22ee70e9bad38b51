"""Multiply-accumulates of one call of a layer or op, in one table keyed by op."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import keras

from keras_compress.graph import Graph, Step


@dataclass(frozen=True)
class Product:
    """Each value of `weights` is multiplied `positions` times per example."""

    weights: keras.Variable
    positions: int


@dataclass(frozen=True)
class Cost:
    """The products with weights of one call, and the `others` among activations."""

    products: tuple[Product, ...] = ()
    others: int = 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates per example."""
        sizes = (p.positions * math.prod(p.weights.shape) for p in self.products)
        return sum(sizes) + self.others


def cost_of(step: Step, graph: Graph) -> Cost:
    """What one call costs; nothing for an op without a matrix product.

    Raises:
        ValueError: If it depends on a dimension that the model leaves open.
    """
    rule, layer = _rule_and_layer(step)
    if rule is None:
        return Cost()
    inputs = [tuple(graph.tensors[ref].shape) for ref in step.inputs]
    outputs = [tuple(graph.tensors[ref].shape) for ref in step.outputs]
    try:
        return rule(layer, inputs, outputs)
    except TypeError as error:
        raise ValueError(
            "The MACs of a model are known only if its input shapes are. Expected "
            "`keras.Input` with every dimension but the batch's. Received: layer "
            f"{step.operation.name!r} ({step.kind}) with input shapes {inputs}"
        ) from error


def _rule_and_layer(step: Step) -> tuple[Callable | None, keras.Operation]:
    """The op's row; a wrapper without one has that of the layer in it."""
    layer = step.operation
    if step.kind not in _RULES:
        layer = getattr(layer, "layer", layer)
    return _RULES.get(type(layer).__name__), layer


def _spatial(layer, shape: tuple) -> int:
    """The number of positions of a tensor; TypeError if a dimension is open."""
    first = getattr(layer, "data_format", None) == "channels_first"
    return math.prod(shape[2:] if first else shape[1:-1])


def _per_output(*names: str) -> Callable[..., Cost]:
    def cost(layer, inputs, outputs) -> Cost:
        positions = _spatial(layer, outputs[0])
        return Cost(tuple(Product(getattr(layer, name), positions) for name in names))

    return cost


def _per_input(layer, inputs, outputs) -> Cost:
    return Cost((Product(layer.kernel, _spatial(layer, inputs[0])),))


def _labels(equation: str, operands: int) -> list[str]:
    """The terms of an einsum, their ellipses written out as "0", "1", ..."""
    left, right = equation.replace(" ", "").split("->")
    terms = [*left.split(","), right]
    if len(terms) != operands + 1:
        raise TypeError(equation)
    return terms


def _dimensions(term: str, shape: tuple) -> dict[str, int]:
    """Label -> size; the axes of an ellipsis are numbered from the end."""
    if "..." not in term:
        return dict(zip(term, shape, strict=True))
    before, after = term.split("...")
    rest = shape[len(before) : len(shape) - len(after)]
    named = dict(zip(before, shape, strict=False))
    named |= {str(i - len(rest)): size for i, size in enumerate(rest)}
    return named | dict(zip(after, shape[len(shape) - len(after) :], strict=True))


def _einsum_dense(layer, inputs, outputs) -> Cost:
    given, kernel, _ = _labels(layer.equation, 2)
    sizes = _dimensions(given, (1, *inputs[0][1:]))
    positions = math.prod(n for label, n in sizes.items() if label not in kernel)
    return Cost((Product(layer.kernel, positions),))


def _einsum(operation, inputs, outputs) -> Cost:
    terms = _labels(operation.subscripts, len(inputs))
    sizes = {}
    for term, shape in zip(terms, inputs, strict=False):
        sizes |= _dimensions(term, (shape[0] or 1, *shape[1:]))
    return Cost(others=math.prod(sizes.values()))


def _matmul(operation, inputs, outputs) -> Cost:
    return Cost(others=math.prod(outputs[0][1:]) * inputs[0][-1])


def _dot(layer, inputs, outputs) -> Cost:
    axes = layer.axes if isinstance(layer.axes, int) else layer.axes[0]
    return Cost(others=math.prod(outputs[0][1:]) * inputs[0][axes])


def _attention(layer, inputs, outputs) -> Cost:
    query, value = inputs[0], inputs[1]
    key = inputs[2] if len(inputs) > 2 else value
    return Cost(others=query[1] * value[1] * (key[-1] + value[-1]))


def _multi_head(layer, inputs, outputs) -> Cost:
    config = layer.get_config()
    heads, key_dim = config["num_heads"], config["key_dim"]
    query, value = math.prod(inputs[0][1:-1]), math.prod(inputs[1][1:-1])
    rows = {"query": query, "key": value, "value": value, "attention_output": query}
    products = []
    for variable in layer.weights:
        *_, part, name = variable.path.split("/")
        if name == "kernel":
            products.append(Product(variable, rows[part]))
    depth = key_dim + (config["value_dim"] or key_dim)
    return Cost(tuple(products), heads * query * value * depth)


def _recurrent(layer, inputs, outputs) -> Cost:
    cells = getattr(layer.cell, "cells", [layer.cell])
    names = ("kernel", "recurrent_kernel")
    found = [getattr(cell, name, None) for cell in cells for name in names]
    return Cost(tuple(Product(w, int(inputs[0][1])) for w in found if w is not None))


def _bidirectional(layer, inputs, outputs) -> Cost:
    both = (layer.forward_layer, layer.backward_layer)
    parts = [_recurrent(part, inputs, outputs) for part in both]
    return Cost(parts[0].products + parts[1].products)


def _time_distributed(layer, inputs, outputs) -> Cost:
    rule = _RULES.get(type(layer.layer).__name__)
    if rule is None:
        return Cost()
    inner = [[(s[0], *s[2:]) for s in shapes] for shapes in (inputs, outputs)]
    steps, cost = int(inputs[0][1]), rule(layer.layer, *inner)
    products = (Product(p.weights, p.positions * steps) for p in cost.products)
    return Cost(tuple(products), cost.others * steps)


def _table(rule, names: str) -> dict[str, Callable[..., Cost]]:
    return dict.fromkeys(names.split(), rule)


_RULES: dict[str, Callable[..., Cost]] = {
    **_table(
        _per_output("kernel"),
        "Conv1D Conv2D Conv3D DepthwiseConv1D DepthwiseConv2D",
    ),
    **_table(
        _per_output("depthwise_kernel", "pointwise_kernel"),
        "SeparableConv1D SeparableConv2D",
    ),
    **_table(_per_input, "Conv1DTranspose Conv2DTranspose Conv3DTranspose Dense"),
    "EinsumDense": _einsum_dense,
    "Einsum": _einsum,
    "Matmul": _matmul,
    "Dot": _dot,
    "Attention": _attention,
    "MultiHeadAttention": _multi_head,
    **_table(_recurrent, "LSTM GRU SimpleRNN RNN"),
    "Bidirectional": _bidirectional,
    "TimeDistributed": _time_distributed,
}
