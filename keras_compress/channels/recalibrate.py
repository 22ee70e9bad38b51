"""`recalibrate_batchnorm`: statistics of BatchNormalization, measured anew."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from keras_compress.graph import Builder, Step, read_graph, rebuild


def recalibrate_batchnorm(model: keras.Model, dataset) -> keras.Model:
    """Sets the moving statistics of a model to those of a data set.

    After surgery the layers before a BatchNormalization compute something else than
    what its moving mean and variance were measured on. Measuring them anew wins back
    much of the accuracy before any training. The statistics of each layer are those of
    its inputs over all batches, the layers before it normalising by the batch; nothing
    else of the model moves. Frozen layers (`trainable=False`) keep their statistics.

    Args:
        model: A built Functional or Sequential model; its moving means and variances
            are assigned to.
        dataset: Batches x or (x, ...), such as a `tf.data.Dataset`; larger ones are
            better. A few thousand examples are enough.

    Returns:
        The same model.

    Raises:
        ValueError: If the model is subclassed or not built, or there is no batch.

    Example:

    ```python
    smaller = kc.recalibrate_batchnorm(kc.prune_channels(model, macs=0.5), dataset)
    ```

    Source: Wu and Johnson 2021, 2105.07576 (PreciseBN).
    """
    layers: list[keras.layers.BatchNormalization] = []
    copies: list[keras.layers.BatchNormalization] = []

    def make(builder: Builder, step: Step):
        layer = step.operation
        if not isinstance(layer, keras.layers.BatchNormalization):
            return builder.copy(step)
        kwargs = {**step.kwargs, "training": layer.trainable}
        outputs = builder.copy(dataclasses.replace(step, kwargs=kwargs))
        copy = builder.clone(step)
        if layer.trainable and layer not in layers:
            copy.momentum = 0.0
            layers.append(layer)
            copies.append(copy)
        return outputs

    measured = rebuild(
        model, read_graph(model), make, lambda builder, ref, tensor: tensor
    )
    if isinstance(dataset, np.ndarray):
        raise ValueError(
            "`dataset` must be batches: give a tf.data.Dataset, or [x] for one batch. "
            f"Received: an array of shape {dataset.shape}"
        )
    means, variances = _statistics(measured, copies, dataset)
    for layer, mean, variance in zip(layers, means, variances, strict=True):
        layer.moving_mean.assign(mean)
        layer.moving_variance.assign(variance)
    return model


def traced(function, *example):
    """The function as a graph for batches like the example, of any size."""
    any_size = keras.tree.map_structure(
        lambda x: tf.TensorSpec((None, *x.shape[1:]), x.dtype), example
    )
    return tf.function(function).get_concrete_function(*any_size)


def _statistics(model, layers, dataset) -> tuple[list, list]:
    """The mean and variance of each layer's inputs over all batches."""
    call = None
    total, means, squares = 0, [0.0] * len(layers), [0.0] * len(layers)
    for batch in dataset:
        x = keras.utils.unpack_x_y_sample_weight(batch)[0]
        x = keras.tree.map_structure(tf.convert_to_tensor, x)
        # Whether a layer trains is settled in its call; `training` here would undo it.
        call = call or traced(model, x)
        call(x)
        size = keras.tree.flatten(x)[0].shape[0]
        total += size
        for i, layer in enumerate(layers):
            # With a momentum of 0 these are the statistics of the batch.
            mean = np.asarray(layer.moving_mean, "float64")
            means[i] += size * mean
            squares[i] += size * (np.asarray(layer.moving_variance) + mean**2)
    if not total:
        raise ValueError(
            "`dataset` must hold at least one batch of the model's inputs. Received: "
            f"{type(dataset).__name__} without a batch"
        )
    means = [mean / total for mean in means]
    pairs = zip(means, squares, strict=True)
    return means, [square / total - mean**2 for mean, square in pairs]
