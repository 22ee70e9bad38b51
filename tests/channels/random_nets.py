"""Random Functional models over the table of ops; the same seed, the same model."""

import keras
import numpy as np
from keras import layers, ops

WIDTHS = (4, 6, 8, 12)
ACTIVATIONS = ("linear", "relu", "tanh", "sigmoid", "gelu", "hard_silu")


class RandomNet:
    """Draws one op after the other and applies it to a random tensor made before."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.tensors: list = []
        self.shared: dict = {}

    def pick(self, items):
        return items[self.random.integers(len(items))]

    def width(self) -> int:
        return int(self.pick(WIDTHS))

    def activation(self) -> str:
        return str(self.pick(ACTIVATIONS))

    def conv(self, y):
        return layers.Conv2D(
            self.width(),
            int(self.pick((1, 3))),
            padding="same",
            dilation_rate=int(self.pick((1, 2))),
            use_bias=bool(self.pick((True, False))),
            activation=self.activation(),
        )(y)

    def grouped(self, y):
        width = y.shape[-1]
        groups = [n for n in (2, 3, 4, 6, width) if width % n == 0]
        groups = int(self.pick(groups)) if groups else 1
        times = int(self.pick((1, 2)))
        return layers.Conv2D(groups * times * 2, 3, padding="same", groups=groups)(y)

    def depthwise(self, y):
        times = int(self.pick((1, 2))) if y.shape[-1] < 16 else 1
        return layers.DepthwiseConv2D(3, padding="same", depth_multiplier=times)(y)

    def separable(self, y):
        return layers.SeparableConv2D(self.width(), 3, padding="same")(y)

    def transposed(self, y):
        strides = 2 if y.shape[1] < 8 else 1
        return layers.Conv2DTranspose(self.width(), 3, strides, padding="same")(y)

    def same_conv_again(self, y):
        """One convolution for all tensors of one width."""
        width = y.shape[-1]
        make = lambda: layers.Conv2D(width, 3, padding="same")  # noqa: E731
        return self.shared.setdefault(("conv", width), make())(y)

    def normalization(self, y):
        return layers.BatchNormalization()(y)

    def in_place(self, y):
        layer = self.pick(
            (
                layers.ReLU(6.0),
                layers.LeakyReLU(),
                layers.PReLU(shared_axes=[1, 2]),
                layers.PReLU(),
                layers.Dropout(0.2),
                layers.Activation(self.activation()),
                layers.MaxPooling2D(2, 1, padding="same"),
                layers.AveragePooling2D(2, 1, padding="same"),
            )
        )
        return layer(y)

    def spatial(self, y):
        if y.shape[1] >= 8:
            layer = self.pick(
                (
                    layers.MaxPooling2D(),
                    layers.AveragePooling2D(2),
                    layers.Cropping2D(1),
                )
            )
        else:
            layer = self.pick((layers.UpSampling2D(), layers.ZeroPadding2D(1)))
        return layer(y)

    def like(self, y):
        """Another tensor of the same shape: an old one, or a new convolution."""
        same = [t for t in self.tensors if t.shape == y.shape and t is not y]
        if same and self.random.random() < 0.7:
            return self.pick(same)
        return layers.Conv2D(y.shape[-1], 1)(y)

    def merged(self, y):
        other = self.like(y)
        layer = self.pick((layers.Add, layers.Multiply, layers.Maximum, layers.Average))
        return layer()([y, other])

    def operators(self, y):
        other = self.like(y)
        return ops.relu(y) + ops.sigmoid(other) * 0.5 - y

    def gated(self, y):
        pooled = layers.GlobalAveragePooling2D(keepdims=True)(y)
        gate = layers.Conv2D(4, 1, activation="relu")(pooled)
        gate = layers.Conv2D(y.shape[-1], 1, activation="sigmoid")(gate)
        return layers.Multiply()([y, gate])

    def joined(self, y):
        same = [t for t in self.tensors if t.shape[1:3] == y.shape[1:3]]
        other = self.pick(same)
        if y.shape[-1] + other.shape[-1] > 24:
            return self.conv(y)
        return layers.Concatenate()([y, other])

    def sliced(self, y):
        at = y.shape[-1] // 2
        return layers.Concatenate()([y[..., at:], layers.ReLU()(y[..., :at])])

    def split(self, y):
        first, second = ops.split(y, [y.shape[-1] // 2], axis=-1)
        return ops.concatenate([second, first, second], axis=-1)

    def shuffled(self, y):
        _, height, width, channels = y.shape
        if channels % 2:
            return y
        z = layers.Reshape((height, width, 2, channels // 2))(y)
        z = layers.Permute((1, 2, 4, 3))(z)
        return layers.Reshape((height, width, channels))(z)

    def nested(self, y):
        inputs = keras.Input(y.shape[1:])
        inner = layers.Conv2D(self.width(), 3, padding="same")(inputs)
        return keras.Model(inputs, layers.ReLU()(inner))(y)

    def head(self, y):
        if self.random.random() < 0.5:
            y = layers.Flatten()(layers.AveragePooling2D(2)(y))
        else:
            y = layers.GlobalAveragePooling2D()(y)
        y = layers.Dense(self.width(), activation=self.activation())(y)
        return layers.Dense(3)(y)


STEPS = (
    *("conv", "conv", "grouped", "depthwise", "separable", "transposed"),
    *("same_conv_again", "normalization", "normalization", "in_place", "in_place"),
    *("spatial", "merged", "merged", "operators", "gated", "joined", "joined"),
    *("sliced", "split", "shuffled", "nested"),
)


def random_model(seed: int, length=10) -> keras.Model:
    """A model with one to two inputs and outputs and `length` random steps."""
    net = RandomNet(seed)
    inputs = [keras.Input((8, 8, 3)) for _ in range(1 + seed % 2)]
    net.tensors = [net.conv(x) for x in inputs]
    for _ in range(length):
        # Late tensors more often, so that the model is deep.
        late = net.tensors[-3:] if net.random.random() < 0.8 else net.tensors
        net.tensors.append(getattr(net, str(net.pick(STEPS)))(net.pick(late)))
    outputs = [net.head(net.tensors[-1])]
    if seed % 3 == 0:
        outputs.append(net.head(net.pick(net.tensors)))
    if len(inputs) == 2:
        outputs[0] = layers.Add()([outputs[0], net.head(net.tensors[1])])
    inputs, outputs = (x if len(x) > 1 else x[0] for x in (inputs, outputs))
    return keras.Model(inputs, outputs, name=f"random_{seed}")
