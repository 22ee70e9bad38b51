"""Which outputs of two models are compared, and what they end in."""

import keras

from keras_compress.graph.read import read_graph

# Operations that hand class scores on as they are.
_PASSES = frozenset({"Identity", "Reshape", "FakeQuantize", "Dropout"})


def output_index(model, structure, output: str | int) -> int:
    """The place of a chosen output among the flat outputs.

    Args:
        model: the model, for the names of the outputs of a list.
        structure: what it returned: a tensor, list or dict.
        output: its key, name or place.

    Raises:
        ValueError: there is none.
    """
    if isinstance(structure, dict):
        names = sorted(structure)
    else:
        count = len(keras.tree.flatten(structure))
        names = list(getattr(model, "output_names", None) or range(count))
        names = names if len(names) == count else list(range(count))
        if isinstance(output, int) and output < count:
            return output
    if output in names:
        return names.index(output)
    raise ValueError(
        f"Model {getattr(model, 'name', model)!r} has no output {output!r}. "
        f"Expected one of {names}."
    )


def known_structure(model):
    """What a model returns, as symbolic tensors; None where it does not say."""
    if isinstance(model, keras.Sequential):
        return model.outputs[0] if model.outputs else None
    try:
        return model.output
    except (AttributeError, ValueError):  # subclassed
        return None


def units(model) -> list | None:
    """Units of every output's last axis, or None where the model does not say."""
    try:
        outputs = model.outputs
    except AttributeError:  # a subclassed model has none
        return None
    return [output.shape[-1] for output in outputs] if outputs else None


def last_activations(model) -> list[str] | None:
    """For each flat output "softmax", "sigmoid", "logits" or "unknown".

    None where the model does not say, as one that is not a Keras model.
    """
    try:
        graph = read_graph(model)
    except ValueError:
        return _last_activation_of_layers(model)
    producers = graph.producers()
    found = []
    for ref in graph.flat_outputs:
        step = producers.get(ref)
        while step and _activation(step.operation) == "pass" and step.inputs:
            step = producers.get(step.inputs[0])
        kind = _activation(step.operation) if step else "unknown"
        found.append("unknown" if kind == "pass" else kind)
    return found


def _last_activation_of_layers(model):
    layers = getattr(model, "layers", None)
    if not layers or not isinstance(model, keras.Model):
        return None
    # What a subclassed model calls last is not known; only a softmax is a hint.
    return ["softmax"] if _activation(layers[-1]) == "softmax" else None


def _activation(operation) -> str:
    inner = getattr(operation, "layer", None)
    if isinstance(inner, keras.layers.Layer):
        return _activation(inner)
    kind = type(operation).__name__
    if kind in ("Softmax", "Sigmoid"):
        return kind.lower()
    if kind in _PASSES:
        return "pass"
    activation = getattr(operation, "activation", None)
    if activation is None:
        return "unknown"
    name = getattr(activation, "__name__", "")
    if name == "linear":
        return "pass" if kind == "Activation" else "logits"
    return name if name in ("softmax", "sigmoid") else "unknown"
