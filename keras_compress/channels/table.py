"""How channels flow through an op, in one table keyed by op."""

from collections.abc import Callable

import keras

from keras_compress.channels import sequence_rows, shape_rows, slice_rows, weighted_rows
from keras_compress.channels.flow import Flow
from keras_compress.graph import Graph, Step


def trace(graph: Graph, included: Callable | None = None) -> Flow:
    """The slots of every tensor and weight of a graph.

    Args:
        graph: The graph, its shapes inferred.
        included: Takes a layer and says whether channels that it makes may go.
    """
    flow = Flow(graph, included)
    for ref in graph.inputs:
        flow.give_frozen(ref, "model input")
    for step in graph.steps:
        row = _ROWS.get(step.kind)
        # A user's own class may have the name of one of Keras'.
        of_keras = type(step.operation).__module__.startswith("keras.")
        if row is None or not of_keras or not step.inputs:
            flow.freeze_step(step, f"no row for {step.kind} ({step.operation.name})")
        else:
            row(flow, step)
    outputs = [flow.tensors[ref].slots for ref in graph.flat_outputs]
    # The first reason is the one that is told.
    flow.frozen[:0] = [(slots, "model output") for slots in outputs if len(slots)]
    return flow


def _activation(flow: Flow, step: Step) -> None:
    reason = weighted_rows.mixes_channels(step.operation.activation)
    if reason:
        flow.freeze_step(step, f"{reason} in {step.operation.name}")
    else:
        shape_rows.same(flow, step)


def _softmax(flow: Flow, step: Step) -> None:
    channels = flow.tensors[step.inputs[0]]
    rank = len(flow.shape(step.inputs[0]))
    axes = step.operation.axis
    axes = axes if isinstance(axes, list | tuple) else [axes]
    if channels.axis in [axis % rank - rank for axis in axes]:
        flow.freeze_step(step, f"softmax over channels in {step.operation.name}")
    else:
        shape_rows.same(flow, step)


def _rescaling(flow: Flow, step: Step) -> None:
    layer = step.operation
    if all(isinstance(value, int | float) for value in (layer.scale, layer.offset)):
        shape_rows.same(flow, step)
    else:
        flow.freeze_step(step, f"{layer.name} has a scale for each channel")


def _resizing(flow: Flow, step: Step) -> None:
    if isinstance(step.operation, keras.layers.Layer):
        shape_rows.by_position(flow, step)
    elif step.operation.pad_to_aspect_ratio:
        flow.freeze_step(step, f"{step.operation.name} pads with a constant")
    else:
        shape_rows.by_position(flow, step)


def _rows(row: Callable, names: str) -> dict[str, Callable]:
    return dict.fromkeys(names.split(), row)


_ROWS: dict[str, Callable] = {
    **_rows(weighted_rows.convolution, "Conv1D Conv2D Conv3D"),
    **_rows(
        weighted_rows.transposed, "Conv1DTranspose Conv2DTranspose Conv3DTranspose"
    ),
    **_rows(weighted_rows.depthwise, "DepthwiseConv1D DepthwiseConv2D"),
    **_rows(weighted_rows.separable, "SeparableConv1D SeparableConv2D"),
    "Dense": weighted_rows.dense,
    "Embedding": weighted_rows.embedding,
    **_rows(
        weighted_rows.normalization,
        "BatchNormalization LayerNormalization RMSNormalization",
    ),
    "GroupNormalization": weighted_rows.group_normalization,
    **_rows(sequence_rows.recurrent, "LSTM GRU SimpleRNN Bidirectional"),
    "MultiHeadAttention": sequence_rows.attention,
    "Normalization": sequence_rows.constants,
    "PReLU": weighted_rows.prelu,
    "LayerScale": weighted_rows.layer_scale,
    "Activation": _activation,
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
    "Rescaling": _rescaling,
    **_rows(
        shape_rows.same,
        "ReLU LeakyReLU ELU Identity Dropout SpatialDropout1D SpatialDropout2D "
        "SpatialDropout3D GaussianNoise GaussianDropout AlphaDropout "
        "ActivityRegularization StochasticDepth UnitNormalization "
        # Operations of keras.ops.
        "Relu Relu6 Sigmoid Tanh Silu HardSigmoid HardSilu HardSwish HardTanh Gelu "
        "Elu Selu Celu LeakyRelu Softplus Softsign LogSigmoid Squareplus "
        "Absolute Abs Square Sqrt Rsqrt Exp Expm1 Log Log1p Negative Reciprocal "
        "Sign Sin Cos Erf Floor Ceil Round Clip Cast StopGradient",
    ),
    **_rows(
        shape_rows.elementwise,
        "Add Subtract Multiply Average Maximum Minimum Divide TrueDivide Power "
        "FloorDivide Where Greater GreaterEqual Less LessEqual Equal NotEqual "
        "LogicalAnd LogicalOr LogicalNot "
        # The scaled sum of keras.applications' InceptionResNetV2.
        "CustomScaleLayer",
    ),
    "Concatenate": shape_rows.concatenate,
    **_rows(
        shape_rows.by_position,
        "MaxPooling1D MaxPooling2D MaxPooling3D AveragePooling1D AveragePooling2D "
        "AveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D "
        "GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D "
        "AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveAveragePooling3D "
        "AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D "
        "ZeroPadding1D ZeroPadding2D ZeroPadding3D Cropping1D Cropping2D Cropping3D "
        "UpSampling1D UpSampling2D UpSampling3D MaxPool AveragePool",
    ),
    **_rows(_resizing, "Resizing Resize"),
    **_rows(shape_rows.reduction, "Mean Max Min Sum Var Std Prod Amax Amin"),
    "Flatten": shape_rows.flatten,
    "Reshape": shape_rows.reshape,
    **_rows(shape_rows.transpose, "Permute Transpose Moveaxis"),
    **_rows(shape_rows.new_axis, "ExpandDims Squeeze RepeatVector"),
    **_rows(shape_rows.other_axes, "Flip Repeat Roll Cumsum"),
    "Pad": slice_rows.pad,
    "GetItem": slice_rows.get_item,
    "Split": slice_rows.split,
}
