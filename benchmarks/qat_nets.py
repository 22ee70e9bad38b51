"""The two nets of the quantization-aware benchmarks, for Keras 3 and for tf_keras.

Both take 28x28 grey images and give ten logits. Each function is called with the
module to build with, so that both libraries get the same layers under the same names.
"""


def mobile(keras):
    """A MobileNet-like net, 157,000 parameters.

    Everything of the family: conv-bn-relu6, depthwise, residual add, concat, GAP.
    """
    layers = keras.layers
    image = keras.Input((28, 28, 1), name="image")
    x = _conv(layers, image, "stem", 32, size=3, strides=2)
    x = _separable(layers, x, "block1", 64)
    x = layers.Add(name="add1")([x, _separable(layers, x, "block2", 64, relu=False)])
    x = _separable(layers, x, "block3", 128, strides=2)
    x = layers.Add(name="add2")([x, _separable(layers, x, "block4", 128, relu=False)])
    branches = [_conv(layers, x, "wide", 64, size=3), _conv(layers, x, "narrow", 64)]
    x = layers.Concatenate(name="concat")(branches)
    x = _separable(layers, x, "block5", 256, strides=2)
    return _with_head(keras, image, x, "mobile")


def depthwise(keras):
    """Six depthwise convolutions in a row, 30,000 parameters, and no other 3x3."""
    layers = keras.layers
    image = keras.Input((28, 28, 1), name="image")
    x = _depthwise(layers, image, "stem", strides=2, depth_multiplier=24)
    x = _separable(layers, x, "block1", 48)
    for number, (channels, strides) in enumerate(
        ((64, 2), (64, 1), (96, 2), (96, 1)), start=2
    ):
        x = _separable(layers, x, f"block{number}", channels, strides=strides)
    return _with_head(keras, image, x, "depthwise")


NETS = {"mobile": mobile, "depthwise": depthwise}


def _conv(layers, x, name, channels, size=1, strides=1, relu=True):
    options = {"padding": "same", "use_bias": False}
    conv = layers.Conv2D(channels, size, strides, name=f"{name}_conv", **options)
    return _normalised(layers, conv(x), f"{name}_conv", relu)


def _depthwise(layers, x, name, strides=1, depth_multiplier=1):
    conv = layers.DepthwiseConv2D(
        3,
        strides,
        "same",
        depth_multiplier=depth_multiplier,
        use_bias=False,
        name=f"{name}_depthwise",
    )
    return _normalised(layers, conv(x), f"{name}_depthwise", relu=True)


def _separable(layers, x, name, channels, strides=1, relu=True):
    """A depthwise 3x3 and a 1x1 convolution; the latter's ReLU6 may be left out."""
    x = _depthwise(layers, x, name, strides)
    return _conv(layers, x, name, channels, relu=relu)


def _normalised(layers, x, name, relu):
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.ReLU(6.0, name=f"{name}_relu6")(x) if relu else x


def _with_head(keras, image, x, name):
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, keras.layers.Dense(10, name="scores")(x), name=name)
