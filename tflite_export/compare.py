"""How far a `.tflite` file is from the Keras model it came from."""

from dataclasses import dataclass

import numpy as np

from tflite_export.flatbuffer import listed, op_name, read_model
from tflite_export.keras_call import call_flat, flat_inputs
from tflite_export.predict import predict

_BATCH = 32


@dataclass(frozen=True)
class Agreement:
    """Outputs of a `.tflite` file against those of the Keras model.

    `argmax` is the share of positions whose largest entry over the last axis is the
    same. `output_step` is the scale of the quantised output, None for a float file;
    so are then the shares of values that lie `within_half_step` and `within_one_step`.
    """

    argmax: float
    max_abs_diff: float
    mean_abs_diff: float
    output_step: float | None
    within_half_step: float | None
    within_one_step: float | None
    examples: int

    def __str__(self) -> str:
        result = (
            f"argmax equal {self.argmax:.2%}, max |diff| {self.max_abs_diff:.3g}, "
            f"mean |diff| {self.mean_abs_diff:.3g} over {self.examples} examples"
        )
        if self.output_step is None:
            return f"{result}; float output"
        return (
            f"{result}; output step {self.output_step:.3g}, "
            f"{self.within_half_step:.2%} within half a step, "
            f"{self.within_one_step:.2%} within one step"
        )


def compare(model, path, x) -> Agreement:
    """Compare a `.tflite` file with its Keras model on the same examples.

    Args:
        model: The `keras.Model`, with one output. It is run in inference mode and
            not changed.
        path: File name of the `.tflite` file.
        x: Examples as the model takes them: an array of shape (examples, ...), or a
            dict by input name or a list in the model's order for several inputs.

    Returns:
        An `Agreement`; `str()` of it is one line.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the file cannot be run, `x` does not fit it, or the model or
            the file has several outputs.

    Example:

    ```python
    agreement = tflite_export.compare(model, "m.tflite", x_test)
    assert agreement.argmax > 0.99
    ```
    """
    actual = predict(path, x)
    if isinstance(actual, dict):
        raise ValueError(
            "`compare` takes models with one output. Received: a file with outputs "
            f"{sorted(actual)}. Use `tflite_export.predict` and compare each."
        )
    expected = _keras_outputs(model, x, len(actual))
    if expected.shape != actual.shape:
        raise ValueError(
            "`path` must be an export of `model`. Received: outputs of shape "
            f"{actual.shape} from the file and {expected.shape} from the model."
        )
    difference = np.abs(expected - actual.astype(np.float64))
    step = output_step(path)
    shares = [None, None]
    if step is not None:
        # A hair above, so that float rounding does not push a value over the edge.
        shares = [float((difference <= s * step * 1.0001).mean()) for s in (0.5, 1)]
    return Agreement(
        argmax=float((expected.argmax(-1) == actual.argmax(-1)).mean()),
        max_abs_diff=float(difference.max()),
        mean_abs_diff=float(difference.mean()),
        output_step=step,
        within_half_step=shares[0],
        within_one_step=shares[1],
        examples=len(actual),
    )


def output_step(path) -> float | None:
    """The scale of the file's first output before it is de-quantised, or None."""
    model = read_model(path)
    graph = model.subgraphs[0]
    index = listed(graph.outputs)[0]
    for operator in graph.operators or []:
        if index in listed(operator.outputs):
            if op_name(model, operator) == "DEQUANTIZE":
                index = listed(operator.inputs)[0]
            break
    found = graph.tensors[index].quantization
    if found is None or found.scale is None or not len(found.scale):
        return None
    return float(found.scale[0])


def _keras_outputs(model, x, examples: int) -> np.ndarray:
    from keras import ops, tree

    flat = [x]
    if isinstance(x, dict):
        flat = [x[tensor.name] for tensor in flat_inputs(model)]
    elif isinstance(x, (list, tuple)) and len(x) == len(model.inputs):
        flat = list(x)
    flat = [np.asarray(array) for array in flat]
    parts = []
    for start in range(0, examples, _BATCH):
        rows = [array[start : start + _BATCH] for array in flat]
        outputs = tree.flatten(call_flat(model, rows))
        if len(outputs) != 1:
            raise ValueError(
                "`compare` takes models with one output. Received: a model with "
                f"{len(outputs)} outputs."
            )
        parts.append(ops.convert_to_numpy(ops.cast(outputs[0], "float32")))
    return np.concatenate(parts).astype(np.float64)
