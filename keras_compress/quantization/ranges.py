"""What happens to the range of an op's output, in one table keyed by op."""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np

from keras_compress.graph import Step


@dataclass(frozen=True)
class Rule:
    """How an op is quantised.

    `treatment` is one of
    - "linear": its kernel goes to the int8 grid; its output gets a range, after a
      BatchNormalization and a ReLU that follow it alone;
    - "affine": computed as a depthwise convolution unless a linear op before takes it;
    - "relu": joins the op before, or else gets a range;
    - "add": its output gets a range, after a ReLU that follows it alone;
    - "new": its output gets a range;
    - "shared": its inputs and its output have one range together;
    - "same": its output keeps its input's range and values;
    - "rounded": its output is rounded to its input's range;
    - "fixed": the int8 kernels fix its output's `range`;
    - "float": LiteRT computes it in float, for the `reason`.
    """

    treatment: str
    reason: str = ""
    range: tuple[float, float] | None = None


LINEAR, AFFINE, RELU = Rule("linear"), Rule("affine"), Rule("relu")
ADD, NEW, SAME, SHARED = Rule("add"), Rule("new"), Rule("same"), Rule("shared")
ROUNDED = Rule("rounded")
PROBABILITY = Rule("fixed", range=(0.0, 255 / 256))
TANH = Rule("fixed", range=(-1.0, 127 / 128))


def rule_of(step: Step) -> Rule:
    """The rule of the step's operation; "float" for one that no table knows."""
    found = _RULES.get(step.kind)
    if found is None:
        return Rule("float", f"no rule for {step.kind}")
    if found is SHARED and len(step.inputs) == 1:
        # The other operand is a number, which the file has on the same grid.
        return ROUNDED
    return found if isinstance(found, Rule) else found(step.operation)


def is_of_keras(layer) -> bool:
    """Whether the layer's class is Keras' own, not a user's of the same name."""
    return type(layer).__module__.startswith("keras.")


def _layer_scale(layer) -> Rule:
    return AFFINE if is_of_keras(layer) else _float("no rule for LayerScale")


def _float(reason: str) -> Rule:
    return Rule("float", reason)


def _activation(operation) -> Rule:
    name = keras.activations.serialize(operation.activation)
    found = _FUNCTIONS.get(name if isinstance(name, str) else "")
    return found or _float(f"no int8 form of activation {name!r}")


def _relu(layer) -> Rule:
    """A ReLU of another `max_value` was split, unless it has one of the others too."""
    capped = layer.max_value not in (None, 6)
    if layer.negative_slope:
        several = layer.threshold or layer.max_value is not None
        return _float("LiteRT has no op for such a ReLU") if several else NEW
    if layer.threshold:
        return _float("LiteRT has no op for such a ReLU") if capped else NEW
    return _float("its max_value is not above zero") if capped else RELU


def _last_axis(rule: Rule) -> Callable[..., Rule]:
    def check(layer) -> Rule:
        axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
        rank = len(layer.input.shape)
        if [axis % rank for axis in axes] == [rank - 1]:
            return rule
        return _float(f"its axis is {layer.axis}, not the last")

    return check


def _channels_last(rule: Rule) -> Callable[..., Rule]:
    def check(layer) -> Rule:
        if layer.data_format == "channels_last":
            return rule
        return _float("its data format is channels_first")

    return check


def _rescaling(layer) -> Rule:
    """A product or a sum alone is one op; both need a depthwise convolution."""
    no_sum, no_product = not np.any(layer.offset), np.all(np.equal(layer.scale, 1))
    if no_sum and no_product:
        return SAME
    return ADD if no_sum or no_product else AFFINE


def _upsampling(layer) -> Rule:
    return SAME if layer.interpolation == "nearest" else ROUNDED


_NO_KERNEL = _float("LiteRT has no int8 kernel for it")
_NORM = _float("LiteRT has no int8 form of this normalization")
_RECURRENT = _float("recurrent layers keep their state in float")

_FUNCTIONS: dict[str, Rule] = {
    "linear": SAME,
    "relu": RELU,
    "relu6": RELU,
    "sigmoid": PROBABILITY,
    "softmax": PROBABILITY,
    "tanh": TANH,
    "exponential": NEW,
    "hard_silu": NEW,
    "leaky_relu": NEW,
    "gelu": NEW,
}


def _table(rule, names: str) -> dict[str, object]:
    return dict.fromkeys(names.split(), rule)


_RULES: dict[str, Rule | Callable[..., Rule]] = {
    **_table(
        _channels_last(LINEAR),
        "Conv1D Conv2D DepthwiseConv1D DepthwiseConv2D Conv1DTranspose Conv2DTranspose",
    ),
    **_table(LINEAR, "Dense EinsumDense"),
    "BatchNormalization": _last_axis(AFFINE),
    "Normalization": _last_axis(AFFINE),
    "Rescaling": _rescaling,
    "LayerScale": _layer_scale,
    "ReLU": _relu,
    "Activation": _activation,
    **_table(RELU, "Relu Relu6"),
    **_table(PROBABILITY, "Sigmoid Softmax"),
    **_table(TANH, "Tanh"),
    **_table(NEW, "LeakyReLU LeakyRelu PReLU HardSwish HardSilu Gelu"),
    **_table(ADD, "Add"),
    **_table(NEW, "Subtract Multiply Divide TrueDivide Dot Matmul Einsum Embedding"),
    **_table(NEW, "Absolute Exp"),
    **_table(SHARED, "Concatenate Stack Maximum Minimum"),
    **_table(NEW, "GlobalAveragePooling1D GlobalAveragePooling2D Mean Sum"),
    **_table(ROUNDED, "AveragePooling1D AveragePooling2D AveragePool Resizing"),
    **_table(
        SAME,
        "MaxPooling1D MaxPooling2D GlobalMaxPooling1D GlobalMaxPooling2D "
        "Flatten Reshape Permute RepeatVector "
        "ZeroPadding1D ZeroPadding2D Cropping1D Cropping2D UpSampling1D Identity "
        "Dropout SpatialDropout1D SpatialDropout2D GaussianNoise GaussianDropout "
        "AlphaDropout ActivityRegularization Masking InputLayer "
        # Operations of keras.ops.
        "GetItem Transpose Swapaxes Moveaxis Squeeze ExpandDims Split Pad Tile Repeat "
        "StopGradient Max Min MaxPool",
    ),
    "UpSampling2D": _upsampling,
    **_table(_NO_KERNEL, "Conv3D Conv3DTranspose MaxPooling3D AveragePooling3D ELU"),
    **_table(
        _NORM,
        "LayerNormalization GroupNormalization UnitNormalization RMSNormalization",
    ),
    **_table(_RECURRENT, "LSTM GRU SimpleRNN RNN ConvLSTM1D ConvLSTM2D Bidirectional"),
    **_table(_float("its inside cannot be reached"), "TimeDistributed Lambda"),
    **_table(_float("it has masks, scores or more axes"), "MultiHeadAttention"),
}
