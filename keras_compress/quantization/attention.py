"""MultiHeadAttention taken apart into the ops it is made of."""

import math

import keras

from keras_compress.graph import Ref, Step, read_graph

_PROJECTIONS = ("query_dense", "key_dense", "value_dense", "output_dense")


def attention(splitter, step: Step) -> bool:
    """Rewrite the step; False where there may be masks, or scores are asked for.

    Vaswani et al. 2017, 1706.03762: softmax(q k' / sqrt(size of a key)) v.
    """
    layer = step.operation
    options = {k: v for k, v in step.kwargs.items() if k not in ("value", "key")}
    options.pop("training", None)
    inputs = _query_value_key(step)
    tensors = [splitter.graph.tensors[ref] for ref in inputs]
    if any(options.values()) or any(len(tensor.shape) != 3 for tensor in tensors):
        return False
    if any(map(_makes_a_mask, splitter.graph.steps)):
        return False
    model = splitter.part(layer, "attention", lambda: _parts(layer, tensors))
    graph = read_graph(model)
    refs = dict(zip(graph.inputs, inputs, strict=True))
    [last] = graph.flat_outputs
    size = splitter.graph.tensors[step.outputs[0]].shape[1:]
    if None in size:
        refs[last] = step.outputs[0]
    weights = {
        _name(layer, part): tuple(getattr(layer, part).variables)
        for part in _PROJECTIONS
    }
    for part in graph.steps:
        for ref in part.outputs:
            if ref not in refs:
                refs[ref] = splitter.graph.new_ref(graph.tensors[ref])
        args, kwargs = keras.tree.map_structure(
            lambda item: refs[item] if isinstance(item, Ref) else item,
            (part.args, part.kwargs),
        )
        outputs = tuple(refs[ref] for ref in part.outputs)
        carried = weights.get(part.operation.name)
        splitter.steps.append(
            Step(part.operation, args, kwargs, outputs, step.prefix, carried)
        )
    if None not in size:
        # EinsumDense does not tell the length of what it makes; Flatten wants it.
        shape = keras.layers.Reshape(size, name=f"{layer.name}_shape")
        splitter.add(step, shape, (refs[last],), step.outputs)
    return True


def _makes_a_mask(step: Step) -> bool:
    """Whether Keras passes a mask along with the step's output, unseen in the graph."""
    return step.kind == "Masking" or bool(getattr(step.operation, "mask_zero", False))


def _query_value_key(step: Step) -> list[Ref]:
    given = dict(zip(("query", "value", "key"), step.args, strict=False))
    given |= {
        name: step.kwargs[name] for name in ("value", "key") if name in step.kwargs
    }
    key = given.get("key")
    return [given["query"], given["value"], given["value"] if key is None else key]


def _name(layer, part: str) -> str:
    return layer.name if part == "output_dense" else f"{layer.name}_{part[:-6]}"


def _parts(layer, tensors) -> keras.Model:
    """The layer as a model of its parts, on inputs of these shapes, not yet trained."""
    dtype = layer.dtype_policy

    def projection(part: str) -> keras.layers.Layer:
        config = {**getattr(layer, part).get_config(), "name": _name(layer, part)}
        return keras.layers.EinsumDense.from_config(config)

    inputs = [
        keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype) for tensor in tensors
    ]
    query, value, key = inputs
    scale = 1 / math.sqrt(layer.key_dim)
    query = projection("query_dense")(query)
    query = keras.layers.Rescaling(scale, dtype=dtype, name=f"{layer.name}_scale")(
        query
    )
    key, value = projection("key_dense")(key), projection("value_dense")(value)
    scores = keras.ops.einsum("btnh,bsnh->bnts", query, key)
    shares = keras.layers.Softmax(dtype=dtype, name=f"{layer.name}_softmax")(scores)
    if layer.dropout:
        name = f"{layer.name}_dropout"
        shares = keras.layers.Dropout(layer.dropout, dtype=dtype, name=name)(shares)
    output = keras.ops.einsum("bnts,bsnh->btnh", shares, value)
    return keras.Model(inputs, projection("output_dense")(output))
