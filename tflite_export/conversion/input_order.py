"""Give a file's inputs the order of the model's, which the converter may change."""

from ai_edge_litert import schema_py_generated as schema


def in_model_order(content: bytes, names: tuple[str, ...]) -> bytes:
    """The file with its graph inputs in the order of `names`, nothing else changed.

    Args:
        content: A new `.tflite` file with a signature, whose order of inputs is free.
        names: The names of all its inputs.
    """
    changed = bytearray(content)
    model = schema.Model.GetRootAs(changed, 0)
    signature = model.SignatureDefs(0)
    entries = map(signature.Inputs, range(signature.InputsLength()))
    tensors = {entry.Name().decode(): entry.TensorIndex() for entry in entries}
    # The array is a view of the bytes, so this writes into them.
    inputs = model.Subgraphs(signature.SubgraphIndex()).InputsAsNumpy()
    inputs[:] = [tensors[name] for name in names]
    return bytes(changed)
