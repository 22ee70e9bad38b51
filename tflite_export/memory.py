"""How much memory the activations of a graph need at once."""

from tflite_export.flatbuffer import constant_bytes, listed, tensor_bytes


def peak_activation_bytes(model, graph) -> int:
    """The largest sum of computed tensors that live at the same op.

    A tensor lives from the op that makes it to the last op that reads it; a graph
    input lives from the first op, a graph output to the last, the state of a
    recurrent op always. An estimate: the arena of a runtime aligns tensors, may leave
    gaps between them, may write an output over its input, and holds scratch space of
    the kernels besides.
    """
    operators = graph.operators or []
    end = max(len(operators) - 1, 0)
    first = dict.fromkeys(listed(graph.inputs), 0)
    last = {}
    for time, operator in enumerate(operators):
        for index in listed(operator.outputs):
            first.setdefault(index, time)
        for index in listed(operator.inputs) + listed(operator.outputs):
            last[index] = time
    last.update(dict.fromkeys(listed(graph.outputs), end))
    for index, tensor in enumerate(graph.tensors or []):
        if tensor.isVariable:
            first[index], last[index] = 0, end
    # Memory taken and given back, op by op.
    change = [0] * (end + 2)
    for index, start in first.items():
        tensor = graph.tensors[index]
        if not constant_bytes(model, tensor):
            change[start] += tensor_bytes(tensor)
            change[last.get(index, start) + 1] -= tensor_bytes(tensor)
    peak = live = 0
    for step in change:
        live += step
        peak = max(peak, live)
    return peak
