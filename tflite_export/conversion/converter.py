"""From a traced graph to the bytes of a `.tflite` file, without a sound."""

import re
from collections.abc import Callable

import numpy as np

from tflite_export.conversion.input_order import in_model_order
from tflite_export.conversion.quantizer import UNSTEADY, take_apart
from tflite_export.conversion.representative import batches
from tflite_export.conversion.saved_model import TracedGraph
from tflite_export.conversion.settings import Settings
from tflite_export.quiet import quiet

Examples = dict[str, np.ndarray] | None


def convert(
    graph: TracedGraph,
    settings: Settings,
    examples: Examples,
    *,
    floor_ranges: bool = False,
) -> bytes:
    """Convert a traced graph in this process.

    Args:
        graph: The traced graph. One with fake-quant ops brings its own ranges.
        settings: What to convert to.
        examples: Arrays by input name; needed for int8 and int16x8 without fake-quant.
        floor_ranges: Widen activation ranges that are too narrow for the kernels.

    Raises:
        ValueError: If the converter cannot take the graph.
    """
    import tensorflow as tf

    with quiet():
        try:
            converter = tf.lite.TFLiteConverter.from_saved_model(graph.folder)
            _SET_UP[settings.quantization](converter, tf)
            if settings.integer:
                converter.inference_input_type = tf.dtypes.as_dtype(
                    settings.input_dtype
                )
                converter.inference_output_type = tf.dtypes.as_dtype(
                    settings.output_dtype
                )
                if graph.has_ranges:
                    # The int8 set would ask for representative data.
                    converter.target_spec.supported_ops = [
                        tf.lite.OpsSet.TFLITE_BUILTINS
                    ]
                else:
                    size = settings.batch_size or 1
                    converter.representative_dataset = lambda: batches(examples, size)
            if settings.quantization == "int8" and not graph.has_ranges:
                unsteady = bool(UNSTEADY & graph.ops)
                take_apart(converter, floor_ranges=floor_ranges, unsteady=unsteady)
            return in_model_order(converter.convert(), graph.inputs)
        # The converter has no public error class of its own.
        except Exception as error:
            raise ValueError(_failure_text(error)) from error


def _float(converter, tf) -> None:
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]


def _dynamic(converter, tf) -> None:
    _float(converter, tf)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]


def _float16(converter, tf) -> None:
    _dynamic(converter, tf)
    converter.target_spec.supported_types = [tf.float16]


def _int8(converter, tf) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    # The second set lets float ops through, so that they can be listed.
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
        tf.lite.OpsSet.TFLITE_BUILTINS,
    ]


def _int16x8(converter, tf) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
        tf.lite.OpsSet.TFLITE_BUILTINS,
    ]


_SET_UP: dict[str, Callable] = {
    "none": _float,
    "float16": _float16,
    "dynamic": _dynamic,
    "int8": _int8,
    "int16x8": _int16x8,
}


def _failure_text(error: Exception) -> str:
    text = str(error)
    ops = sorted(set(re.findall(r"'tf\.(\w+)' op", text)))
    if "mismatched quantized axes" in text:
        return (
            "the kernel of a matrix product has a per-channel fake-quant op, which the "
            "converter takes for convolutions only. Round the kernel with plain ops "
            "(x / scale, round, * scale), or fake-quantise it per tensor."
        )
    if any(op.startswith("TensorList") for op in ops):
        return (
            "a loop in it, such as a recurrent layer's, has a size that is not fixed. "
            "Give a fixed `batch_size`, or unroll the loop (`unroll=True`)."
        )
    if ops:
        return (
            "it uses ops that LiteRT does not have built in: "
            f"{', '.join(ops)}. Replace the layers that use them."
        )
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
