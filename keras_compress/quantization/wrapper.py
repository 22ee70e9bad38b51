"""Layer wrappers: a layer whose weights lie on the int8 grid."""

import inspect

import keras
import tensorflow as tf

from keras_compress.quantization.grid import on_grid, straight_through

# Kernel of each layer kind: variable name -> the axes that share a scale.
_EINSUM = "einsum"
KERNELS: dict[str, dict[str, object]] = {
    "Dense": {"kernel": (0,)},
    "EinsumDense": {"kernel": _EINSUM},
    "Conv1D": {"kernel": (0, 1)},
    "Conv2D": {"kernel": (0, 1, 2)},
    "DepthwiseConv1D": {"kernel": (0,)},
    "DepthwiseConv2D": {"kernel": (0, 1)},
    # The kernels of transposed convolutions end in (out, in).
    "Conv1DTranspose": {"kernel": (0, 2)},
    "Conv2DTranspose": {"kernel": (0, 1, 3)},
}


def kernel_axes(layer) -> dict[str, tuple[int, ...]]:
    """For each kernel variable of the layer the axes that share a scale."""
    found = dict(KERNELS[type(layer).__name__])
    for name, axes in found.items():
        if axes == _EINSUM:
            inputs, rest = layer.equation.split(",")
            kernel = rest.split("->")[0]
            found[name] = tuple(
                axis for axis, letter in enumerate(kernel) if letter in inputs
            )
    return found


@keras.saving.register_keras_serializable(package="keras_compress")
class QuantizeWrapper(keras.layers.Wrapper):
    """A layer that computes with its kernel on the integer grid.

    The kernel is symmetric, one scale max|w| / (2^(bits-1) - 1) per output channel; the
    gradient passes the rounding as if it were not there. Everything else is the
    layer's own: bias, regularisers, masks, dtype policy, `trainable`.

    Args:
        layer: A Dense, EinsumDense, Conv1D/2D, DepthwiseConv1D/2D or
            Conv1D/2DTranspose layer.
        weight_bits: Width of the integers, 2 to 8.
        enabled: Whether the kernel is rounded.
    """

    def __init__(self, layer, weight_bits=8, enabled=True, **kwargs) -> None:
        # The grid of a layer that computes in half precision is that of its weights.
        kwargs.setdefault("dtype", layer.variable_dtype)
        super().__init__(layer, **kwargs)
        self.weight_bits = weight_bits
        self.enabled = enabled
        self.supports_masking = layer.supports_masking

    def kernels(self) -> list[tuple]:
        """(variable, axes that share a scale) of each kernel of the built layer."""
        axes = kernel_axes(self.layer)
        return [(v, axes[v.name]) for v in self.layer.weights if v.name in axes]

    def call(self, inputs, training=None, mask=None):
        """The layer's output with its kernel on the grid."""
        given = {"training": training, "mask": mask}
        taken = inspect.signature(self.layer.call).parameters
        options = {name: value for name, value in given.items() if name in taken}
        if not self.enabled:
            return self.layer(inputs, **options)
        rounded = [
            (kernel, straight_through(kernel, axes, self.weight_bits))
            for kernel, axes in self.kernels()
        ]
        with keras.StatelessScope(rounded, collect_losses=True) as scope:
            outputs = self.layer(inputs, **options)
        for loss in scope.losses:
            self.add_loss(loss)
        return outputs

    def copy_rounded_kernels(self, target: keras.layers.Layer) -> None:
        """Give a built copy of the layer the kernels that this one computes with."""
        rounded = {
            kernel.name: on_grid(kernel, axes, self.weight_bits)
            for kernel, axes in self.kernels()
        }
        for variable in target.weights:
            if variable.name in rounded:
                variable.assign(rounded[variable.name])

    def compute_output_shape(self, input_shape):
        """The layer's."""
        return self.layer.compute_output_shape(input_shape)

    def get_config(self) -> dict:
        """The arguments of `__init__`."""
        config = super().get_config()
        return {**config, "weight_bits": self.weight_bits, "enabled": self.enabled}


@keras.saving.register_keras_serializable(package="keras_compress")
class AffineWrapper(keras.layers.Wrapper):
    """A normalization by fixed statistics, Rescaling or LayerScale that stands alone.

    In training it is the layer. In inference it is a 1x1 depthwise convolution with
    bias, which int8 kernels compute without an error of their own: the one weight of a
    channel always lies on its grid.
    """

    def __init__(self, layer, **kwargs) -> None:
        kwargs.setdefault("dtype", layer.dtype_policy)
        super().__init__(layer, **kwargs)
        self.supports_masking = layer.supports_masking

    def call(self, inputs, training=None, mask=None):
        """The layer's output."""
        if training and isinstance(self.layer, keras.layers.BatchNormalization):
            return self.layer(inputs, training=training, mask=mask)
        channels = inputs.shape[-1]
        scale, offset = _AFFINE[type(self.layer).__name__](self.layer, channels)
        kernel = keras.ops.reshape(scale, (1, 1, channels, 1))
        kernel = keras.ops.cast(kernel, self.compute_dtype)
        inputs = keras.ops.cast(inputs, self.compute_dtype)
        shape = keras.ops.shape(inputs)
        flat = inputs
        if len(shape) != 4:
            flat = keras.ops.reshape(inputs, (shape[0], 1, -1, channels))
        outputs = tf.nn.depthwise_conv2d(flat, kernel, (1, 1, 1, 1), "VALID")
        outputs = outputs + keras.ops.cast(offset, self.compute_dtype)
        return outputs if len(shape) == 4 else keras.ops.reshape(outputs, shape)

    def compute_output_shape(self, input_shape):
        """The shape of the inputs."""
        return input_shape


def _batch_norm(layer, channels: int) -> tuple:
    scale = keras.ops.rsqrt(layer.moving_variance + layer.epsilon)
    if layer.scale:
        scale = scale * layer.gamma
    offset = -layer.moving_mean * scale
    return scale, offset + layer.beta if layer.center else offset


def _rescaling(layer, channels: int) -> tuple:
    ones = keras.ops.ones((channels,))
    return ones * layer.scale, ones * layer.offset


def _normalization(layer, channels: int) -> tuple:
    ones = keras.ops.ones((channels,))
    mean = keras.ops.reshape(layer.mean, (-1,))
    deviation = keras.ops.sqrt(keras.ops.reshape(layer.variance, (-1,)))
    deviation = keras.ops.maximum(deviation, keras.config.epsilon())
    if layer.invert:
        return ones * deviation, ones * mean
    return ones / deviation, ones * (-mean / deviation)


def _layer_scale(layer, channels: int) -> tuple:
    return layer.gamma, keras.ops.zeros((channels,))


_AFFINE = {
    "BatchNormalization": _batch_norm,
    "Rescaling": _rescaling,
    "Normalization": _normalization,
    "LayerScale": _layer_scale,
}
