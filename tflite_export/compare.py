"""How far a `.tflite` file is from the Keras model it came from."""

from collections.abc import Sequence

import numpy as np

from tflite_export.agreement import Agreement, Agreements, Grid, agreement_of
from tflite_export.flatbuffer import (
    dtype_name,
    listed,
    named_ends,
    op_name,
    read_model,
)
from tflite_export.keras_call import call_flat, flat_inputs
from tflite_export.predict import predict

_BATCH = 32


def compare(model, path, x, *, kernels: str = "xnnpack") -> Agreement | Agreements:
    """Compare a `.tflite` file with its Keras model on the same examples.

    Args:
        model: The `keras.Model`, with outputs in any structure. It is run in inference
            mode and not changed.
        path: File name of the `.tflite` file.
        x: Examples as the model takes them: an array of shape (examples, ...), or a
            dict by input name or a list in the model's order for several inputs.
        kernels: What runs the file: "xnnpack", "builtin" or "reference"; see `predict`.

    Returns:
        An `Agreement`, `str()` of which is one line; for a file with several outputs
        `Agreements`, with one by output name, `str()` of which is a table.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the file cannot be run, `x` does not fit it, or the file's
            outputs are not those of the model.

    Example:

    ```python
    agreement = tflite_export.compare(model, "m.tflite", x_test)
    assert agreement.argmax > 0.99
    ```
    """
    found = predict(path, x, kernels=kernels)
    grids = output_grids(path)
    if not isinstance(found, dict):
        found = {next(iter(grids)): found}
    examples = len(next(iter(found.values())))
    expected = _keras_outputs(model, x, examples, list(found))
    agreements = {
        name: agreement_of(expected[name], values, grids.get(name))
        for name, values in found.items()
        if _same_shape(name, expected[name], values)
    }
    if len(agreements) == 1:
        return next(iter(agreements.values()))
    return Agreements(agreements)


def output_grids(path) -> dict[str, Grid | None]:
    """What each output is rounded to before it is de-quantised, None for float."""
    model = read_model(path)
    graph, grids = model.subgraphs[0], {}
    for name, index in named_ends(model, "outputs").items():
        tensor = graph.tensors[index]
        for operator in graph.operators or []:
            if index in listed(operator.outputs):
                if op_name(model, operator) == "DEQUANTIZE":
                    tensor = graph.tensors[listed(operator.inputs)[0]]
                break
        grids[name] = _grid(tensor)
    return grids


def output_step(path) -> float | None:
    """The scale of the file's first output before it is de-quantised, or None."""
    grid = next(iter(output_grids(path).values()))
    return None if grid is None else grid.scale


def _grid(tensor) -> Grid | None:
    found = tensor.quantization
    if found is None or found.scale is None or not len(found.scale):
        return None
    zero_point = 0 if found.zeroPoint is None else int(found.zeroPoint[0])
    return Grid(float(found.scale[0]), zero_point, dtype_name(tensor))


def _same_shape(name: str, expected: np.ndarray, found: np.ndarray) -> bool:
    if expected.shape != found.shape:
        raise ValueError(
            "`path` must be an export of `model`. Received: output "
            f"{name!r} of shape {found.shape} from the file and {expected.shape} "
            "from the model."
        )
    return True


def _keras_outputs(
    model, x, examples: int, names: Sequence[str]
) -> dict[str, np.ndarray]:
    from keras import ops

    flat = [x]
    if isinstance(x, dict):
        flat = [x[tensor.name] for tensor in flat_inputs(model)]
    elif isinstance(x, (list, tuple)) and len(x) == len(flat_inputs(model)):
        flat = list(x)
    flat = [np.asarray(array) for array in flat]
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for start in range(0, examples, _BATCH):
        rows = [array[start : start + _BATCH] for array in flat]
        outputs = _by_name(model, call_flat(model, rows), names)
        for name, values in outputs.items():
            values = ops.convert_to_numpy(ops.cast(values, "float32"))
            parts[name].append(values.astype(np.float64))
    return {name: np.concatenate(values) for name, values in parts.items()}


def _by_name(model, outputs, names: Sequence[str]) -> dict:
    """The model's outputs under the names that `export` gives them in the file."""
    from keras import tree

    flat = tree.flatten(outputs)
    if len(flat) == len(names) == 1:
        return {names[0]: flat[0]}
    known = [outputs] if isinstance(outputs, dict) else []
    for given in (
        getattr(model, "output_names", None) or [],
        [f"output_{index}" for index in range(len(flat))],
    ):
        if len(given) == len(flat):
            known.append(dict(zip(given, flat, strict=True)))
    for candidate in known:
        if len(flat) == len(names) and set(candidate) == set(names):
            return candidate
    raise ValueError(
        "`path` must be an export of `model`, with the model's outputs. Received: "
        f"outputs {sorted(names)} from the file and "
        f"{[sorted(map(str, candidate)) for candidate in known]} from the model."
    )
