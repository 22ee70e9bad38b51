"""The kernels of a model: which can be pruned, and along which axes they sum.

Layers inside wrappers, composite layers and subclassed models are found too.
"""

import dataclasses
from collections.abc import Callable, Iterator

import keras
import numpy as np


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A layer that is not pruned, and why."""

    name: str
    kind: str
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class Kernel:
    """One kernel variable and the layer it belongs to.

    `input_axes` are those that its layer sums over as input channels, `output_axes`
    the output channels; all others are positions. Both are empty for kernels that do
    not mix channels.
    """

    layer: keras.layers.Layer
    variable: keras.Variable
    input_axes: tuple[int, ...] = ()
    output_axes: tuple[int, ...] = ()

    @property
    def path(self) -> str:
        """The variable's path in the model."""
        return self.variable.path

    @property
    def shape(self) -> tuple[int, ...]:
        """The variable's shape."""
        return tuple(self.variable.shape)

    def skipped(self, reason: str) -> Skipped:
        """Its row among those left alone."""
        return Skipped(self.path, _kind(self.layer), reason)


@dataclasses.dataclass(frozen=True)
class _Row:
    """Kernel variables of a layer kind: name -> (input axes, output axes)."""

    kernels: dict
    opt_in: bool = False


_MATRIX = ((-2,), (-1,))
_NO_MIX = ((), ())
_TRANSPOSED = _Row({"kernel": ((-1,), (-2,))})
_RECURRENT = _Row({"kernel": _MATRIX, "recurrent_kernel": _MATRIX}, opt_in=True)

# A subclass has the row of the nearest class above it. A layer of none of these kinds
# has the last row.
_ROWS = {
    "DepthwiseConv1D": _Row({"kernel": _NO_MIX}),
    "DepthwiseConv2D": _Row({"kernel": _NO_MIX}),
    "SeparableConv1D": _Row({"depthwise_kernel": _NO_MIX, "pointwise_kernel": _MATRIX}),
    "SeparableConv2D": _Row({"depthwise_kernel": _NO_MIX, "pointwise_kernel": _MATRIX}),
    "Conv1DTranspose": _TRANSPOSED,
    "Conv2DTranspose": _TRANSPOSED,
    "Conv3DTranspose": _TRANSPOSED,
    "EinsumDense": _Row({"kernel": "equation"}),
    "Embedding": _Row({"embeddings": _NO_MIX}, opt_in=True),
    "LSTMCell": _RECURRENT,
    "GRUCell": _RECURRENT,
    "SimpleRNNCell": _RECURRENT,
    "RNN": _RECURRENT,
    "Layer": _Row({"kernel": _MATRIX}),
}


def find_kernels(
    model: keras.Model, layers: Callable | None = None
) -> tuple[list[Kernel], list[Skipped]]:
    """The kernels to prune, and the layers with weights that are left alone.

    Args:
        model: A built model.
        layers: Called with a layer; whether to prune it. By default every layer with a
            kernel, except Embedding and recurrent layers. A recurrent layer is asked
            for, not its cell.

    Returns:
        `(kernels, skipped)`, each in the order of the model's layers.
    """
    trainable = {id(variable) for variable in model.trainable_variables}
    kernels, skipped, seen = [], [], set()
    for layer, owner in _walk(model, None, set()):
        own = [v for v in _own_variables(layer) if id(v) not in seen]
        seen.update(map(id, own))
        if not own:
            continue
        found = _kernels_of(layer, own)
        reason = _why_not(found, owner or layer, layers, trainable)
        if reason:
            skipped.append(Skipped(layer.path or layer.name, _kind(layer), reason))
        else:
            kernels += found
    return kernels, skipped


def is_built(model: keras.Model) -> bool:
    """Whether the model and all layers in it have their variables."""
    return model.built and all(layer.built for layer, _ in _walk(model, None, set()))


