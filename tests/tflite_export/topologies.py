"""Small nets, one for each way in which layers are put together.

A row of `QUICK` and `SLOW` says what holds for a net's int8 file beyond the common
bounds, one of `REFUSED` what the error names. A refusal that becomes support fails a
test, and so does support that becomes a refusal.
"""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers, ops

INPUTS = {
    "image": lambda random, count: random.normal(size=(count, 8, 8, 3)),
    "pixels": lambda random, count: random.integers(0, 256, (count, 8, 8, 3)),
    "series": lambda random, count: random.normal(size=(count, 6, 4)),
    "state": lambda random, count: random.normal(size=(count, 6)),
    "vector": lambda random, count: random.normal(size=(count, 12)),
    "volume": lambda random, count: random.normal(size=(count, 4, 4, 4, 2)),
    "words": lambda random, count: random.integers(0, 20, (count, 6)).astype("int32"),
}
# Mean and spread of the weights that Keras starts at zeros or ones.
WEIGHTS = {
    "alpha": (0.25, 0.1),
    "beta": (0, 0.5),
    "bias": (0, 0.3),
    "gamma": (1, 0.2),
    "moving_mean": (0, 0.5),
    "moving_variance": (1, 0.2),
}
# LiteRT's set of reference kernels lacks the version of TILE that is written.
TILE = {
    "reference": "reference kernels cannot run it",
    "micro": "does not have the op TILE",
}


@dataclass(frozen=True)
class Topology:
    """A net, as a function of its inputs, and what holds for its file.

    Distances are in output steps: `keras_steps` from the Keras model, `kernel_steps` of
    one set of kernels from another. Kernels differ in how they round a sum; an op after
    it that is steep, or has smaller steps, makes more of that. `micro` and `reference`
    are what is said where tflite-micro or the reference kernels lack an op or a type.
    """

    net: Callable
    inputs: tuple[str, ...] = ("image",)
    keras_steps: float = 4
    kernel_steps: int = 2
    micro: str = ""
    reference: str = ""


def chain(x, *stack):
    for layer in stack:
        x = layer(x)
    return x


def conv(units=4, **options):
    return layers.Conv2D(units, 3, padding="same", **options)


def norm():
    return layers.BatchNormalization()


def gap(**options):
    return layers.GlobalAveragePooling2D(**options)


def residual(x):
    x = conv()(x)
    return layers.ReLU()(layers.Add()([x, norm()(conv(use_bias=False)(x))]))


def pre_activation(x):
    x = conv()(x)
    return layers.Add()([x, chain(x, norm(), layers.ReLU(), conv())])


def squeeze_and_excite(x):
    x = conv(8, activation="relu")(x)
    scale = chain(x, gap(keepdims=True), layers.Conv2D(2, 1, activation="relu"))
    return layers.Multiply()([x, layers.Conv2D(8, 1, activation="sigmoid")(scale)])


def nested(x):
    image = keras.Input((8, 8, 4))
    block = keras.Model(image, chain(image, conv(), norm(), layers.ReLU()))
    return chain(x, conv(), block, block, gap())


def two_inputs(x):
    image, vector = chain(x[0], conv(), gap()), layers.Dense(6, activation="relu")(x[1])
    return layers.Dense(4)(layers.Concatenate()([image, vector]))


def three_outputs(x):
    x = conv(activation="relu")(x)
    pooled = gap()(x)
    return [
        layers.Dense(3, activation="softmax", name="label")(pooled),
        layers.Dense(4, name="box")(pooled),
        conv(2, activation="sigmoid", name="mask")(x),
    ]


def attention(x):
    query, key, value = (layers.Dense(4)(x) for _ in range(3))
    weights = layers.Softmax()(layers.Dot((2, 2))([query, key]))
    return layers.Dot((2, 1))([weights, value])


def split(x):
    first, second = ops.split(conv(8)(x), 2, axis=-1)
    return layers.Concatenate()([conv()(first), second])


