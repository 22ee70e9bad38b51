"""What a teacher cache knows examples and teachers by."""

import hashlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf


def fingerprint(x: Any) -> tf.Tensor:
    """A 64-bit hash (FarmHash) of each example of `x`, over all its inputs.

    Floats count as float32 and integers as int64, as Keras may convert them between a
    dataset and the model. Returns an int64 tensor `(n,)`.
    """
    rows = []
    for tensor in keras.tree.flatten(x):
        tensor = tf.convert_to_tensor(tensor)
        if not (tensor.dtype.is_floating or tensor.dtype.is_integer):
            raise ValueError(
                "A teacher cache needs inputs of integers or floats. "
                f"Received dtype: {tensor.dtype.name}"
            )
        kind = tf.float32 if tensor.dtype.is_floating else tf.int64
        row_bytes = tf.bitcast(tf.cast(tensor, kind), tf.uint8)
        rows.append(tf.reshape(row_bytes, (tf.shape(tensor)[0], -1)))
    hashed = tf.raw_ops.Fingerprint(data=tf.concat(rows, axis=1), method="farmhash64")
    return tf.bitcast(hashed, tf.int64)


def weights_sha256(model: keras.Model) -> str:
    """SHA-256 over the shape, dtype and bytes of every weight, in the model's order."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(f"{weight.shape}{weight.dtype}".encode())
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()
