import keras
import numpy as np

import tflite_export


def _profile(inputs, outputs, path, **options):
    model = keras.Model(inputs, outputs)
    tflite_export.export(model, path, quantization="none", **options)
    return tflite_export.inspect(path)


def test_the_peak_is_where_input_and_output_of_an_op_are_largest(tmp_path):
    image = keras.Input((8, 8, 3))
    wide = keras.layers.Conv2D(10, 3)(image)  # 6 x 6 x 10
    narrow = keras.layers.Conv2D(2, 3)(wide)  # 4 x 4 x 2
    profile = _profile(image, narrow, tmp_path / "m.tflite")
    # The second convolution holds 360 + 32 numbers, the first 192 + 360.
    assert profile.peak_activation_bytes == 4 * (8 * 8 * 3 + 6 * 6 * 10)


def test_a_tensor_lives_to_its_last_use(tmp_path):
    image = keras.Input((8, 8, 4))
    first = keras.layers.Conv2D(4, 3, padding="same")(image)
    second = keras.layers.Conv2D(4, 3, padding="same")(first)
    third = keras.layers.Conv2D(4, 3, padding="same")(second)
    profile = _profile(image, first + third, tmp_path / "m.tflite")
    # At the third convolution `first`, `second` and `third`, 256 numbers each.
    assert profile.peak_activation_bytes == 4 * 3 * 256


def test_an_output_lives_to_the_end(tmp_path):
    image = keras.Input((8, 8, 4))
    early = keras.layers.Conv2D(6, 3, padding="same", name="early")(image)
    small = keras.layers.Conv2D(1, 8, name="small")(image)
    late = keras.layers.Conv2D(5, 1, name="late")(small)
    profile = _profile(image, [early, late], tmp_path / "m.tflite")
    at_small = 4 * (8 * 8 * 4 + 8 * 8 * 6 + 1)
    assert profile.peak_activation_bytes == at_small


def test_int8_tensors_take_a_byte_a_number(tmp_path):
    """tflite-micro plans 8192 bytes for this file."""
    image = keras.Input((16, 16, 3))
    first = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    second = keras.layers.Conv2D(8, 3, padding="same")(first)
    joined = keras.layers.Concatenate()([keras.layers.Add()([first, second]), first])
    last = keras.layers.Conv2D(4, 1)(joined)
    scores = keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(last))
    path = tmp_path / "m.tflite"
    tflite_export.export(
        keras.Model(image, scores),
        path,
        representative_data=np.random.default_rng(0).normal(size=(20, 16, 16, 3)),
        input_dtype="int8",
        output_dtype="int8",
    )
    # The concatenation holds its two inputs and its output.
    assert tflite_export.inspect(path).peak_activation_bytes == 16 * 16 * (8 + 8 + 16)
