"""The door to Keras 2 and TFMOT: `from_tfmot` moves their models to Keras 3.

The only file that imports tensorflow_model_optimization and tf_keras, and it does so
inside the functions that need them.
"""

import copy
import os
import warnings
from collections.abc import Mapping
from types import ModuleType

import keras
import tensorflow as tf
from keras import ops

from keras_compress.keras_2.graph import Rebuild, Step
from keras_compress.keras_2.layers import valid_name

_ENVIRONMENT = "TF_USE_LEGACY_KERAS"


def import_tfmot() -> ModuleType:
    """Imports tensorflow_model_optimization and leaves `tf.keras` what it is.

    A plain import sets the environment variable TF_USE_LEGACY_KERAS, which child
    processes inherit, and may turn `tf.keras` into Keras 2 for the whole process.

    Returns:
        The package, for what `from_tfmot` starts from: loading a model that TFMOT
        wrapped, or its schedules.

    Raises:
        ImportError: it, or the tf_keras that it needs, is not installed.

    Example:
        >>> tfmot = import_tfmot()
        >>> schedule = tfmot.sparsity.keras.ConstantSparsity(0.5, begin_step=0)
        >>> tf.keras.__version__ == keras.__version__
        True
    """
    before = os.environ.get(_ENVIRONMENT)
    try:
        # TensorFlow settles which Keras `tf.keras` is when it is first asked.
        _ = tf.keras.layers
        with warnings.catch_warnings():
            # It asks distutils for versions, which is deprecated.
            warnings.simplefilter("ignore", DeprecationWarning)
            import tensorflow_model_optimization as tfmot
    except ImportError as error:
        raise _not_installed(error) from error
    finally:
        if before is None:
            os.environ.pop(_ENVIRONMENT, None)
        else:
            os.environ[_ENVIRONMENT] = before
    return tfmot


def from_tfmot(model, custom_objects: Mapping | None = None) -> keras.Model:
    """A Keras 3 model with the outputs of a Keras 2 (tf_keras) model.

    The wrappers of TFMOT are resolved. Pruned kernels keep their zeros, clustered ones
    their centroids. The kernels of a quantization-aware model are rounded as TFMOT
    rounds them, and a `StoredRange` layer holds every activation range, so that
    `tflite_export.export` needs no representative data.

    Optimizer and compile settings are not carried over. `model` does not change.

    Args:
        model: a built Sequential or Functional `tf_keras.Model`.
        custom_objects: what stands for layers that Keras 3 does not have. The key is
            the name of a class or of one layer, the value a Keras 3 class (its
            `from_config` gets the config of Keras 2) or layer; or the key is the name
            of a TensorFlow function in the graph ("tf.math.cumsum"), the value a
            function of Keras tensors.

    Returns:
        A `keras.Sequential` for a Sequential, else a Functional `keras.Model`. Layers
        keep their names, in which "/" becomes "_".

    Raises:
        ValueError: `model` is not such a model, or a layer has no counterpart.
        ImportError: tf_keras is not installed.

    Example:
        >>> import tf_keras
        >>> old = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,))])
        >>> from_tfmot(old).output_shape
        (None, 2)
    """
    try:
        import tf_keras
    except ImportError as error:
        raise _not_installed(error) from error
    if not isinstance(model, tf_keras.Model):
        raise ValueError(
            "`model` must be a model of Keras 2 (tf_keras). Received: "
            f"{model!r} of {type(model).__module__}. A Keras 3 model needs no move."
        )
    custom_objects = dict(custom_objects or {})
    with keras.saving.custom_object_scope(custom_objects):
        return Rebuild(custom_objects, _resolved).model(model)


def _not_installed(error: ImportError) -> ImportError:
    return ImportError(
        "Models of Keras 2 and TFMOT need tensorflow_model_optimization and tf_keras, "
        "and setuptools from Python 3.12 on. Run `pip install "
        f"tensorflow-model-optimization tf_keras setuptools`. Received: {error}"
    )


