"""Small models, one per way in which channels flow, and the weights for them."""

import keras
import numpy as np
from keras import layers, ops

IMAGE, SERIES, VOLUME = (8, 8, 3), (12, 4), (4, 4, 4, 2)


def chain(x):
    y = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    y = layers.Conv2D(6, 3, strides=2, dilation_rate=1)(y)
    y = layers.MaxPooling2D()(layers.BatchNormalization()(y))
    return layers.Dense(3)(layers.GlobalAveragePooling2D()(y))


def flatten(x):
    y = layers.Conv2D(5, 3, strides=2, activation="tanh")(x)
    y = layers.Dense(8, activation="gelu")(layers.Flatten()(y))
    return layers.Dense(3)(y)


def dilated(x):
    y = layers.Conv2D(6, 3, dilation_rate=2, activation="silu")(x)
    return layers.Conv2D(2, 3)(y)


def grouped(x):
    y = layers.Conv2D(12, 3, activation="relu")(x)
    y = layers.Conv2D(16, 3, groups=4, activation="relu")(y)
    return layers.Dense(2)(layers.Flatten()(y))


def one_group_per_channel(x):
    y = layers.Conv2D(6, 3, activation="relu")(x)
    y = layers.BatchNormalization()(layers.Conv2D(12, 3, groups=6)(y))
    return layers.Conv2D(2, 1)(y)


def depthwise(x):
    y = layers.Conv2D(6, 1)(x)
    y = layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu6")(y)
    return layers.Conv2D(2, 1)(layers.BatchNormalization()(y))


def separable(x):
    y = layers.SeparableConv2D(6, 3, depth_multiplier=2, activation="relu")(x)
    y = layers.SeparableConv2D(5, 3, depth_multiplier=3)(y)
    return layers.Dense(2)(layers.GlobalMaxPooling2D()(layers.ReLU(6)(y)))


def transposed(x):
    y = layers.Conv2DTranspose(6, 3, strides=2, activation="elu")(x)
    y = layers.Conv2DTranspose(4, 2)(y)
    return layers.Conv2D(2, 3)(layers.LeakyReLU()(y))


def residual(x):
    y = layers.Conv2D(8, 3, padding="same")(x)
    z = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(y))
    z = layers.Add()([layers.ReLU()(z), y])
    return layers.Dense(2)(layers.GlobalAveragePooling2D()(z))


def other_merges(x):
    a, b, c, d = (layers.Conv2D(6, 3)(x) for _ in range(4))
    y = layers.Average()([layers.Maximum()([a, b]), layers.Minimum()([c, d])])
    y = layers.Subtract()([layers.Multiply()([y, a]), y])
    return layers.Conv2D(2, 1)(y)


def squeeze_and_excite(x):
    y = layers.Conv2D(8, 3, padding="same")(x)
    s = layers.Reshape((1, 1, 8))(layers.GlobalAveragePooling2D()(y))
    s = layers.Conv2D(4, 1, activation="relu")(s)
    s = layers.Conv2D(8, 1, activation="sigmoid")(s)
    return layers.Conv2D(2, 1)(layers.Multiply()([y, s]))


def one_gate_for_all(x):
    y = layers.Conv2D(6, 3, padding="same")(x)
    gate = layers.Conv2D(1, 3, padding="same", activation="sigmoid")(y)
    return layers.Conv2D(2, 1)(layers.Multiply()([y, gate]))


def dense_block(x):
    y = layers.Conv2D(4, 3, padding="same")(x)
    for _ in range(3):
        z = layers.ReLU()(layers.BatchNormalization()(y))
        z = layers.Conv2D(4, 3, padding="same")(z)
        y = layers.Concatenate()([y, z])
    return layers.Dense(2)(layers.Flatten()(layers.AveragePooling2D(2)(y)))


def one_tensor_twice(x):
    y = layers.Conv2D(4, 3)(x)
    return layers.Conv2D(2, 1)(layers.Concatenate()([y, layers.ReLU()(y), y]))


