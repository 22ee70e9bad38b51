"""Call a Keras model on a flat list of arrays, whatever structure it takes."""

from collections.abc import Iterator, Sequence


def flat_inputs(model) -> list:
    """The model's input `KerasTensor`s in the order in which `call_flat` takes them.

    Those of a subclassed model are float32, of the shapes it was built for, and named
    by the keys of the dict it takes, else "input" or "input_0", "input_1" ...
    """
    import keras

    return keras.tree.flatten(_input_structure(model))


def call_flat(model, arrays: Sequence):
    """The model's outputs in inference mode, in the structure the model gives."""
    import keras

    structure = _input_structure(model)
    packed = keras.tree.pack_sequence_as(structure, list(arrays))
    return model(packed, training=False)


def has_inputs(model) -> bool:
    """Whether the model's input shapes are known."""
    return bool(model.built and (_is_graph(model) or _built_shapes(model)))


def _is_graph(model) -> bool:
    return bool(getattr(model, "inputs", None))


def _input_structure(model):
    import keras

    # A Sequential that was never called has `inputs` but no `input`.
    if isinstance(model, keras.Sequential) and model.inputs:
        return model.inputs[0]
    if _is_graph(model):
        return model.input
    return _tensors(_built_shapes(model), "input")


def _built_shapes(model):
    return (model.get_build_config() or {}).get("input_shape")


def _tensors(shapes, name: str):
    """`KerasTensor`s of a subclassed model's inputs; any batch size."""
    import keras

    if isinstance(shapes, dict):
        return {key: _tensors(shape, key) for key, shape in shapes.items()}
    if any(isinstance(shape, (list, tuple)) for shape in shapes):
        return [_tensors(shape, f"{name}_{i}") for i, shape in enumerate(shapes)]
    return keras.KerasTensor((None, *shapes[1:]), dtype="float32", name=name)


def layers_within(layer) -> Iterator:
    """The layer and every layer it holds, at any depth, each once."""
    import keras

    seen, pending = set(), [layer]
    while pending:
        item = pending.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, keras.layers.Layer):
            yield item
            pending.extend(vars(item).values())
        elif isinstance(item, dict):
            pending.extend(item.values())
        elif isinstance(item, (list, tuple)):
            pending.extend(item)
