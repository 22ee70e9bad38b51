"""What a Keras model costs."""

import keras
import numpy as np

from keras_compress.accounting.profile import profile
from keras_compress.graph import read_graph
from keras_compress.pipeline.stage import Histogram, LayerAccount


def keras_account(model: keras.Model) -> dict:
    """Fields of a `Stage`, read off a built Functional or Sequential model.

    Raises:
        ValueError: If the model is subclassed or not built.
    """
    costs = profile(model)
    operations = {id(s.operation): s.operation for s in read_graph(model).steps}
    kernels = {key: _kernels(operation) for key, operation in operations.items()}
    return {
        "source": "keras",
        "params": costs.params,
        "nonzero": costs.nonzero,
        "macs": costs.macs,
        "bytes": costs.bytes,
        "layers": tuple(
            _layer(operations[key], arrays) for key, arrays in kernels.items() if arrays
        ),
        "histogram": Histogram.of([a for found in kernels.values() for a in found]),
    }


def _kernels(operation) -> list[np.ndarray]:
    arrays = map(keras.ops.convert_to_numpy, getattr(operation, "weights", ()))
    return [array for array in arrays if array.ndim > 1 and array.size]


def _layer(operation, arrays: list) -> LayerAccount:
    return LayerAccount(
        name=operation.name,
        kind=type(operation).__name__,
        weights=sum(array.size for array in arrays),
        zeros=sum(array.size - int(np.count_nonzero(array)) for array in arrays),
        bits=max(8 * array.itemsize for array in arrays),
        histogram=Histogram.of(arrays),
    )
