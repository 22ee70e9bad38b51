"""Take layers that hold several ops apart, so that each op gets its own range."""

from collections.abc import Callable

import keras

from keras_compress.graph import Graph, Ref, Step
from keras_compress.quantization.attention import attention
from keras_compress.quantization.ranges import is_of_keras


class _Splitter:
    """Writes a graph's steps anew; the parts of a shared layer are made once."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.steps: list[Step] = []
        self._parts: dict[tuple, keras.Operation] = {}

    def part(self, layer, role: str, make: Callable[[], keras.Operation]):
        """The part of the layer for a role, such as "activation"."""
        key = (id(layer), role)
        if key not in self._parts:
            self._parts[key] = make()
        return self._parts[key]

    def add(self, step: Step, operation, args, outputs=None, weights=()) -> Ref:
        """Append a part of the step; `outputs` None for a new tensor of its shape."""
        if outputs is None:
            outputs = (self.graph.new_ref(self.graph.tensors[step.outputs[0]]),)
        part = Step(operation, args, {}, outputs, step.prefix, weights)
        self.steps.append(part)
        return outputs[0]


def split(graph: Graph) -> Graph:
    """The same graph with these layers in parts; other steps are untouched.

    A Conv, Dense or depthwise layer with an activation becomes a linear layer and the
    activation; a SeparableConv a depthwise and a pointwise convolution; Average and the
    scaled sum of InceptionResNetV2 a sum and a product; silu, hard sigmoid and a ReLU
    with a `max_value` other than 6 what they are made of.
    """
    splitter = _Splitter(graph)
    for step in graph.steps:
        rewrite = _SPLITS.get(step.kind, lambda splitter, step: False)
        if rewrite(splitter, step):
            # What it weighs is the output of the whole layer.
            regularizer = getattr(step.operation, "activity_regularizer", None)
            splitter.steps[-1].operation.activity_regularizer = regularizer
        else:
            splitter.steps.append(step)
    graph.steps = splitter.steps
    return graph


def _linear(splitter: _Splitter, step: Step) -> bool:
    layer = step.operation
    if keras.activations.serialize(layer.activation) == "linear":
        return False
    linear = splitter.part(layer, "linear", lambda: _without_activation(layer))
    middle = splitter.add(step, linear, step.args, weights=tuple(layer.variables))
    _activate(splitter, step, layer, middle)
    return True


def _without_activation(layer) -> keras.layers.Layer:
    plain = {"activation": "linear", "activity_regularizer": None}
    return type(layer).from_config(layer.get_config() | plain)


def _activate(splitter: _Splitter, step: Step, layer, middle: Ref) -> None:
    """Append the layer's activation, itself in parts if there is a rule for it."""
    activation = splitter.part(
        layer,
        "activation",
        lambda: keras.layers.Activation(
            layer.activation,
            dtype=layer.dtype_policy,
            name=f"{layer.name}_activation",
        ),
    )
    whole = Step(activation, (middle,), {}, step.outputs, step.prefix, ())
    if not _activation(splitter, whole):
        splitter.steps.append(whole)


def _separable(splitter: _Splitter, step: Step) -> bool:
    layer = step.operation
    config = layer.get_config()
    shared = {k: config[k] for k in ("data_format", "dtype", "trainable")}
    rank = "1D" if step.kind.endswith("1D") else "2D"
    depthwise = splitter.part(
        layer,
        "depthwise",
        lambda: getattr(keras.layers, f"DepthwiseConv{rank}")(
            **shared,
            name=f"{layer.name}_depthwise",
            use_bias=False,
            depthwise_initializer=config["depthwise_initializer"],
            depthwise_regularizer=config["depthwise_regularizer"],
            depthwise_constraint=config["depthwise_constraint"],
            **{
                key: config[key]
                for key in (
                    "kernel_size",
                    "strides",
                    "padding",
                    "depth_multiplier",
                    "dilation_rate",
                )
            },
        ),
    )
    pointwise = splitter.part(
        layer,
        "pointwise",
        lambda: getattr(keras.layers, f"Conv{rank}")(
            **shared,
            name=layer.name,
            filters=config["filters"],
            kernel_size=1,
            use_bias=config["use_bias"],
            bias_initializer=config["bias_initializer"],
            bias_regularizer=config["bias_regularizer"],
            bias_constraint=config["bias_constraint"],
            kernel_initializer=config["pointwise_initializer"],
            kernel_regularizer=config["pointwise_regularizer"],
            kernel_constraint=config["pointwise_constraint"],
        ),
    )
    kernel, *rest = layer.variables
    middle = splitter.add(step, depthwise, step.args, weights=(kernel,))
    if keras.activations.serialize(layer.activation) == "linear":
        splitter.add(step, pointwise, (middle,), step.outputs, tuple(rest))
        return True
    middle = splitter.add(step, pointwise, (middle,), weights=tuple(rest))
    _activate(splitter, step, layer, middle)
    return True


def _activation(splitter: _Splitter, step: Step) -> bool:
    name = keras.activations.serialize(step.operation.activation)
    rewrite = _ACTIVATIONS.get(name if isinstance(name, str) else "")
    if rewrite is None:
        return False
    rewrite(splitter, step)
    return True


