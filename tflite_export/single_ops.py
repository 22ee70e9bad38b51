"""Take a `.tflite` file apart into one file for each op."""

from collections.abc import Iterator
from copy import copy

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from tflite_export.flatbuffer import constant_bytes, listed, op_name

# Ops that run another graph of the file.
_CALLS = frozenset({"IF", "WHILE", "CALL", "CALL_ONCE"})


def single_op_files(model) -> Iterator[bytes | None]:
    """A file for each op of the main graph, with the op's constants in it.

    Its inputs are the tensors that the op reads and other ops compute. None for an op
    that runs another graph, such as a loop.
    """
    for operator in model.subgraphs[0].operators or []:
        if op_name(model, operator) in _CALLS:
            yield None
        else:
            yield _single(model, operator)


def _single(model, operator) -> bytes:
    tensors, buffers, places = [], [schema.BufferT()], {-1: -1}
    source = model.subgraphs[0].tensors
    groups = (operator.inputs, operator.outputs, operator.intermediates)
    for index in dict.fromkeys(i for group in groups for i in listed(group)):
        tensor = copy(source[index])
        places[index] = len(tensors)
        tensors.append(tensor)
        has_constant = constant_bytes(model, tensor) > 0
        if has_constant:
            buffers.append(model.buffers[tensor.buffer])
        tensor.buffer = len(buffers) - 1 if has_constant else 0
    alone = copy(operator)
    alone.inputs, alone.outputs, alone.intermediates = (
        None if group is None else [places[int(index)] for index in group]
        for group in groups
    )
    graph = schema.SubGraphT()
    graph.tensors, graph.operators = tensors, [alone]
    graph.inputs = [
        place
        for place in dict.fromkeys(listed(alone.inputs))
        if tensors[place].buffer == 0 and not tensors[place].isVariable
    ]
    graph.outputs = listed(alone.outputs)
    single = schema.ModelT()
    single.version, single.operatorCodes = model.version, model.operatorCodes
    single.subgraphs, single.buffers = [graph], buffers
    return bytes(flatbuffer_utils.convert_object_to_bytearray(single))