@keras.saving.register_keras_serializable(package="keras_compress")
class StoredRange(keras.layers.Layer):
    """Rounds to a grid of 2**num_bits values between two stored ends.

    Args:
        num_bits: 2 to 16.
        narrow_range: leave out the lowest value, so that the grid is symmetric.

    Example:
        >>> layer = StoredRange(num_bits=2)
        >>> layer.build((None, 4))
        >>> layer.set_weights([keras.ops.array(end) for end in (0.0, 3.0)])
        >>> layer(keras.ops.array([-1.0, 0.6, 1.4, 9.0])).numpy().tolist()
        [0.0, 1.0, 1.0, 3.0]
    """

    def __init__(self, num_bits: int = 8, narrow_range: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.num_bits = num_bits
        self.narrow_range = narrow_range
        self.supports_masking = True

    def build(self, input_shape):
        self.minimum = self._add_end("minimum", -6.0)
        self.maximum = self._add_end("maximum", 6.0)

    def call(self, inputs):
        return tf.quantization.fake_quant_with_min_max_vars(
            inputs,
            ops.convert_to_tensor(self.minimum),
            ops.convert_to_tensor(self.maximum),
            num_bits=self.num_bits,
            narrow_range=self.narrow_range,
        )

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        config = {"num_bits": self.num_bits, "narrow_range": self.narrow_range}
        return super().get_config() | config

    def _add_end(self, name, value):
        initializer = keras.initializers.Constant(value)
        return self.add_weight((), initializer, name=name, trainable=False)


def _resolved(rebuild: Rebuild, layer) -> list[Step] | None:
    if type(layer).__module__.split(".")[0] != "tensorflow_model_optimization":
        return None
    for kind in type(layer).__mro__:
        if kind.__name__ in _WRAPPERS:
            return _WRAPPERS[kind.__name__](rebuild, layer)
    return None


def _pruned(rebuild, wrapper) -> list[Step]:
    """What a training step computes with: the weights under their masks."""
    masked = {id(w): (w * mask).numpy() for w, mask, _ in wrapper.pruning_vars}
    weights = [masked.get(id(w), w.numpy()) for w in wrapper.layer.weights]
    return [Step(rebuild.layer(wrapper.layer), weights)]


def _clustered(rebuild, wrapper) -> list[Step]:
    """Weights at their nearest centroids; each call of the wrapper looks them up."""
    weights = list(wrapper.layer.get_weights())
    for position, name in sorted(wrapper.position_original_weights.items()):
        original = wrapper.original_clusterable_weights[name]
        algorithm = wrapper.clustering_algorithms[name]
        if wrapper.preserve_sparsity:
            # As its call does: zeros stay, and the centroid next to zero becomes zero.
            original = original * wrapper.sparsity_masks[name]
            algorithm = copy.copy(algorithm)
            centroids = algorithm.cluster_centroids
            zero = tf.one_hot(wrapper.zero_idx[name], centroids.shape[-1])
            algorithm.cluster_centroids = centroids * (1 - zero)
        nearest = algorithm.get_pulling_indices(original)
        found = algorithm.get_clustered_weight(nearest, original)
        weights.insert(position, found.numpy())
    return [Step(rebuild.layer(wrapper.layer), weights)]


def _quantized(rebuild, wrapper) -> list[Step]:
    """The layer with rounded weights, its activation, and their ranges.

    Checked on TFMOT 0.8.1, whose wrapper keeps its quantizers in these attributes.
    """
    old = wrapper.layer
    rounded = {
        id(weight): quantizer(weight, training=False, weights=variables)
        for weight, quantizer, variables in wrapper._weight_vars
    }
    weights = [
        rounded.get(id(weight), weight).numpy() for weight in _own_weights(wrapper)
    ]
    name, steps = valid_name(old), []
    if not wrapper._quantize_activations:
        steps.append(Step(rebuild.layer(old), weights))
    for quantized in wrapper._quantize_activations[:1]:
        steps += _activated(rebuild, old, weights, quantized)
    if wrapper._output_quantizers:
        [quantizer] = wrapper._output_quantizers
        steps.append(_range(quantizer, wrapper._output_quantizer_vars, name, "output"))
    return steps


def _own_weights(wrapper) -> list[tf.Variable]:
    """Those of the layer inside, without what its quantizers added."""
    holders = [variables for *_, variables in wrapper._weight_vars]
    holders += map(vars, wrapper._quantize_activations)
    holders += [vars(wrapper).get("_output_quantizer_vars")]
    added = {id(item) for item in tf.nest.flatten([holders, wrapper.optimizer_step])}
    # A layer frozen after TFMOT wrapped it lists some of its weights twice.
    distinct = {id(weight): weight for weight in wrapper.weights}
    return [weight for key, weight in distinct.items() if key not in added]


def _activated(rebuild, old, weights, quantized) -> list[Step]:
    """The activation stays in its layer unless a range comes before it."""
    name, quantizer = valid_name(old), quantized.quantizer
    # TFMOT has an object for an activation that it moved to another layer.
    activation = getattr(quantized.activation, "__name__", "linear")
    before = getattr(quantized, "_pre_activation_vars", None)
    after = getattr(quantized, "_post_activation_vars", None)
    fused = "linear" if before else activation
    steps = [Step(rebuild.layer(old, activation=fused), weights)]
    if before:
        steps.append(_range(quantizer, before, name, "pre_activation"))
        named = f"{name}_{activation}"
        steps.append(Step(keras.layers.Activation(activation, name=named)))
    if after:
        steps.append(_range(quantizer, after, name, "post_activation"))
    return steps


def _quantized_input(rebuild, layer) -> list[Step]:
    return [_range(layer.quantizer, layer.quantizer_vars, valid_name(layer), "range")]


def _range(quantizer, variables: Mapping, layer_name: str, suffix: str) -> Step:
    """A `StoredRange` with the range that TFMOT stored."""
    layer = StoredRange(
        quantizer.num_bits, quantizer.narrow_range, name=f"{layer_name}_{suffix}"
    )
    return Step(layer, [variables[key].numpy() for key in ("min_var", "max_var")])


_WRAPPERS = {
    "ClusterWeights": _clustered,
    "PruneLowMagnitude": _pruned,
    "QuantizeLayer": _quantized_input,
    "QuantizeWrapper": _quantized,
}