def _silu(splitter: _Splitter, step: Step) -> None:
    """x * sigmoid(x)."""
    layer, [x] = step.operation, step.inputs
    name, dtype = layer.name, getattr(layer, "dtype_policy", None)
    sigmoid = splitter.part(
        layer,
        "sigmoid",
        lambda: keras.layers.Activation("sigmoid", dtype=dtype, name=f"{name}_sigmoid"),
    )
    product = splitter.part(
        layer, "product", lambda: keras.layers.Multiply(dtype=dtype, name=name)
    )
    gate = splitter.add(step, sigmoid, (x,))
    splitter.add(step, product, ([x, gate],), step.outputs)


def _hard_sigmoid(splitter: _Splitter, step: Step) -> None:
    """relu6(x + 3) / 6."""
    layer, [x] = step.operation, step.inputs
    name, dtype = layer.name, getattr(layer, "dtype_policy", None)
    shift = splitter.part(
        layer,
        "shift",
        lambda: keras.layers.Rescaling(1.0, 3.0, dtype=dtype, name=f"{name}_shift"),
    )
    relu6 = splitter.part(
        layer,
        "relu6",
        lambda: keras.layers.ReLU(6.0, dtype=dtype, name=f"{name}_relu6"),
    )
    share = splitter.part(
        layer, "share", lambda: keras.layers.Rescaling(1 / 6, dtype=dtype, name=name)
    )
    shifted = splitter.add(step, shift, (x,))
    clipped = splitter.add(step, relu6, (shifted,))
    splitter.add(step, share, (clipped,), step.outputs)


def _capped_relu(splitter: _Splitter, step: Step) -> bool:
    """min(max(x, 0), cap) as relu6(6 / cap * x) * cap / 6: LiteRT caps at 6 alone."""
    layer = step.operation
    cap, name, dtype = layer.max_value, layer.name, layer.dtype_policy
    if cap in (None, 6) or cap <= 0 or layer.negative_slope or layer.threshold:
        return False
    stretch = splitter.part(
        layer,
        "stretch",
        lambda: keras.layers.Rescaling(6 / cap, dtype=dtype, name=f"{name}_stretch"),
    )
    relu6 = splitter.part(
        layer,
        "relu6",
        lambda: keras.layers.ReLU(6.0, dtype=dtype, name=f"{name}_relu6"),
    )
    shrink = splitter.part(
        layer,
        "shrink",
        lambda: keras.layers.Rescaling(cap / 6, dtype=dtype, name=name),
    )
    middle = splitter.add(step, stretch, step.args)
    middle = splitter.add(step, relu6, (middle,))
    splitter.add(step, shrink, (middle,), step.outputs)
    return True


def _maximum(splitter: _Splitter, step: Step) -> bool:
    """max(x, 0), which the converter knows to be a ReLU."""
    numbers = [item for item in step.args if isinstance(item, (int, float))]
    dtypes = [splitter.graph.tensors[ref].dtype for ref in step.inputs]
    if len(dtypes) != 1 or "float" not in dtypes[0] or numbers != [0]:
        return False
    layer = step.operation
    relu = splitter.part(layer, "relu", lambda: keras.layers.ReLU(name=layer.name))
    splitter.add(step, relu, step.inputs, step.outputs)
    return True


def _average(splitter: _Splitter, step: Step) -> bool:
    layer = step.operation
    name, dtype = layer.name, layer.dtype_policy
    count = len(step.inputs)
    total = splitter.part(
        layer, "sum", lambda: keras.layers.Add(dtype=dtype, name=f"{name}_sum")
    )
    share = splitter.part(
        layer,
        "share",
        lambda: keras.layers.Rescaling(1 / count, dtype=dtype, name=name),
    )
    middle = splitter.add(step, total, step.args)
    splitter.add(step, share, (middle,), step.outputs)
    return True


def _scaled_sum(splitter: _Splitter, step: Step) -> bool:
    """x + scale * y, which keras.applications.InceptionResNetV2 has as one layer."""
    layer = step.operation
    if not is_of_keras(layer):
        return False
    name, dtype = layer.name, layer.dtype_policy
    product = splitter.part(
        layer,
        "product",
        lambda: keras.layers.Rescaling(
            layer.scale, dtype=dtype, name=f"{name}_product"
        ),
    )
    total = splitter.part(
        layer, "sum", lambda: keras.layers.Add(dtype=dtype, name=name)
    )
    x, y = step.inputs
    scaled = splitter.add(step, product, (y,))
    splitter.add(step, total, ([x, scaled],), step.outputs)
    return True


def _always(rewrite: Callable) -> Callable[..., bool]:
    def rewritten(splitter: _Splitter, step: Step) -> bool:
        rewrite(splitter, step)
        return True

    return rewritten


_ACTIVATIONS = {"silu": _silu, "swish": _silu, "hard_sigmoid": _hard_sigmoid}
_SPLITS: dict[str, Callable[..., bool]] = {
    **dict.fromkeys(
        (
            "Dense",
            "EinsumDense",
            "Conv1D",
            "Conv2D",
            "DepthwiseConv1D",
            "DepthwiseConv2D",
            "Conv1DTranspose",
            "Conv2DTranspose",
        ),
        _linear,
    ),
    "SeparableConv1D": _separable,
    "SeparableConv2D": _separable,
    "Activation": _activation,
    "Silu": _always(_silu),
    "HardSigmoid": _always(_hard_sigmoid),
    "ReLU": _capped_relu,
    "Maximum": _maximum,
    "Average": _average,
    "CustomScaleLayer": _scaled_sum,
    "MultiHeadAttention": attention,
}