def head(activation):
    return lambda x: chain(
        x, conv(), layers.Flatten(), layers.Dense(6), layers.Activation(activation)
    )


def of_series(build):
    """A recurrent layer over the first input, the others being its state."""
    return lambda x: layers.Dense(3)(
        build(6, unroll=True)(x[0], initial_state=x[1:])
        if isinstance(x, list)
        else build(6, unroll=True)(x)
    )


def of_two(build):
    return lambda x: build()([conv()(x), conv()(x)])


def then(build, *args, **options):
    return lambda x: chain(x, conv(), build(*args, **options))


QUICK = {
    "conv_bn_relu": Topology(
        lambda x: chain(x, conv(8, use_bias=False), norm(), layers.ReLU())
    ),
    "depthwise": Topology(
        lambda x: chain(x, layers.DepthwiseConv2D(3), norm(), layers.ReLU(6.0))
    ),
    # The second convolution and the sum pass on the rounding of the first.
    "residual": Topology(residual, keras_steps=6, kernel_steps=4),
    "concat": Topology(of_two(layers.Concatenate)),
    "squeeze_and_excite": Topology(squeeze_and_excite),
    "transposed": Topology(then(layers.Conv2DTranspose, 5, 3, 2)),
    "separable": Topology(lambda x: layers.SeparableConv2D(8, 3, activation="relu")(x)),
    "gap_dense": Topology(lambda x: chain(x, conv(8), gap(), layers.Dense(5))),
    "conv1d": Topology(
        lambda x: chain(x, layers.Conv1D(8, 3), norm(), layers.ReLU()), ("series",)
    ),
    "two_inputs": Topology(two_inputs, ("image", "vector")),
    "three_outputs": Topology(three_outputs),
    "nested": Topology(nested),
    "rescaling": Topology(
        lambda x: conv(8)(layers.Rescaling(1 / 127.5, -1)(x)), ("pixels",)
    ),
    # A step of the layer before is up to six of softmax's.
    "softmax": Topology(head("softmax"), keras_steps=5, kernel_steps=5),
}
SLOW = {
    "average_pool": Topology(then(layers.AveragePooling2D, 2)),
    "batch_norm_alone": Topology(lambda x: chain(x, norm(), layers.ReLU(), conv())),
    "bilinear": Topology(then(layers.UpSampling2D, 2, interpolation="bilinear")),
    "cropping": Topology(then(layers.Cropping2D, 1)),
    "dilated": Topology(lambda x: conv(8, dilation_rate=2, activation="relu")(x)),
    # The products of queries and keys go through a softmax.
    "dot_attention": Topology(attention, ("series",), keras_steps=6, kernel_steps=5),
    "einsum_dense": Topology(
        lambda x: layers.EinsumDense("abc,cd->abd", (None, 8), bias_axes="d")(x),
        ("series",),
    ),
    # Keras makes negative indices positive by LESS, ADD and SELECT.
    "embedding": Topology(
        lambda x: layers.GlobalAveragePooling1D()(layers.Embedding(20, 8)(x)),
        ("words",),
        micro="does not have the op SELECT",
    ),
    "gelu": Topology(head("gelu"), micro="does not have the op GELU"),
    "grouped": Topology(then(layers.Conv2D, 8, 3, groups=2)),
    # The rounding of six time steps adds up.
    "gru": Topology(of_series(layers.GRU), ("series",), keras_steps=6),
    "hard_swish": Topology(head("hard_swish")),
    "leaky_relu": Topology(head("leaky_relu")),
    "lstm": Topology(of_series(layers.LSTM), ("series",), keras_steps=6),
    "lstm_with_state": Topology(
        of_series(layers.LSTM), ("series", "state", "state"), keras_steps=6
    ),
    "max_pool": Topology(then(layers.MaxPooling2D, 2)),
    "mlp": Topology(
        lambda x: chain(x, layers.Dense(16), norm(), layers.ReLU(), layers.Dense(4)),
        ("vector",),
    ),
    "multi_head_attention": Topology(
        lambda x: layers.MultiHeadAttention(2, 3)(x, x), ("series",)
    ),
    "nearest": Topology(then(layers.UpSampling2D, 2), **TILE),
    "permute": Topology(
        lambda x: chain(x, conv(), layers.Permute((3, 1, 2)), layers.Reshape((4, 64)))
    ),
    "pre_activation": Topology(pre_activation),
    "prelu": Topology(then(layers.PReLU, shared_axes=(1, 2))),
    "relu6": Topology(head("relu6")),
    "resizing_nearest": Topology(
        then(layers.Resizing, 12, 12, interpolation="nearest")
    ),
    "sigmoid": Topology(head("sigmoid")),
    # 8 bits hold the exponentials badly: most of them are small, a few large.
    "softplus": Topology(
        head("softplus"), keras_steps=10, kernel_steps=10, micro=r"exp\.cc.*INT8"
    ),
    "split": Topology(split),
    "swish": Topology(head("swish"), keras_steps=5),
    # A step of the layer before is up to four of tanh's.
    "tanh": Topology(head("tanh"), keras_steps=8, kernel_steps=5),
    "zero_padding": Topology(then(layers.ZeroPadding2D, 1)),
}
FLOAT = "would compute in float in places.*Received: "
UNROLL = "build them with `unroll=True`.*Received: "
# The layers before a pool that is concatenated get the range of the pooled values.
POOLS = Topology(
    lambda x: layers.Concatenate()(
        [layers.AveragePooling2D(8)(conv()(x)), layers.AveragePooling2D(8)(conv()(x))]
    )
)
# The first cells have no state to forget, so one output of their SPLIT is not used.
TWO_WAYS = Topology(
    lambda x: layers.Bidirectional(layers.LSTM(4, unroll=True))(x), ("series",)
)
SUM = Topology(lambda x: ops.sum(conv()(x), (1, 2)))
REFUSED = {
    "conv3d": (
        Topology(lambda x: layers.Conv3D(4, 2)(x), ("volume",)),
        rf"{FLOAT}CONV_3D \(conv3d",
    ),
    "elu": (Topology(head("elu")), rf"{FLOAT}ELU \(activation"),
    "group_norm": (
        Topology(then(layers.GroupNormalization, 2)),
        rf"{FLOAT}.*SQUARE \(group_normalization",
    ),
    "layer_norm": (
        Topology(then(layers.LayerNormalization)),
        rf"{FLOAT}NEG \(layer_normalization",
    ),
    "unit_norm": (
        Topology(then(layers.UnitNormalization)),
        rf"{FLOAT}SQUARE \(unit_normalization",
    ),
    "rolled_lstm": (
        Topology(lambda x: layers.LSTM(6)(x), ("series",)),
        rf"{UNROLL}lstm.* \(LSTM\)",
    ),
    "rolled_gru": (
        Topology(lambda x: layers.GRU(6)(x), ("series",)),
        rf"{UNROLL}gru.* \(GRU\)",
    ),
    "conv_lstm": (
        Topology(lambda x: layers.ConvLSTM2D(3, 2)(x), ("volume",)),
        rf"{UNROLL}conv_lstm2d.* \(ConvLSTM2D\)",
    ),
}


def built(topology):
    """The model with weights that do something, and examples."""
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    arrays = [INPUTS[kind](random, 64) for kind in topology.inputs]
    arrays = [a if a.dtype == "int32" else a.astype("float32") for a in arrays]
    tensors = [
        keras.Input(a.shape[1:], dtype=str(a.dtype), name=f"in{place}")
        for place, a in enumerate(arrays)
    ]
    single = len(arrays) == 1
    x = tensors[0] if single else tensors
    model = keras.Model(x, topology.net(x))
    for weight in model.weights:
        if weight.name in WEIGHTS:
            mean, spread = WEIGHTS[weight.name]
            noise = random.normal(size=weight.shape).clip(-2, 2)
            weight.assign(mean + spread * noise)
    return model, arrays[0] if single else arrays
