"""How many values of an op's kernel are zero."""

import numpy as np

from tflite_export.flatbuffer import (
    constant_bytes,
    dtype_name,
    listed,
    op_name,
    shape_of,
)

_READABLE = ("int8", "int16", "float16", "float32")


def stored_tensors(model, graph) -> dict[int, object]:
    """By tensor index: the constant that a DEQUANTIZE op makes a tensor of."""
    return {
        operator.outputs[0]: graph.tensors[operator.inputs[0]]
        for operator in graph.operators or []
        if op_name(model, operator) == "DEQUANTIZE"
        and constant_bytes(model, graph.tensors[operator.inputs[0]])
    }


def kernel_values(model, graph, operator, stored: dict) -> tuple[int, int]:
    """(values, zeros) of the constants of two or more axes among an op's inputs.

    Types of less than a byte and constants in a sparse encoding are left out. `stored`
    comes from `stored_tensors`.
    """
    values = zeros = 0
    for index in listed(operator.inputs):
        tensor = stored.get(index, graph.tensors[index])
        plain = tensor.sparsity is None and dtype_name(tensor) in _READABLE
        if not constant_bytes(model, tensor) or len(shape_of(tensor)) < 2 or not plain:
            continue
        content = bytes(model.buffers[tensor.buffer].data)
        kernel = np.frombuffer(content, dtype_name(tensor))
        values += kernel.size
        zeros += kernel.size - np.count_nonzero(kernel)
    return values, int(zeros)
