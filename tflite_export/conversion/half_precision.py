"""Clone a model that computes in half precision, to compute in float32."""

from tflite_export.keras_call import layers_within

_HALF = ("float16", "bfloat16")


def in_float32(model):
    """The model itself, or a float32 clone of one that computes in half precision.

    Raises:
        ValueError: If such a model cannot be rebuilt from its configuration.
    """
    import keras

    if not any(layer.compute_dtype in _HALF for layer in layers_within(model)):
        return model

    classes = {type(layer).__name__: type(layer) for layer in layers_within(model)}
    policy = keras.config.dtype_policy()
    # The rebuilt models themselves take the global policy, and cast their inputs.
    keras.config.set_dtype_policy("float32")
    try:
        config = _float32_config(keras.saving.serialize_keras_object(model))
        clone = keras.saving.deserialize_keras_object(
            config, custom_objects=classes, safe_mode=False
        )
        clone.set_weights([w.astype("float32") for w in model.get_weights()])
    # A class of the user's own may raise anything here.
    except Exception as error:
        raise ValueError(
            f"Model {model.name!r} computes in half precision and cannot be rebuilt in "
            "float32 from its `get_config()`. Build it under the float32 policy and "
            f"carry the weights over. Received: {type(error).__name__}: {error}"
        ) from error
    finally:
        keras.config.set_dtype_policy(policy)
    return clone


def _float32_config(config):
    if isinstance(config, dict):
        if config.get("class_name") in ("DTypePolicy", "FloatDTypePolicy"):
            return "float32"
        kept = {k: v for k, v in config.items() if k != "compile_config"}
        return {key: _float32_config(value) for key, value in kept.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(_float32_config(value) for value in config)
    return "float32" if config in _HALF else config
