"""Wrappers of layers that int8 kernels compute as one weight per channel and a bias."""

import keras
import tensorflow as tf

from keras_compress.quantization.grid import bias_on_grid


@keras.saving.register_keras_serializable(package="keras_compress")
class AffineWrapper(keras.layers.Wrapper):
    """A normalization by fixed statistics, Rescaling or LayerScale that stands alone.

    In training it is the layer. In inference it is a 1x1 depthwise convolution with
    bias, which int8 kernels compute without an error of their own: the one weight of a
    channel always lies on its grid, and so does the bias if `input_scale` is given.
    """

    def __init__(self, layer, **kwargs) -> None:
        kwargs.setdefault("dtype", layer.dtype_policy)
        # A scale does not fit in half precision.
        super().__init__(layer, autocast=False, **kwargs)
        self.supports_masking = layer.supports_masking

    def build(self, inputs_shape, input_scale_shape=None) -> None:
        """Build the layer."""
        super().build(inputs_shape)

    def call(
        self, inputs, input_scale=None, training=None, mask=None, inputs_mask=None
    ):
        """The layer's output; `input_scale` is the scale of the int8 inputs."""
        if training and isinstance(self.layer, keras.layers.BatchNormalization):
            mask = inputs_mask if mask is None else mask
            return self.layer(inputs, training=training, mask=mask)
        channels = inputs.shape[-1]
        scale, offset = _AFFINE[type(self.layer).__name__](self.layer, channels)
        if input_scale is not None:
            offset = bias_on_grid(offset, input_scale * keras.ops.abs(scale) / 127)
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

    def compute_output_shape(self, inputs_shape, input_scale_shape=None):
        """The shape of the inputs."""
        return inputs_shape


@keras.saving.register_keras_serializable(package="keras_compress")
class FoldedBatchNormalization(keras.layers.Wrapper):
    """A BatchNormalization that the file folds into the kernel and bias before it.

    In training it is the layer. In inference the bias that comes of it lies on the grid
    of the int32 that it is in the file (Jacob et al. 2018, 1712.05877, section 3.2).
    """

    def __init__(self, layer, **kwargs) -> None:
        kwargs.setdefault("dtype", layer.dtype_policy)
        # A scale does not fit in half precision.
        super().__init__(layer, autocast=False, **kwargs)
        self.supports_masking = layer.supports_masking

    def build(self, inputs_shape, *other_shapes) -> None:
        """Build the layer."""
        super().build(inputs_shape)

    def call(
        self,
        inputs,
        bias,
        bias_scale,
        training=None,
        mask=None,
        inputs_mask=None,
    ):
        """Normalize `inputs`, which have the channels' `bias` in them already.

        Args:
            inputs: Output of a layer with a kernel, channels last.
            bias: The bias of that layer, of shape (channels,).
            bias_scale: Scale of its int32 bias before the folding, of the same shape;
                a bias is not rounded where it is zero.
            training: Whether to normalize by the batch.
            mask: The mask of the inputs.
            inputs_mask: The same; Keras gives it this name.
        """
        if training:
            mask = inputs_mask if mask is None else mask
            return self.layer(inputs, training=training, mask=mask)
        # A bias is up to a million steps: in float32 the last bits, which depend on how
        # TensorFlow has arranged the graph, would decide where it is rounded to.
        scale, offset = _batch_norm(self.layer, inputs.shape[-1], "float64")
        bias, bias_scale = (keras.ops.cast(x, "float64") for x in (bias, bias_scale))
        folded = bias_on_grid(offset + bias * scale, bias_scale * keras.ops.abs(scale))
        scale, offset = (
            keras.ops.cast(x, "float32") for x in (scale, folded - bias * scale)
        )
        outputs = keras.ops.cast(inputs, "float32") * scale + offset
        return keras.ops.cast(outputs, self.compute_dtype)

    def compute_output_shape(
        self, inputs_shape, bias_shape=None, bias_scale_shape=None
    ):
        """The shape of the inputs."""
        return inputs_shape


def _batch_norm(layer, channels: int, dtype: str = "float32") -> tuple:
    def cast(values):
        return keras.ops.cast(values, dtype)

    scale = keras.ops.rsqrt(cast(layer.moving_variance) + layer.epsilon)
    if layer.scale:
        scale = scale * cast(layer.gamma)
    offset = -cast(layer.moving_mean) * scale
    return scale, offset + cast(layer.beta) if layer.center else offset


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
