"""Trace a Keras model into a SavedModel, and see what the traced graph holds."""

import os
from dataclasses import dataclass

from tflite_export.conversion.half_precision import in_float32
from tflite_export.keras_call import call_flat, flat_inputs


@dataclass(frozen=True)
class TracedGraph:
    """The folder of a SavedModel, its inputs in order, its ops and outputs' types."""

    folder: str
    inputs: tuple[str, ...]
    ops: frozenset[str]
    output_dtypes: dict[str, str]

    @property
    def has_ranges(self) -> bool:
        """Whether the graph carries fake-quant ops, which give activations ranges."""
        return any(op.startswith("FakeQuantWithMinMax") for op in self.ops)


def trace(model, batch_size: int | None, folder: str) -> TracedGraph:
    """Write the model's inference graph for one batch size into an empty folder.

    A model in half precision is traced as a float32 clone. Inputs are named as
    `flat_inputs` names them; several outputs of a Functional or Sequential model as
    `model.output_names`, those of a dict by its keys.
    """
    import keras
    import tensorflow as tf

    source = in_float32(model)

    def serve(*arrays):
        outputs = call_flat(source, arrays)
        flat = keras.tree.flatten(outputs)
        if isinstance(outputs, dict) or len(flat) == 1:
            return outputs
        names = getattr(model, "output_names", None) or ()
        if len(set(names)) < len(flat):
            return outputs
        return dict(zip(names, flat, strict=True))

    archive = keras.export.ExportArchive()
    archive.track(source)
    archive.add_endpoint(
        "serve",
        serve,
        input_signature=[
            tf.TensorSpec((batch_size, *clone.shape[1:]), clone.dtype, tensor.name)
            for tensor, clone in zip(
                flat_inputs(model), flat_inputs(source), strict=True
            )
        ],
    )
    archive.write_out(folder, verbose=False)
    return _read(folder, tuple(tensor.name for tensor in flat_inputs(model)))


def _read(folder: str, inputs: tuple[str, ...]) -> TracedGraph:
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel()
    with open(os.path.join(folder, "saved_model.pb"), "rb") as file:
        proto.ParseFromString(file.read())
    graph = proto.meta_graphs[0]
    functions = {f.signature.name: f for f in graph.graph_def.library.function}
    signature = graph.signature_def["serving_default"]
    return TracedGraph(
        folder=folder,
        inputs=inputs,
        ops=frozenset(_ops_within(graph.graph_def.node, functions)),
        output_dtypes={
            name: tf.dtypes.as_dtype(info.dtype).name
            for name, info in signature.outputs.items()
        },
    )


def _ops_within(nodes, functions) -> set[str]:
    """The ops that the nodes reach, through the functions they call."""
    ops, seen, pending = set(), set(), list(nodes)
    while pending:
        node = pending.pop()
        if node.op not in functions:
            ops.add(node.op)
        called = [node.op] if node.op in functions else []
        for value in node.attr.values():
            names = [value.func.name, *(f.name for f in value.list.func)]
            called += [name for name in names if name in functions]
        for name in called:
            if name not in seen:
                seen.add(name)
                pending.extend(functions[name].node_def)
    return ops