def joined_along_height(x):
    a, b = layers.Conv2D(4, 3)(x), layers.Conv2D(4, 3)(x)
    return layers.Conv2D(2, 1)(layers.Concatenate(axis=1)([a, b]))


def shared(x):
    conv, norm = layers.Conv2D(6, 3, padding="same"), layers.BatchNormalization()
    y = layers.Conv2D(6, 1)(x)
    y = norm(conv(layers.ReLU()(norm(conv(y)))))
    return layers.Dense(2)(layers.GlobalAveragePooling2D()(y))


def prelu(x):
    y = layers.PReLU()(layers.Conv2D(4, 3)(x))
    y = layers.PReLU(shared_axes=[1, 2])(layers.Conv2D(5, 3)(y))
    return layers.Conv2D(2, 1)(y)


def in_place(x):
    """Layers that leave channels where they are."""
    y = layers.Conv2D(6, 3, use_bias=False)(x)
    y = layers.ZeroPadding2D(2)(layers.UpSampling2D(2)(y))
    y = layers.Resizing(9, 9)(layers.Cropping2D(1)(y))
    y = layers.GaussianNoise(0.1)(layers.SpatialDropout2D(0.2)(y))
    y = layers.Activation("hard_silu")(layers.Dropout(0.5)(layers.Identity()(y)))
    y = layers.AveragePooling2D(2)(layers.Rescaling(0.5, 1.0)(y))
    return layers.Conv2D(2, 1)(y)


def reshaped(x):
    """(8, 8, 6) to 64 steps of 6, its axes swapped, and back in a Dense."""
    y = layers.Conv2D(6, 1)(x)
    y = layers.Reshape((64, 6))(y)
    y = layers.Permute((2, 1))(y)
    return layers.Dense(2)(layers.Flatten()(y))


def channel_shuffle(x):
    y = layers.Conv2D(12, 1)(x)
    y = layers.Reshape((8, 8, 3, 4))(y)
    y = layers.Reshape((8, 8, 12))(layers.Permute((1, 2, 4, 3))(y))
    return layers.Conv2D(2, 1)(y)


def with_ops(x):
    y = layers.Conv2D(8, 3, padding="same")(x)
    y = ops.relu(y) * 0.5 + ops.sigmoid(y) / 2.0 - ops.maximum(y, 0.1)
    y = y * np.linspace(1, 2, 8, dtype="float32")
    gate = ops.mean(y, axis=(1, 2), keepdims=True)
    y = ops.where(y > 0, y, 0.1 * y) + ops.square(gate)
    y = ops.concatenate([y, ops.expand_dims(ops.max(y, axis=1), 1)], axis=1)
    return layers.Dense(2)(ops.mean(ops.transpose(y, (0, 3, 1, 2)), axis=(2, 3)))


def sliced(x):
    y = layers.Conv2D(9, 3)(x)
    first, last = y[..., :4], y[:, 1:, :, 4:]
    first = layers.Conv2D(3, 1)(layers.ReLU()(first))
    return layers.Concatenate()([layers.Conv2D(2, 1)(last)[:, :4], first[:, :4]])


def split(x):
    y = layers.Conv2D(9, 3)(x)
    a, b, c = ops.split(y, 3, axis=-1)
    return layers.Conv2D(2, 1)(ops.concatenate([a + b, c], axis=-1))


def padded_channels(x):
    y = layers.Conv2D(4, 3, padding="same")(x)
    z = layers.Conv2D(4, 1)(layers.ReLU()(y))
    z = ops.pad(z, ((0, 0), (0, 0), (0, 0), (1, 1)))
    return layers.Conv2D(2, 1)(layers.Concatenate()([z, y]))


def nested(x):
    inputs = keras.Input((None, None, 3))
    y = layers.BatchNormalization()(layers.Conv2D(6, 3)(inputs))
    inner = keras.Model(inputs, layers.Conv2D(5, 3, activation="relu")(y))
    y = layers.Flatten()(inner(x))
    return layers.Dense(2)(layers.Dense(7, activation="relu")(y))


