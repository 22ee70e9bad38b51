"""A small net with the layers that a phone's net has, its teacher and its data."""

import keras
import numpy as np
from keras import layers

CLASSES = 4
BATCH = 12
STEPS = 3


def data():
    """Images whose brightest columns tell the class; a whole number of batches."""
    random = np.random.default_rng(0)
    count = BATCH * STEPS
    y = random.integers(0, CLASSES, count).astype("int32")
    x = random.normal(size=(count, 8, 8, 3)).astype("float32")
    for column in range(2):
        x[np.arange(count), :, 2 * y + column] += 1
    return x, y


def net(width: int, seed: int) -> keras.Model:
    """Convolution, depthwise and pointwise ones, an addition and a dense layer."""
    keras.utils.set_random_seed(seed)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(width, 3, padding="same", use_bias=False, name="conv")(image)
    x = layers.ReLU(name="conv_relu")(layers.BatchNormalization(name="conv_norm")(x))
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
    y = layers.BatchNormalization(name="depthwise_norm")(y)
    y = layers.ReLU(name="depthwise_relu")(y)
    y = layers.Conv2D(width, 1, name="pointwise")(y)
    x = layers.ReLU(name="sum_relu")(layers.Add(name="sum")([x, y]))
    x = layers.Flatten(name="flat")(layers.MaxPooling2D(name="pool")(x))
    return keras.Model(image, layers.Dense(CLASSES, name="scores")(x))


def teacher() -> keras.Model:
    """A wider net with confident scores; it is not trained."""
    model = net(12, seed=1)
    scores = model.get_layer("scores")
    scores.set_weights([3 * weights for weights in scores.get_weights()])
    return model


def compiled(model: keras.Model, optimizer=None, **options) -> keras.Model:
    """The model, ready to train on `data`."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or keras.optimizers.Adam(0.01), loss, **options)
    return model
