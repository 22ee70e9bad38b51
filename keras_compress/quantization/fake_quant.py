"""`FakeQuantize`: an activation range that is learned, and rounding to its grid."""

import keras
import tensorflow as tf

# Keeps a range that has been seen for long; the first batches are averaged.
_MOMENTUM = 0.99
# A range is at least this share of what comes before the activation function.
_FLOOR = 1 / 256
# The range of an activation before which there is nothing but zeros.
_NO_FLOOR = 1e-3


@keras.saving.register_keras_serializable(package="keras_compress")
class FakeQuantize(keras.layers.Layer):
    """Round activations to the 256 values that an int8 tensor can hold.

    Training moves the range: the mean of the first batches' extremes, then a moving
    average with momentum 0.99. A range always contains zero and is never narrower than
    1/256 of the values before the activation function, so that an activation that dies
    still makes a file that the int8 kernels take.

    Tensors that an int8 kernel wants on one scale, such as the inputs of Concatenate,
    share one layer: it is called for each with another `site`, and its range holds
    those of all sites.

    Inputs and outputs have any shape; they are rounded in float32 and cast back. The
    gradient is the identity inside the range, 0 outside (Jacob et al. 2018,
    1712.05877).

    Args:
        sites: How many tensors share the range.
        fixed: (minimum, maximum) of a range that never moves, None for a learned one.
        enabled: Whether values are rounded; if not they pass.
        update: Whether training moves the range.
    """

    def __init__(
        self, sites=1, fixed=None, enabled=True, update=True, **kwargs
    ) -> None:
        super().__init__(**kwargs)
        self.sites = sites
        self.fixed = None if fixed is None else tuple(map(float, fixed))
        self.enabled = enabled
        self.update = update
        self.observer = None
        self.supports_masking = True

    def build(self, *shapes) -> None:
        """Make the range's weights; `shapes` do not matter."""
        self.minimum = self._per_site("minimum")
        self.maximum = self._per_site("maximum")
        self.floor = self._per_site("floor")
        self.batches = self._per_site("batches")
        self.built = True

    def _per_site(self, name: str):
        return self.add_weight(
            name=name,
            shape=(self.sites,),
            dtype="float32",
            initializer="zeros",
            trainable=False,
            autocast=False,
            aggregation="mean",
        )

    def call(
        self, inputs, source=None, cap=None, site=0, only_scale=False, training=None
    ):
        """Round `inputs`.

        Args:
            inputs: Activations.
            source: What a ReLU was applied to, if `inputs` is the output of one.
            cap: The most that this ReLU lets through, None for anything.
            site: Which of the tensors that share the range this is.
            only_scale: Whether to return the scale of the int8 tensor, a float32
                scalar, for the bias of the layer that reads it.
            training: Whether the range may move.
        """
        if only_scale:
            return self.scale()
        if self.observer is not None and self.fixed is None:
            self.observer(inputs, inputs if source is None else source, site)
            return inputs
        if training and self.enabled and source is not None and self.sites == 1:
            # A range from zero to at most `cap` does what the ReLU does, whose output
            # is then not computed.
            inputs = source
        if training and self.trainable and self.update and self.fixed is None:
            low, high = extremes(inputs)
            if inputs is source:
                low, high = (
                    keras.ops.clip(end, 0.0, cap or float("inf")) for end in (low, high)
                )
            floor = floor_of((inputs if source is None else source)[:1])
            self._observe(low, high, floor, site)
        if not self.enabled:
            return inputs
        values = keras.ops.cast(inputs, "float32")
        rounded = tf.quantization.fake_quant_with_min_max_vars(values, *self.range())
        return keras.ops.cast(rounded, self.compute_dtype)

    def range(self) -> tuple:
        """(minimum, maximum) in use: with zero inside, and at least the floor wide."""
        if self.fixed is not None:
            return self.fixed
        low = keras.ops.minimum(keras.ops.min(self.minimum), 0.0)
        high = keras.ops.maximum(keras.ops.max(self.maximum), 0.0)
        floor = keras.ops.max(self.floor)
        # All zero, and nothing but zeros before.
        floor = keras.ops.where(floor + high - low > 0, floor, _NO_FLOOR)
        return low, keras.ops.maximum(high, low + floor)

    def scale(self):
        """The distance of two neighbouring values, 0 while nothing is rounded."""
        if not self.enabled or self.observer is not None:
            return keras.ops.zeros(())
        low, high = self.range()
        return keras.ops.convert_to_tensor((high - low) / 255, "float32")

    def set_range(self, site: int, low: float, high: float, floor: float) -> None:
        """A range from calibration; later batches move it slowly."""
        batches = _MOMENTUM / (1 - _MOMENTUM)
        self._assign(site, low, high, floor, batches)

    def _observe(self, low, high, floor, site: int) -> None:
        batches = self.batches[site]
        old = keras.ops.minimum(batches / (batches + 1), _MOMENTUM)
        self._assign(
            site,
            old * self.minimum[site] + (1 - old) * low,
            old * self.maximum[site] + (1 - old) * high,
            keras.ops.maximum(self.floor[site], floor),
            batches + 1,
        )

    def _assign(self, site: int, *values) -> None:
        variables = (self.minimum, self.maximum, self.floor, self.batches)
        for variable, value in zip(variables, values, strict=True):
            if self.sites == 1:
                variable.assign(keras.ops.reshape(value, (1,)))
            else:
                mask = keras.ops.arange(self.sites) == site
                variable.assign(keras.ops.where(mask, value, variable))

    def get_config(self) -> dict:
        """The arguments of `__init__`."""
        own = ("sites", "fixed", "enabled", "update")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}

    def compute_output_shape(self, inputs_shape, source_shape=None):
        """The shape of the inputs."""
        return inputs_shape

    def compute_output_spec(self, inputs, source=None, only_scale=False, **options):
        """A tensor like the inputs, or a scalar."""
        if only_scale:
            return keras.KerasTensor((), "float32")
        return keras.KerasTensor(inputs.shape, self.compute_dtype)


def extremes(values) -> tuple:
    """The lowest and the highest value, in float32."""
    return (
        keras.ops.cast(keras.ops.min(values), "float32"),
        keras.ops.cast(keras.ops.max(values), "float32"),
    )


def floor_of(source):
    """The least width of a range, from what the activation function was applied to."""
    low, high = extremes(source)
    return keras.ops.maximum(-low, high) * _FLOOR
