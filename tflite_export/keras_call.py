"""Call a Keras model on a flat list of arrays, whatever structure it takes."""

from collections.abc import Sequence


def flat_inputs(model) -> list:
    """The model's input `KerasTensor`s in the order in which `call_flat` takes them."""
    import keras

    # A Sequential that was never called has `inputs` but no `input`.
    if isinstance(model, keras.Sequential):
        return list(model.inputs)
    return keras.tree.flatten(model.input)


def call_flat(model, arrays: Sequence):
    """The model's outputs in inference mode, in the structure the model gives."""
    import keras

    if isinstance(model, keras.Sequential):
        return model(arrays[0], training=False)
    return model(keras.tree.pack_sequence_as(model.input, list(arrays)), training=False)
