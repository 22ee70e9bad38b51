"""Build a new model from a graph, with cloned layers and carried weights."""

import warnings
from collections.abc import Callable, Iterable

import keras

from keras_compress.graph.read import Graph, Ref, Step


class Builder:
    """Makes the symbolic tensors of a new model; no object of the old one is used.

    A layer that the old model calls twice is one layer in the new one as well.
    """

    def __init__(self, graph: Graph, reserved: Iterable[str] = ()) -> None:
        self.graph = graph
        self.made: dict[Ref, keras.KerasTensor] = {}
        self._operations: dict[object, keras.Operation] = {}
        self._names = set(reserved)

    def arguments(self, step: Step) -> tuple[tuple, dict]:
        """The step's arguments with the new model's tensors in place."""
        return keras.tree.map_structure(
            lambda item: self.made[item] if isinstance(item, Ref) else item,
            (step.args, step.kwargs),
        )

    def unique_name(self, name: str, prefix: str = "") -> str:
        """`name`, or if it is taken `prefix_name`, or either with a number."""
        wanted = [name] + ([f"{prefix}_{name}"] if prefix else [])
        number = 1
        while wanted[0] in self._names:
            if len(wanted) == 1:
                number += 1
                wanted.append(f"{name}_{number}")
            wanted.pop(0)
        self._names.add(wanted[0])
        return wanted[0]

    def once(self, key, make: Callable[[], keras.Operation]) -> keras.Operation:
        """The operation made for `key`, which is made on first use."""
        if key not in self._operations:
            self._operations[key] = make()
        return self._operations[key]

    def clone(self, step: Step, name: str | None = None) -> keras.Operation:
        """The new model's copy of the step's operation, not yet called.

        It gets a reserved `name`, or one that is free and like its own.
        """
        operation = step.operation
        return self.once(
            id(operation),
            lambda: clone_operation(
                operation, name or self.unique_name(operation.name, step.prefix)
            ),
        )

    def copy(self, step: Step, name: str | None = None):
        """The step as it is, in the new model, with its weights."""
        args, kwargs = self.arguments(step)
        operation = self.clone(step, name)
        outputs = operation(*args, **kwargs)
        carry_weights(step, operation)
        return outputs


def rebuild(
    model: keras.Model,
    graph: Graph,
    make: Callable[[Builder, Step], object],
    make_input: Callable[[Builder, Ref, keras.KerasTensor], keras.KerasTensor],
    reserved: Iterable[str] = (),
) -> keras.Model:
    """A new Functional model in which `make` answers for every step.

    Args:
        model: The model that `graph` was read from; gives the name and compile state.
        graph: Its graph.
        make: Called with the builder and each step in order; returns what the new
            model has in place of the step's outputs.
        make_input: Called with the builder, each input's `Ref` and the new
            `keras.Input`; returns what the steps shall read.
        reserved: Names that `make` gives out itself.
    """
    builder = Builder(graph, reserved)
    inputs = {}
    for ref in graph.inputs:
        old = graph.tensors[ref]
        builder.unique_name(old.name)
        inputs[ref] = keras.Input(batch_shape=old.shape, dtype=old.dtype, name=old.name)
    for ref, tensor in inputs.items():
        builder.made[ref] = make_input(builder, ref, tensor)
    for step in graph.steps:
        outputs = keras.tree.flatten(make(builder, step))
        builder.made.update(zip(step.outputs, outputs, strict=True))
    by_old = dict(zip(map(id, model.inputs), graph.inputs, strict=True))
    structure = graph.input_structure
    if isinstance(structure, list) and len(structure) == 1:
        structure = structure[0]
    new = keras.Model(
        keras.tree.map_structure(lambda tensor: inputs[by_old[id(tensor)]], structure),
        keras.tree.map_structure(lambda ref: builder.made[ref], graph.outputs),
        name=model.name,
    )
    _carry_compile_state(model, new)
    return new


def clone_operation(operation: keras.Operation, name: str) -> keras.Operation:
    """A new operation of the same configuration under another name, without weights.

    Raises:
        ValueError: If it has no configuration to be rebuilt from.
    """
    if isinstance(operation, keras.layers.Lambda):
        return _clone_lambda(operation, name)
    try:
        config = operation.get_config()
        return type(operation).from_config({**config, "name": name})
    # A class of the user's own may raise anything here.
    except Exception as error:
        raise ValueError(
            f"Layer {operation.name!r} ({type(operation).__name__}) cannot be copied: "
            "give its class a `get_config()` that holds every argument of `__init__`. "
            f"Received: {type(error).__name__}: {error}"
        ) from error


def _clone_lambda(layer: keras.layers.Lambda, name: str) -> keras.layers.Lambda:
    """The same function in a new layer, which its configuration does not allow.

    Reads `_output_shape`, as of Keras 3.15; tests/graph/test_rebuild.py fails if it
    changes.
    """
    return keras.layers.Lambda(
        layer.function,
        layer._output_shape,
        layer.mask,
        layer.arguments,
        trainable=layer.trainable,
        dtype=layer.dtype_policy,
        name=name,
    )


def carry_weights(step: Step, new: keras.Operation) -> None:
    """Give a built copy of the step's operation the weights of the step."""
    weights = step.weights
    if weights is None:
        weights = getattr(step.operation, "variables", ())
    for source, target in zip(weights, getattr(new, "variables", ()), strict=True):
        target.assign(source)
    if isinstance(new, keras.layers.Normalization):
        # It computes with constants made of its weights.
        new.finalize_state()


def _carry_compile_state(old: keras.Model, new: keras.Model) -> None:
    config = old.get_compile_config() if old.compiled else None
    if not config:
        return
    used = [item for item in keras.tree.flatten([old.loss, old.optimizer]) if item]
    named = [item if hasattr(item, "__name__") else type(item) for item in used]
    try:
        with keras.saving.custom_object_scope({item.__name__: item for item in named}):
            new.compile_from_config(config)
    # Anything of the user's own may be in it.
    except Exception as error:
        warnings.warn(
            f"The new model {new.name!r} is not compiled, since the compile state of "
            "the given one cannot be copied; compile it yourself. Received: "
            f"{type(error).__name__}: {error}",
            stacklevel=4,
        )
