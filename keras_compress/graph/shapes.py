"""The shapes of tensors where the graph's own leave dimensions open."""

import dataclasses

import keras

from keras_compress.graph.read import Graph, Ref


def infer_shapes(graph: Graph) -> Graph:
    """The graph, with the open dimensions of nested models' tensors filled in.

    A model built with `keras.Input((None, None, 3))` and called on images of one size
    has open dimensions in its own tensors; here they get the size. Dimensions that are
    open in the inputs of `graph` stay open.
    """
    if any(_is_open(graph, ref) for ref in graph.inputs):
        return graph
    return _filled_in(graph)


def with_open_size(graph: Graph, size: int) -> Graph:
    """The graph with all open dimensions of its inputs, but the batch's, of this size.

    Raises:
        ValueError: If the model cannot be called on inputs of that size.
    """
    if not any(_is_open(graph, ref) for ref in graph.inputs):
        return graph
    graph = dataclasses.replace(graph, tensors=dict(graph.tensors))
    for ref in graph.inputs:
        tensor = graph.tensors[ref]
        shape = (tensor.shape[0], *(size if n is None else n for n in tensor.shape[1:]))
        graph.tensors[ref] = keras.KerasTensor(shape, tensor.dtype, name=tensor.name)
    return _filled_in(graph)


def _filled_in(graph: Graph) -> Graph:
    for step in graph.steps:
        if not any(_is_open(graph, ref) for ref in step.outputs):
            continue
        args, kwargs = keras.tree.map_structure(
            lambda item: graph.tensors[item] if isinstance(item, Ref) else item,
            (step.args, step.kwargs),
        )
        made = step.operation.compute_output_spec(*args, **kwargs)
        made = keras.tree.flatten(made)
        graph.tensors.update(zip(step.outputs, made, strict=True))
    return graph


def _is_open(graph: Graph, ref: Ref) -> bool:
    return None in graph.tensors[ref].shape[1:]
