"""Compare each layer of a quantization-aware model with the ops of its file, alone.

    python qat_layers.py MODEL.keras MODEL.tflite EXAMPLES.npz

prints a row for each range. A deep network with random weights amplifies every
difference, so that its outputs say little about its layers. Here each layer computes
from what the file has computed up to there, and is compared with the file's next
tensor. EXAMPLES holds an array for each input of the model, "0", "1", ...
"""

import sys
from dataclasses import dataclass

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from tabulate import tabulate

import tflite_export
from keras_compress.graph import read_graph
from keras_compress.quantization.fake_quant import FakeQuantize
from tflite_export.keras_call import flat_inputs

_PLAIN = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES


@dataclass(frozen=True)
class RangeRow:
    """What is made at one range: shares of values that agree, in steps of its grid.

    `found` is whether the file has a tensor of the range's grid and shape; it has none
    where it computes in float or puts two layers into one op.
    """

    name: str
    found: bool
    equal: float = 1.0
    within_one_step: float = 1.0
    largest: float = 0.0


def compare_layers(model: keras.Model, path, arrays: list) -> list[RangeRow]:
    """One row for each range of the model, in order.

    Args:
        model: A quantization-aware model.
        path: File name of its int8 file.
        arrays: One array for each input of the model, of one example each.
    """
    tensors = _int8_tensors(model, path, arrays)
    graph = read_graph(model)
    values = dict(zip(graph.inputs, map(np.asarray, arrays), strict=True))
    rows = []
    for step in graph.steps:
        args, kwargs = keras.tree.map_structure(
            lambda item: values.get(item, item) if _hashable(item) else item,
            (step.args, step.kwargs),
        )
        outputs = keras.tree.flatten(step.operation(*args, **kwargs))
        rounds = isinstance(step.operation, FakeQuantize)
        if rounds and not step.kwargs.get("only_scale"):
            row, outputs[0] = _row(step.operation, np.asarray(outputs[0]), tensors)
            rows.append(row)
        values.update(zip(step.outputs, outputs, strict=True))
    return rows


def _hashable(item) -> bool:
    return type(item).__hash__ is not None


def _row(layer: FakeQuantize, made: np.ndarray, tensors) -> tuple[RangeRow, np.ndarray]:
    """The row of a range, and what the file has in place of `made`."""
    low, high = map(float, layer.range())
    step = (high - low) / 255
    best = None
    for scale, values in tensors:
        if values.size == made.size and abs(scale / step - 1) < 1e-3:
            values = values.reshape(made.shape)
            steps = np.abs(values - made) / step
            if best is None or steps.mean() < best[0].mean():
                best = steps, values
    if best is None:
        return RangeRow(layer.name, found=False), made
    steps, values = best
    row = RangeRow(
        layer.name,
        found=True,
        equal=float((steps < 0.5).mean()),
        within_one_step=float((steps < 1.5).mean()),
        largest=float(steps.max()),
    )
    return row, values


def _int8_tensors(model, path, arrays: list) -> list[tuple[float, np.ndarray]]:
    """(scale, real values) of each int8 tensor of the file for one example."""
    interpreter = Interpreter(
        model_path=str(path),
        experimental_op_resolver_type=_PLAIN,
        experimental_preserve_all_tensors=True,
    )
    runner = interpreter.get_signature_runner()
    names = [tensor.name for tensor in flat_inputs(model)]
    runner(**dict(zip(names, arrays, strict=True)))
    found = []
    for detail in interpreter.get_tensor_details():
        scale, zero_point = detail["quantization"]
        if detail["dtype"] is np.int8 and scale:
            codes = interpreter.get_tensor(detail["index"])
            found.append((scale, (codes.astype("float32") - zero_point) * scale))
    return found


def main(arguments: list[str]) -> None:
    model_path, file, stored = arguments
    model = keras.models.load_model(model_path)
    with np.load(stored, allow_pickle=False) as examples:
        arrays = [examples[str(i)][:1] for i in range(len(examples.files))]
    rows = compare_layers(model, file, arrays)
    print(tflite_export.inspect(file).op_counts)
    cells = [(r.name, r.found, r.equal, r.within_one_step, r.largest) for r in rows]
    print(tabulate(cells, ("range", "found", "equal", "within one", "largest")))


if __name__ == "__main__":
    main(sys.argv[1:])