def sparsity(model: keras.Model, layers: Callable | None = None) -> float:
    """The share of zeros in the kernels of a model.

    Args:
        model: A built model.
        layers: Called with a layer; whether it counts. By default every layer with a
            kernel, except Embedding and recurrent layers.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: If the model has no such kernel.

    Example:

    >>> import keras
    >>> import keras_compress as kc
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> model.layers[0].kernel.assign([[1, 0], [0, 2], [0, 0], [0, 3]]) is None
    False
    >>> kc.sparsity(model)
    0.625
    """
    chosen = layers or (lambda layer: not _row(layer).opt_in)
    variables = {}
    for layer, owner in _walk(model, None, set()):
        if chosen(owner or layer):
            found = _kernels_of(layer, _own_variables(layer))
            variables |= {id(kernel.variable): kernel.variable for kernel in found}
    if not variables:
        raise ValueError(
            f"Model {model.name!r} has no kernel to count zeros in. Expected a built "
            "model with at least one Dense or convolution layer"
            + (" that `layers` chooses." if layers else ".")
        )
    return share_of_zeros(variables.values())


def share_of_zeros(variables) -> float:
    """The share of zeros in all variables together."""
    arrays = [keras.ops.convert_to_numpy(variable) for variable in variables]
    nonzero = sum(int(np.count_nonzero(array)) for array in arrays)
    return 1 - nonzero / sum(array.size for array in arrays)


def _kernels_of(layer, own: list) -> list[Kernel]:
    found = []
    for variable in own:
        axes = _row(layer).kernels.get(variable.name)
        rank = len(variable.shape)
        if axes is None or rank < 2:
            continue
        if axes == "equation":
            axes = _equation_axes(layer.equation)
        axes = (tuple(axis % rank for axis in side) for side in axes)
        found.append(Kernel(layer, variable, *axes))
    return found


def _why_not(found, layer, layers, trainable) -> str:
    """Why a layer is not pruned; empty if it is."""
    if not found:
        return "has no kernel"
    dtypes = {keras.backend.standardize_dtype(k.variable.dtype) for k in found}
    if not all("float" in dtype for dtype in dtypes):
        return f"kernel of {', '.join(sorted(dtypes))}"
    if layers is not None and not layers(layer):
        return "not chosen by `layers`"
    if layers is None and _row(found[0].layer).opt_in:
        return "only pruned where `layers` chooses it"
    if not all(id(kernel.variable) in trainable for kernel in found):
        if layers is not None:
            raise ValueError(
                f"`layers` chooses layer {layer.name!r}, whose kernel is not "
                f"trainable. Set `trainable = True` or leave the layer out. Received: "
                f"trainable={layer.trainable}"
            )
        return "frozen"
    return ""


def _walk(layer, owner, seen: set) -> Iterator[tuple]:
    """(layer, recurrent layer it is a cell of or None), outer ones first."""
    if id(layer) in seen:
        return
    seen.add(id(layer))
    yield layer, owner
    if owner is None and isinstance(layer, keras.layers.RNN):
        owner = layer
    for inner in _children(layer):
        yield from _walk(inner, owner, seen)


def _children(layer) -> list:
    """The layers that a layer holds, as `model.layers` does for a model."""
    found = list(layer.layers) if isinstance(layer, keras.Model) else []
    for value in vars(layer).values():
        found += _layers_in(value)
    return list({id(child): child for child in found}.values())


def _layers_in(value) -> list:
    if isinstance(value, keras.layers.Layer):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple | set):
        return [layer for item in value for layer in _layers_in(item)]
    return []


def _own_variables(layer) -> list:
    """Those that belong to no layer inside it."""
    inner = {id(v) for child in _children(layer) for v in child.variables}
    return [v for v in layer.variables if id(v) not in inner]


def _row(layer) -> _Row:
    kinds = (kind.__name__ for kind in type(layer).__mro__)
    return next(_ROWS[kind] for kind in kinds if kind in _ROWS)


def _kind(layer) -> str:
    return type(layer).__name__


def _equation_axes(equation: str) -> tuple:
    """Axes of an EinsumDense kernel that are summed over, and that are new."""
    inputs, rest = equation.replace(" ", "").split(",")
    kernel, outputs = rest.split("->")
    summed = [a for a, x in enumerate(kernel) if x in inputs and x not in outputs]
    new = [a for a, x in enumerate(kernel) if x in outputs and x not in inputs]
    return tuple(summed), tuple(new)
