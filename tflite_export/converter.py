"""From a Keras model to the bytes of a `.tflite` file, without a sound."""

import contextlib
import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator

import numpy as np

from tflite_export.checks import layers_within
from tflite_export.keras_call import call_flat, flat_inputs
from tflite_export.representative import batches

_HALF = ("float16", "bfloat16")


def convert(
    model,
    batch_size: int,
    examples: dict[str, np.ndarray] | None,
    input_dtype: str,
    output_dtype: str,
) -> bytes:
    """Convert a checked model; int8 where there are `examples`, else float32.

    Raises:
        ValueError: If the converter cannot take the model.
    """
    import tensorflow as tf

    with _quiet(), tempfile.TemporaryDirectory() as folder:
        try:
            _save(in_float32(model), flat_inputs(model), batch_size, folder)
            converter = tf.lite.TFLiteConverter.from_saved_model(folder)
            if examples is not None:
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
                converter.representative_dataset = lambda: batches(examples, batch_size)
                # The second set lets float ops through, so that they can be listed.
                converter.target_spec.supported_ops = [
                    tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
                    tf.lite.OpsSet.TFLITE_BUILTINS,
                ]
                converter.inference_input_type = tf.dtypes.as_dtype(input_dtype)
                converter.inference_output_type = tf.dtypes.as_dtype(output_dtype)
            return bytes(converter.convert())
        # The converter has no public error class of its own.
        except Exception as error:
            raise ValueError(_failure_text(model, error)) from error


def in_float32(model):
    """The model itself, or a float32 clone of one that computes in half precision."""
    import keras

    if not any(layer.compute_dtype in _HALF for layer in layers_within(model)):
        return model

    config = _float32_config(keras.saving.serialize_keras_object(model))
    classes = {type(layer).__name__: type(layer) for layer in layers_within(model)}
    policy = keras.config.dtype_policy()
    # The rebuilt models themselves take the global policy, and cast their inputs.
    keras.config.set_dtype_policy("float32")
    try:
        clone = keras.saving.deserialize_keras_object(
            config, custom_objects=classes, safe_mode=False
        )
    finally:
        keras.config.set_dtype_policy(policy)
    clone.set_weights([weights.astype("float32") for weights in model.get_weights()])
    return clone


def _float32_config(config):
    if isinstance(config, dict):
        if config.get("class_name") in ("DTypePolicy", "FloatDTypePolicy"):
            return "float32"
        kept = {k: v for k, v in config.items() if k != "compile_config"}
        return {key: _float32_config(value) for key, value in kept.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(_float32_config(value) for value in config)
    return "float32" if config in _HALF else config


def _save(model, inputs, batch_size: int, folder: str) -> None:
    import keras
    import tensorflow as tf

    def serve(*arrays):
        outputs = call_flat(model, arrays)
        flat = keras.tree.flatten(outputs)
        if isinstance(outputs, dict) or len(flat) == 1:
            return outputs
        names = model.output_names
        if len(set(names)) < len(flat):
            return outputs
        return dict(zip(names, flat, strict=True))

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serve",
        serve,
        input_signature=[
            tf.TensorSpec((batch_size, *tensor.shape[1:]), tensor.dtype, tensor.name)
            for tensor in inputs
        ],
    )
    archive.write_out(folder, verbose=False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No Python warnings, no TensorFlow log lines, nothing on file descriptor 2.

    The converter writes to the process's standard error from C++, which only its
    file descriptor can silence.
    """
    loggers = [logging.getLogger(name) for name in ("tensorflow", "absl")]
    levels = [logger.level for logger in loggers]
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        for logger, level in zip(loggers, levels, strict=True):
            stack.callback(logger.setLevel, level)
            logger.setLevel(logging.CRITICAL)
        with contextlib.suppress(OSError, AttributeError, ValueError):
            sys.stderr.flush()
        # Without an open standard error there is nothing to silence.
        with contextlib.suppress(OSError):
            saved = os.dup(2)
            stack.callback(os.close, saved)
            stack.callback(os.dup2, saved, 2)
            with open(os.devnull, "wb") as null:
                os.dup2(null.fileno(), 2)
        yield


def _failure_text(model, error: Exception) -> str:
    text = str(error)
    ops = sorted(set(re.findall(r"'tf\.(\w+)' op", text)))
    if ops:
        return (
            f"Model {model.name!r} uses ops that LiteRT does not have built in: "
            f"{', '.join(ops)}. Replace the layers that use them."
        )
    lines = [line for line in text.splitlines() if line.strip()]
    reason = lines[0][:300] if lines else type(error).__name__
    return f"The converter could not convert model {model.name!r}: {reason}"
