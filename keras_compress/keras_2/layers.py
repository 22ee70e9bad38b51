"""From a Keras 2 layer to the Keras 3 layer that computes the same."""

import inspect
from collections.abc import Mapping, Sequence

import keras
from keras import ops

# Settings of Keras 2 that do not change what a layer computes.
_IGNORED = {
    "batch_input_shape",
    "groups",  # Only of layers that have no groups in Keras 2 either.
    "implementation",
    "input_length",
    "kernel_initializer",
    "key_shape",
    "query_shape",
    "rng_type",
    "trainable",
    "unroll",
    "value_shape",
}
# Those that every Keras 3 layer takes beside its own.
_COMMON = {"name", "trainable", "dtype", "activity_regularizer"}
_RENAMED = {
    "LeakyReLU": ("LeakyReLU", {"alpha": "negative_slope"}),
    "ThresholdedReLU": ("ReLU", {"theta": "threshold"}),
}


@keras.saving.register_keras_serializable(package="keras_compress")
def keras_2_hard_sigmoid(x):
    """Keras 2's `hard_sigmoid`; that of Keras 3 is steeper at its ends.

    Example:
        >>> keras_2_hard_sigmoid(keras.ops.array([-2.5, 0.0, 1.0])).numpy().round(3)
        array([0. , 0.5, 0.7], dtype=float32)
    """
    return ops.clip(0.2 * x + 0.5, 0.0, 1.0)


def convert_layer(old, custom_objects: Mapping, **changed) -> keras.layers.Layer:
    """A new Keras 3 layer with the settings of `old` and, for some, `changed` ones.

    Raises:
        ValueError: Keras 3 has no such layer, or not one of its settings.
    """
    kind = type(old).__name__
    custom = custom_objects.get(old.name, custom_objects.get(kind))
    if isinstance(custom, keras.layers.Layer):
        return custom
    if custom is None and (not _is_stock(old) or kind == "Lambda"):
        raise unknown(old)
    try:
        config = _translated(old.get_config() | changed)
        config["name"] = valid_name(old)
        if custom is None:
            custom, config = _counterpart(kind, config)
        return custom.from_config(config)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"Layer {old.name!r} of type {kind} does not move to Keras 3: {error}. "
            "Pass `custom_objects` with a Keras 3 class for its type, or a Keras 3 "
            "layer for its name."
        ) from error


def carry_weights(old, new: keras.layers.Layer, values: Sequence) -> None:
    """Gives `new`, which is built, the weights that `old` computes with."""
    shapes = [tuple(value.shape) for value in values]
    expected = [tuple(weight.shape) for weight in new.weights]
    if shapes != expected:
        raise ValueError(
            f"The weights of layer {old.name!r} do not fit {type(new).__name__} of "
            f"Keras 3. Expected the shapes {expected}. Received: {shapes}. Pass "
            "`custom_objects` with a Keras 3 layer that has the same weights."
        )
    new.set_weights(values)
    if isinstance(new, keras.layers.Normalization):
        new.finalize_state()


def valid_name(old) -> str:
    """The layer's name as Keras 3 takes it."""
    return old.name.replace("/", "_")


def unknown(old, key: str | None = None) -> ValueError:
    """The error for a layer that has no counterpart."""
    key = key or type(old).__name__
    return ValueError(
        f"Layer {old.name!r} has no counterpart in Keras 3. Received: {key}. Pass "
        f"`custom_objects={{{key!r}: ...}}` with what stands for it in Keras 3, or "
        f"{old.name!r} as its key for this layer alone."
    )


def _is_stock(old) -> bool:
    kind = type(old).__name__
    ours = type(old).__module__.split(".")[0] == "tf_keras"
    return ours and hasattr(keras.layers, _RENAMED.get(kind, (kind,))[0])


def _counterpart(kind: str, config: Mapping) -> tuple[type, dict]:
    """The class of Keras 3, and what of `config` it knows."""
    kind, renamed = _RENAMED.get(kind, (kind, {}))
    found = getattr(keras.layers, kind)
    known = set(inspect.signature(found.__init__).parameters)
    if "kwargs" in known:
        known |= _COMMON
    if kind == "BatchNormalization" and isinstance(config["axis"], list):
        config = config | {"axis": config["axis"][0]}
    kept, lost = {}, {}
    for key, value in config.items():
        key = renamed.get(key, key)
        if key in known:
            kept[key] = value
        elif key not in _IGNORED and value is not None and value is not False:
            lost[key] = value
    if lost:
        raise ValueError(f"Keras 3 does not know its {lost}")
    return found, kept


def _translated(value):
    """A config of Keras 2, with all that is nested in it, as Keras 3 writes it."""
    if isinstance(value, list):
        return [_translated(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    kind = value.get("class_name")
    if kind == "Policy":
        return value["config"]["name"]
    config = {key: _translated(item) for key, item in value.items()}
    for key, item in config.items():
        if key.endswith("activation") and item == "hard_sigmoid":
            config[key] = keras.saving.serialize_keras_object(keras_2_hard_sigmoid)
    if value.get("module", "keras.layers") == "keras.layers" and (
        kind in _RENAMED or hasattr(keras.layers, str(kind))
    ):
        found, inner = _counterpart(kind, config["config"])
        return {
            "module": "keras.layers",
            "class_name": found.__name__,
            "config": inner,
            "registered_name": None,
        }
    return config
