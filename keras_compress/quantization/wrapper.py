"""Layer wrappers: a layer whose weights lie on the int8 grid."""

import inspect

import keras

from keras_compress.quantization.grid import (
    bias_on_grid,
    on_grid,
    stored_scale,
    straight_through,
)

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
    gradient passes the rounding as if it were not there. In inference the bias lies on
    the grid of the int32 that it is in the file, if the `input_scale` is given.
    Everything else is the layer's own: regularisers, masks, dtype policy, `trainable`.

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

    def build(self, inputs_shape, input_scale_shape=None) -> None:
        """Build the layer."""
        super().build(inputs_shape)

    def call(
        self,
        inputs,
        input_scale=None,
        folds=False,
        training=None,
        mask=None,
        inputs_mask=None,
    ):
        """The layer's output with its kernel on the grid.

        Args:
            inputs: What the layer is called with.
            input_scale: The scale of the int8 inputs, a scalar.
            folds: Whether a BatchNormalization follows that is computed along. Then
                the result is (output, bias, scale of the int32 bias), the last two
                of shape (channels,), for `FoldedBatchNormalization`.
            training: Whether the bias is left as it is.
            mask: The mask of the inputs.
            inputs_mask: The same; Keras gives it this name if there is `input_scale`.
        """
        scale = None if input_scale is None else self._bias_scale(input_scale)
        rounds_bias = scale is not None and not folds and not training
        outputs = self._outputs(
            inputs,
            scale if rounds_bias else None,
            {"training": training, "mask": inputs_mask if mask is None else mask},
        )
        if not folds:
            return outputs
        bias = getattr(self.layer, "bias", None)
        bias = keras.ops.zeros_like(scale) if bias is None else bias
        return outputs, keras.ops.cast(bias, "float32"), scale

    def _bias_scale(self, input_scale):
        """The scale of the int32 bias of each channel."""
        [(kernel, axes)] = self.kernels()
        scale = stored_scale(kernel, axes, self.weight_bits)
        return input_scale * keras.ops.reshape(scale, (-1,))

    def _outputs(self, inputs, bias_scale, given: dict):
        taken = inspect.signature(self.layer.call).parameters
        options = {name: value for name, value in given.items() if name in taken}
        if not self.enabled:
            return self.layer(inputs, **options)
        rounded = [
            (kernel, straight_through(kernel, axes, self.weight_bits))
            for kernel, axes in self.kernels()
        ]
        bias = getattr(self.layer, "bias", None)
        if bias_scale is not None and bias is not None:
            rounded.append((bias, bias_on_grid(bias, bias_scale)))
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

    def compute_output_shape(self, inputs_shape, input_scale_shape=None):
        """The layer's."""
        return self.layer.compute_output_shape(inputs_shape)

    def compute_output_spec(self, inputs, input_scale=None, folds=False, **options):
        """The layer's; with `folds` also those of its bias and the bias' scale."""
        outputs = self.layer.compute_output_spec(inputs)
        if not folds:
            return outputs
        channels = keras.KerasTensor((outputs.shape[-1],), "float32")
        return outputs, channels, channels

    def get_config(self) -> dict:
        """The arguments of `__init__`."""
        config = super().get_config()
        return {**config, "weight_bits": self.weight_bits, "enabled": self.enabled}
