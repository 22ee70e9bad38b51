"""Rebuilds a Keras 2 graph in Keras 3, call by call."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from keras_compress.keras_2.functions import convert_function, is_function
from keras_compress.keras_2.layers import carry_weights, convert_layer, valid_name

# These took their initial state as further inputs in Keras 2.
_RECURRENT = (keras.layers.RNN, keras.layers.Bidirectional)


@dataclasses.dataclass(frozen=True)
class Step:
    """One of the Keras 3 calls that stand for a Keras 2 layer, and its weights."""

    call: Callable
    weights: Sequence | None = None


@dataclasses.dataclass
class Rebuild:
    """One move to Keras 3; a layer moves once, however often the graph calls it.

    Args:
        custom_objects: see `keras_compress.from_tfmot`.
        resolve: from (this, a layer) to the steps that stand for the layer if it is a
            wrapper, else None.
    """

    custom_objects: Mapping
    resolve: Callable
    steps: dict = dataclasses.field(default_factory=dict)

    def model(self, old) -> keras.Model:
        """The Keras 3 model that computes what the Keras 2 model `old` does."""
        if not getattr(old, "inputs", None) or not getattr(old, "outputs", None):
            raise ValueError(
                f"Model {old.name!r} has no graph to read. Expected a Functional or "
                f"Sequential model that is built. Received: {type(old).__name__}. "
                "Give a Sequential its input shape; write a subclassed model as a "
                "Functional one."
            )
        tensors = {id(tensor): _input(tensor) for tensor in old.inputs}
        for node in _ordered_nodes(old):
            results = keras.tree.flatten(self._call(node, tensors))
            names = map(id, tf.nest.flatten(node.outputs))
            tensors |= zip(names, results, strict=True)
        new = keras.Model(
            _swapped(old.input, tensors),
            _swapped(old.output, tensors),
            name=valid_name(old),
        )
        if "Sequential" in [base.__name__ for base in type(old).__mro__]:
            return keras.Sequential(new.layers, name=new.name)
        return new

    def layer(self, old, **changed) -> keras.layers.Layer:
        """The Keras 3 layer for the Keras 2 layer `old`, with `changed` settings."""
        return convert_layer(old, self.custom_objects, **changed)

    def _call(self, node, tensors):
        args, kwargs = _swapped(node.call_args, tensors), node.call_kwargs
        kwargs = {key: _swapped(value, tensors) for key, value in kwargs.items()}
        for step in self._steps(node.layer):
            if isinstance(step.call, _RECURRENT) and isinstance(args[0], list):
                kwargs["initial_state"] = args[0][1:]
                args = args[0][:1]
            results = step.call(*args, **kwargs)
            if step.weights is not None:
                carry_weights(node.layer, step.call, step.weights)
            args, kwargs = [results], {}
        return results

    def _steps(self, old) -> list[Step]:
        if id(old) not in self.steps:
            self.steps[id(old)] = self.resolve(self, old) or [self._step(old)]
        return self.steps[id(old)]

    def _step(self, old) -> Step:
        if _is_model(old):
            return Step(self.model(old))
        if is_function(old):
            return Step(convert_function(old, self.custom_objects))
        inner = getattr(old, "layer", None)
        if _is_model(inner) and type(old).__name__ == "TimeDistributed":
            name = valid_name(old)
            return Step(keras.layers.TimeDistributed(self.model(inner), name=name))
        return Step(self.layer(old), old.get_weights())


def _is_model(old) -> bool:
    return hasattr(old, "layers") and hasattr(old, "outputs")


def _input(tensor):
    if not isinstance(tensor.type_spec, tf.TensorSpec):
        raise ValueError(
            f"Input {tensor.name!r} must be a dense tensor, Keras 3 models take no "
            f"other here. Received: {tensor.type_spec}."
        )
    return keras.Input(
        batch_shape=tuple(tensor.shape),
        dtype=tensor.dtype.name,
        name=tensor.name.replace("/", "_"),
    )


def _ordered_nodes(old) -> list:
    """The calls of a Keras 2 model, each after those whose outputs it takes."""
    producers = {
        id(tensor): node
        for layer in old.layers
        for node in layer.inbound_nodes
        for tensor in tf.nest.flatten(node.outputs)
    }
    known = set(map(id, old.inputs))
    ordered, waiting = [], list(old.outputs)
    while waiting:
        if id(waiting[-1]) in known:
            waiting.pop()
            continue
        node = producers[id(waiting[-1])]
        missing = [tensor for tensor in node.keras_inputs if id(tensor) not in known]
        waiting += missing
        if not missing:
            ordered.append(node)
            known |= set(map(id, tf.nest.flatten(node.outputs)))
    return ordered


def _swapped(value, tensors: Mapping):
    """`value` in plain containers, its Keras 2 tensors exchanged for `tensors`."""
    if id(value) in tensors:
        return tensors[id(value)]
    if isinstance(value, Mapping):
        return {key: _swapped(item, tensors) for key, item in value.items()}
    if isinstance(value, tuple | list):
        plain = tuple if isinstance(value, tuple) else list
        return plain(_swapped(item, tensors) for item in value)
    return value.numpy() if isinstance(value, tf.Tensor) else value
