"""Fine-tune a net of `qat_nets.py` under TFMOT on tf_keras and write its int8 file.

    TF_USE_LEGACY_KERAS=1 python qat_tfmot_child.py JSON

`benchmarks/qat_methods.py` runs this in a process of its own. JSON holds the net's
name, the weight bits, the seed, the recipe, and two file names: `weights`, an .npz
file of the Keras 3 net's weights as "layer/0", "layer/1", ..., and `output`.
"""

import json
import sys

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras
from qat_data import training_images
from qat_freeze import FREEZE_AT, freeze_batch_norm
from qat_nets import NETS


def float_net(net: str, weights: str):
    """The tf_keras net with the weights of the Keras 3 net."""
    model = NETS[net](tf_keras)
    with np.load(weights, allow_pickle=False) as stored:
        for layer in model.layers:
            count = len(layer.get_weights())
            layer.set_weights([stored[f"{layer.name}/{i}"] for i in range(count)])
    return model


def aware_net(model, bits: int):
    """The net under TFMOT: its default scheme, or the experimental one of n bits."""
    quantization = tfmot.quantization.keras
    if bits == 8:
        return quantization.quantize_model(model)
    scheme = quantization.experimental.default_n_bit.DefaultNBitQuantizeScheme(
        num_bits_weight=bits, num_bits_activation=8
    )
    annotated = quantization.quantize_annotate_model(model)
    return quantization.quantize_apply(annotated, scheme)


def main(given: dict) -> None:
    """Fine-tune and convert."""
    tf_keras.utils.set_random_seed(given["seed"])
    x, y = training_images(given["examples"])
    model = aware_net(float_net(given["net"], given["weights"]), given["bits"])
    epochs, batch_size = given["fine_tuning_epochs"], given["batch_size"]
    steps = epochs * -(-len(x) // batch_size)
    rate = tf_keras.optimizers.schedules.CosineDecay(given["fine_tuning_rate"], steps)
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf_keras.optimizers.Adam(rate), loss)
    freeze = freeze_batch_norm(tf_keras, FREEZE_AT * steps)
    model.fit(x, y, batch_size, epochs, verbose=0, callbacks=[freeze])
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    with open(given["output"], "wb") as file:
        file.write(converter.convert())


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