def two_outputs(x):
    y = layers.Conv2D(8, 3)(x)
    seen = layers.Conv2D(4, 1, name="seen")(y)
    return {"seen": seen, "label": layers.Dense(2)(layers.Flatten()(seen))}


def unit_norm(x):
    y = layers.Conv2D(6, 3, use_bias=False)(x)
    return layers.Conv2D(2, 1)(layers.UnitNormalization()(y))


def convolutions_1d(x):
    y = layers.Conv1D(8, 3, padding="causal", activation="relu")(x)
    y = layers.DepthwiseConv1D(3, depth_multiplier=2)(layers.MaxPooling1D()(y))
    y = layers.SeparableConv1D(6, 2)(layers.BatchNormalization()(y))
    y = layers.Conv1DTranspose(5, 3, activation="relu")(y)
    return layers.Dense(2)(layers.Flatten()(layers.Cropping1D(1)(y)))


def convolutions_3d(x):
    y = layers.Conv3D(6, 2, activation="relu")(x)
    y = layers.Conv3DTranspose(4, 2)(layers.BatchNormalization()(y))
    return layers.Dense(2)(layers.Flatten()(layers.MaxPooling3D()(y)))


def repeated(x):
    y = layers.Dense(6, activation="relu")(layers.GlobalAveragePooling1D()(x))
    y = layers.RepeatVector(5)(y)
    return layers.Dense(2)(ops.squeeze(ops.expand_dims(layers.Dense(4)(y), 1), 1))


def recurrent(x):
    y = layers.Conv1D(8, 3, activation="relu")(x)
    y = layers.LSTM(4, return_sequences=True)(y)
    y = layers.Bidirectional(layers.GRU(3))(layers.Dense(6)(y))
    return layers.Dense(2)(layers.Dense(6, activation="relu")(y))


def transformer(x):
    """Without its LayerNormalization, which looks at all channels."""
    y = layers.Dense(8)(x)
    y = layers.Add()([y, layers.MultiHeadAttention(2, 4)(y, y)])
    z = layers.Dense(12)(x)
    y = layers.Add()([y, layers.MultiHeadAttention(2, 4, value_dim=3)(y, z, key=x)])
    z = layers.Dense(8)(layers.Dense(16, activation="gelu")(y))
    return layers.Dense(2)(layers.GlobalAveragePooling1D()(layers.Add()([y, z])))


NETS = {
    IMAGE: (
        *(chain, flatten, dilated, grouped, one_group_per_channel, depthwise),
        *(separable, transposed, residual, other_merges, squeeze_and_excite),
        *(one_gate_for_all, dense_block, one_tensor_twice, joined_along_height),
        *(shared, prelu, in_place, reshaped, channel_shuffle, with_ops, sliced),
        *(split, padded_channels, nested, two_outputs, unit_norm),
    ),
    SERIES: (convolutions_1d, repeated, recurrent, transformer),
    VOLUME: (convolutions_3d,),
}
CASES = [(net, shape) for shape, nets in NETS.items() for net in nets]


def build(net, shape=IMAGE) -> keras.Model:
    """The model with random weights everywhere, statistics included."""
    inputs = keras.Input(shape)
    return randomized(keras.Model(inputs, net(inputs), name=net.__name__))


def randomized(model: keras.Model) -> keras.Model:
    random = np.random.default_rng(0)
    for variable in model.weights:
        if "float" in variable.dtype:
            positive = "variance" in variable.name
            low = 0.5 if positive else -0.5
            values = random.uniform(low, 1.5 if positive else 0.5, variable.shape)
            variable.assign(values)
    return model


def batch(model: keras.Model, count=4):
    """Random examples, as the model is called on them."""
    random = np.random.default_rng(1)
    arrays = [random.normal(size=(count, *x.shape[1:])) for x in model.inputs]
    arrays = [array.astype("float32") for array in arrays]
    return arrays if len(arrays) > 1 else arrays[0]


def outputs(model: keras.Model, x) -> list[np.ndarray]:
    flat = keras.tree.flatten(model(x, training=False))
    return [keras.ops.convert_to_numpy(y) for y in flat]
