"""Prune a net of `qat_nets.py` under TFMOT on tf_keras and print what came of it.

    TF_USE_LEGACY_KERAS=1 python pruning_tfmot_child.py JSON

`benchmarks/pruning_accuracy.py` runs this in a process of its own. JSON holds flags,
the seed, the schedule, and `weights`, an .npz file of the Keras 3 net's weights as
"layer/0", "layer/1", ...
"""

import gzip
import json
import sys

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras
from qat_data import test_images, training_images
from qat_tfmot_child import float_net


def main(given: dict) -> None:
    """Fine-tune, strip, convert and print a line of JSON."""
    tf_keras.utils.set_random_seed(given["seed"])
    sparsity = tfmot.sparsity.keras
    schedule = sparsity.PolynomialDecay(
        *(0.0, given["sparsity"], 0, given["end_step"]), frequency=given["frequency"]
    )
    model = sparsity.prune_low_magnitude(
        float_net(given["net"], given["weights"]), schedule
    )
    rate = tf_keras.optimizers.schedules.CosineDecay(
        given["fine_tuning_rate"], given["steps"]
    )
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf_keras.optimizers.Adam(rate), loss)
    x, y = training_images(given["examples"])
    model.fit(
        *(x, y, given["batch_size"], given["fine_tuning_epochs"]),
        verbose=0,
        callbacks=[sparsity.UpdatePruningStep()],
    )
    model = sparsity.strip_pruning(model)
    kinds = (tf_keras.layers.Conv2D, tf_keras.layers.Dense)
    kernels = [
        layer.kernel.numpy()
        for layer in model.layers
        if isinstance(layer, kinds)
        and not isinstance(layer, tf_keras.layers.DepthwiseConv2D)
    ]
    zeros = 1 - sum(map(np.count_nonzero, kernels)) / sum(k.size for k in kernels)
    x, y = test_images(given["test_examples"])
    predicted = model.predict(x, 500, verbose=0).argmax(-1)
    file = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    size = len(gzip.compress(file, 9, mtime=0))
    accuracy = float((predicted == y).mean())
    print(json.dumps({"accuracy": accuracy, "sparsity": zeros, "bytes": size}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
