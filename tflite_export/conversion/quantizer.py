"""The converter's calibration and its int8 pass, taken apart.

This is the one place that reaches into `TFLiteConverter` (checked on TensorFlow 2.21).
"""

from tflite_export.conversion.ranges import with_floors, with_same_scales
from tflite_export.flatbuffer import dtype_name, listed, parse

# Ops of a traced graph for which the int8 pass does not always come out the same: how
# it shares the scales of their outputs depends on addresses in memory.
UNSTEADY = frozenset({"Split", "SplitV"})
_TRIES = 16


def take_apart(converter, *, floor_ranges: bool, unsteady: bool) -> None:
    """Let a `TFLiteConverter` mend ranges between calibration and int8 pass.

    Ops that want one scale get the range of all their inputs.

    Args:
        converter: Set up for int8 with representative data.
        floor_ranges: Widen activation ranges that are too narrow for the kernels.
        unsteady: Make the int8 pass often and take the best result, always the same.
    """
    calibrate = converter._quantize

    def quantize(result, input_type, output_type, *rest):
        converter._experimental_calibrate_only = True
        calibrated = calibrate(result, input_type, output_type, *rest)
        calibrated = with_same_scales(calibrated)
        if floor_ranges:
            calibrated = with_floors(calibrated)
        types = {"input_data_type": input_type, "output_data_type": output_type}
        tries = {
            _quantized(calibrated, types) for _ in range(_TRIES if unsteady else 1)
        }
        return min(tries, key=lambda content: (_float_ops(content), content))

    converter._quantize = quantize


def _quantized(calibrated: bytes, types: dict) -> bytes:
    """What the int8 pass makes of the calibrated model.

    The pass fixes the scale of a tanh or sigmoid. Where a slice of one meets a wider
    tensor in a concatenation, it gives the slice both scales and refuses its own work;
    not if all of them have one range.
    """
    from tensorflow.lite.python.convert import mlir_quantize

    try:
        return bytes(mlir_quantize(calibrated, **types))
    except RuntimeError:
        joined = with_same_scales(calibrated, inputs_too=True)
        if joined == calibrated:
            raise
        return bytes(mlir_quantize(joined, **types))


def _float_ops(content: bytes) -> int:
    """How many tensors are computed in float."""
    model = parse(content, "the new file")
    return sum(
        dtype_name(graph.tensors[index]) == "float32"
        for graph in model.subgraphs
        for operator in graph.operators or []
        for index in listed(operator.outputs)
    )
