"""The int8 file of a quantization-aware model computes what the model computes."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_compress as kc
import tflite_export


def _image():
    return keras.Input((16, 16, 3), name="image")


def _conv(x, units, size=3, strides=1, relu=6.0, depthwise=False):
    options = {"strides": strides, "padding": "same", "use_bias": False}
    conv = (
        layers.DepthwiseConv2D(size, **options)
        if depthwise
        else layers.Conv2D(units, size, **options)
    )
    x = layers.BatchNormalization()(conv(x))
    return x if relu is None else layers.ReLU(relu)(x)


def _head(x, **options):
    return layers.Dense(10, **options)(layers.GlobalAveragePooling2D()(x))


def mobile():
    image = _image()
    x = _conv(image, 16, strides=2)
    for _ in range(2):
        y = _conv(_conv(x, 48, 1), 48, depthwise=True)
        x = layers.Add()([x, _conv(y, 16, 1, relu=None)])
    x = layers.Concatenate()([_conv(x, 8, 1), _conv(x, 8), x])
    return keras.Model(image, _head(x))


def pre_activation():
    image = _image()
    x = layers.Conv2D(16, 3, padding="same")(image)
    for _ in range(2):
        y = layers.ReLU()(layers.BatchNormalization()(x))
        y = layers.ReLU()(
            layers.BatchNormalization()(layers.Conv2D(16, 3, padding="same")(y))
        )
        x = x + layers.Conv2D(16, 3, padding="same")(y)
    return keras.Model(image, _head(layers.ReLU()(layers.BatchNormalization()(x))))


def inception():
    image = _image()
    x = layers.Conv2D(16, 3, strides=2, activation="relu")(image)
    narrow = layers.Conv2D(4, 1, activation="relu")(x)
    branches = [
        layers.Conv2D(8, 1, activation="relu")(x),
        layers.Conv2D(8, 3, padding="same", activation="relu")(narrow),
        layers.Conv2D(8, 1)(layers.MaxPooling2D(3, 1, padding="same")(x)),
        layers.AveragePooling2D(3, 1, padding="same")(x),
    ]
    x = layers.Flatten()(layers.Concatenate()(branches))
    return keras.Model(image, layers.Dense(10, activation="softmax")(x))


def squeeze_and_excite():
    image = _image()
    x = _conv(image, 16, strides=2, relu=None)
    scale = layers.GlobalAveragePooling2D(keepdims=True)(x)
    scale = layers.Conv2D(4, 1, activation="relu")(scale)
    scale = layers.Conv2D(16, 1, activation="sigmoid")(scale)
    return keras.Model(image, _head(_conv(layers.Multiply()([x, scale]), 16)))


def shared_layer():
    image = _image()
    conv = layers.Conv2D(3, 3, padding="same", activation="relu")
    return keras.Model(image, layers.Dense(10)(layers.Flatten()(conv(conv(image)))))


def u_net():
    image = _image()
    options = {"padding": "same", "activation": "relu"}
    top = layers.Conv2D(8, 3, **options)(image)
    x = layers.Conv2D(16, 3, **options)(layers.MaxPooling2D()(top))
    x = layers.Conv2DTranspose(8, 2, strides=2, padding="same")(x)
    x = layers.Conv2D(8, 3, **options)(layers.Concatenate()([top, x]))
    x = layers.UpSampling2D(interpolation="bilinear")(x)
    return keras.Model(image, layers.Conv2D(3, 1)(x))


def separable():
    image = _image()
    x = layers.SeparableConv2D(16, 3, activation="relu")(image)
    x = layers.SeparableConv2D(16, 3, use_bias=False)(x)
    return keras.Model(image, _head(layers.ReLU()(layers.BatchNormalization()(x))))


def nested():
    image = keras.Input((16, 16, 3))
    body = keras.Model(image, _conv(_conv(image, 16), 16, depthwise=True), name="body")
    return keras.Sequential(
        [
            _image(),
            body,
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="relu"),
            layers.Dense(10, name="scores"),
        ]
    )


def activations():
    image = _image()
    x = layers.Rescaling(0.5, offset=-0.3)(image)
    for activation in ("silu", "hard_sigmoid", "tanh", "hard_silu", "gelu"):
        x = layers.Conv2D(12, 3, activation=activation, padding="same")(x)
    x = layers.LeakyReLU()(layers.Conv2D(8, 1)(x))
    x = layers.PReLU(shared_axes=[1, 2])(layers.Conv2D(8, 1)(x))
    return keras.Model(image, _head(x))


def operators():
    image = _image()
    x = layers.Conv2D(16, 3)(image)
    x = x * (keras.ops.relu6(x + 3.0) * (1 / 6))
    x = layers.Average()([x, x * 2.0])
    return keras.Model(image, _head(layers.ZeroPadding2D()(x)))


def text():
    ids = keras.Input((40,), dtype="int32", name="ids")
    x = layers.Embedding(50, 8)(ids)
    x = layers.Conv1D(16, 3, activation="relu")(x)
    x = layers.BatchNormalization()(layers.Conv1D(16, 3, use_bias=False)(x))
    x = layers.GlobalMaxPooling1D()(layers.ReLU()(x))
    return keras.Model(ids, layers.Dense(4)(x))


def attention():
    sequence = keras.Input((6, 16), name="sequence")
    x = layers.Dense(16)(sequence)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 8, dropout=0.1)(x, x)])
    x = layers.Dense(8, activation="relu")(x)
    return keras.Model(sequence, layers.Dense(4)(layers.GlobalAveragePooling1D()(x)))


def two_heads():
    features = keras.Input((20,), name="features")
    x = layers.Dense(32)(layers.BatchNormalization()(features))
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.BatchNormalization()(layers.Dense(16, activation="relu")(x))
    heads = [layers.Dense(3, name="scores"), layers.Dense(2, name="age")]
    return keras.Model(features, [head(x) for head in heads])


LONG = (activations, operators, attention)
NETS = (
    mobile,
    pre_activation,
    inception,
    squeeze_and_excite,
    shared_layer,
    u_net,
    separable,
    nested,
    text,
    two_heads,
    *(pytest.param(net, marks=pytest.mark.slow) for net in LONG),
)


def data(model, examples=100):
    random = np.random.default_rng(0)
    [tensor] = model.inputs
    shape = (examples, *tensor.shape[1:])
    if "int" in tensor.dtype:
        return random.integers(0, 50, shape).astype("int32")
    return random.normal(size=shape).astype("float32")


def unsettle(model):
    """Statistics and weights of BatchNormalization as after a training."""
    random = np.random.default_rng(1)
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            size = layer.moving_mean.shape
            sign = np.where(random.random(size) < 0.2, -1, 1)
            layer.set_weights(
                [
                    sign * random.uniform(0.5, 1.5, size),
                    0.3 * random.normal(size=size),
                    0.2 * random.normal(size=size),
                    random.uniform(0.3, 1.5, size),
                ]
            )


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.__name__)
def test_the_file_computes_what_the_model_computes(net, tmp_path):
    model = net()
    unsettle(model)
    x = data(model)
    aware = kc.quantize_aware(model, calibration_data=x)
    assert not aware.quantization_report.float_layers
    path = tmp_path / "m.tflite"
    result = tflite_export.export(aware, path)
    assert not result.float_ops
    # LiteRT's reference kernels round some products twice, and means too early.
    for kernels, within, equal in (("xnnpack", 1, 0.9), ("reference", 0.995, 0.7)):
        agreement = tflite_export.compare(aware, path, x, kernels=kernels)
        for row in getattr(agreement, "outputs", {"": agreement}).values():
            # The scores of untrained nets lie close together.
            assert row.argmax >= 0.98
            assert row.within_one_step >= within
            assert row.equal >= equal
    # The float model is near: rounding is all that was added.
    for exact, rounded in zip(
        keras.tree.flatten(model.predict(x, verbose=0)),
        keras.tree.flatten(aware.predict(x, verbose=0)),
        strict=True,
    ):
        assert np.abs(exact - rounded).max() < 0.05 * np.abs(exact).max()
