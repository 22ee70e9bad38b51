"""The models that `qat_coverage.py` tries, for Keras 3 and for tf_keras."""

import numpy as np
from applications_coverage import natural_images

CLASSES = 10


def nested_vgg16(keras, size: int):
    layers = keras.layers
    body = keras.applications.VGG16(
        include_top=False, weights=None, input_shape=(size, size, 3)
    )
    head = [layers.GlobalAveragePooling2D(), layers.Dense(CLASSES)]
    return keras.Sequential([keras.Input((size, size, 3)), body, *head])


def shared_layer(keras, size: int):
    layers = keras.layers
    image = keras.Input((size, size, 3))
    conv = layers.Conv2D(8, 3, padding="same", activation="relu")
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(image)
    x = layers.Concatenate()([conv(x), conv(conv(x))])
    return keras.Model(image, layers.Dense(CLASSES)(layers.Flatten()(x)))


def multi_input(keras, size: int):
    layers = keras.layers
    image = keras.Input((size, size, 3), name="image")
    facts = keras.Input((12,), name="facts")
    x = layers.Conv2D(16, 3, strides=2, use_bias=False)(image)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    y = layers.Dense(16, activation="relu")(facts)
    x = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), y])
    return keras.Model([image, facts], layers.Dense(CLASSES)(x))


def conv1d_text(keras, size: int):
    layers = keras.layers
    ids = keras.Input((64,), dtype="int32")
    x = layers.Embedding(1000, 32)(ids)
    for _ in range(2):
        x = layers.Conv1D(32, 5, activation="relu")(x)
        x = layers.MaxPooling1D()(x)
    x = layers.Dense(32, activation="relu")(layers.GlobalMaxPooling1D()(x))
    return keras.Model(ids, layers.Dense(CLASSES)(layers.Dropout(0.5)(x)))


def u_net(keras, size: int):
    layers = keras.layers

    def block(x, units):
        for _ in range(2):
            x = layers.Conv2D(units, 3, padding="same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization()(x))
        return x

    image = keras.Input((size, size, 3))
    x, skips = image, []
    for units in (8, 16):
        skips.append(block(x, units))
        x = layers.MaxPooling2D()(skips[-1])
    x = block(x, 32)
    for skip, units in zip(reversed(skips), (16, 8), strict=True):
        x = layers.Conv2DTranspose(units, 2, strides=2)(x)
        x = block(layers.Concatenate()([skip, x]), units)
    return keras.Model(image, layers.Conv2D(CLASSES, 1)(x))


def attention_block(keras, size: int):
    layers = keras.layers
    tokens = keras.Input((24, 32))
    x = layers.Dense(32)(tokens)
    x = layers.Add()([x, layers.MultiHeadAttention(4, 8)(x, x)])
    x = layers.LayerNormalization()(x)
    y = layers.Dense(32)(layers.Dense(64, activation="relu")(x))
    x = layers.LayerNormalization()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(tokens, layers.Dense(CLASSES)(x))


NETS = {
    net.__name__: net
    for net in (
        *(nested_vgg16, shared_layer, multi_input),
        *(conv1d_text, u_net, attention_block),
    )
}


def build(keras, name: str, size: int):
    """The seeded model of `keras` or `tf_keras` for a case, with logits as outputs."""
    keras.utils.set_random_seed(0)
    if name in NETS:
        return NETS[name](keras, size)
    return getattr(keras.applications, name)(
        weights=None,
        input_shape=(size, size, 3),
        classes=CLASSES,
        classifier_activation=None,
    )


def examples_for(model, count: int) -> list[np.ndarray]:
    """Examples for each input of the model, images as its preprocessing makes them."""
    random = np.random.default_rng(0)
    kinds = {type(layer).__name__ for layer in model.layers}
    found = []
    for tensor in model.inputs:
        shape = (count, *tensor.shape[1:])
        if "int" in tensor.dtype:
            found.append(random.integers(0, 1000, shape, dtype="int32"))
        elif len(shape) == 4:
            images = natural_images(count, shape[1])
            raw = kinds & {"Rescaling", "Normalization"}
            found.append(images if raw else images / 127.5 - 1)
        else:
            found.append(random.normal(size=shape).astype("float32"))
    return found


def settle(model, x) -> None:
    """Give BatchNorm the statistics of the examples, and LayerScale an effect.

    Its scale is a half and its offset one, so that ReLU passes most values: in a fresh
    network, where it cuts half of them, a rounding grows with every layer until nothing
    is left of the image.
    """
    momenta = {}
    for layer in model.layers:
        if type(layer).__name__ == "LayerScale":
            # It starts at 1e-6, which leaves nothing of a branch to be compared.
            layer.gamma.assign(np.full(layer.gamma.shape, 0.5))
        if type(layer).__name__ == "BatchNormalization":
            momenta[layer], layer.momentum = layer.momentum, 0.0
            if layer.scale:
                layer.gamma.assign(np.full(layer.gamma.shape, 0.5))
            if layer.center:
                layer.beta.assign(np.full(layer.beta.shape, 1.0))
    model(x, training=True)
    for layer, momentum in momenta.items():
        layer.momentum = momentum
