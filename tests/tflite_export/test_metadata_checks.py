import keras
import numpy as np
import pytest

import tflite_export
from tflite_export.metadata import ImageMetadata, check_metadata, with_metadata

LABELS = ("a", "b", "c", "d", "e")
PLAIN = ImageMetadata(LABELS, mean=0, std=255)
COLOURS = ImageMetadata(LABELS, mean=(124, 116, 104), std=(58, 57, 57))


@pytest.fixture(scope="module")
def pictures():
    """Pixels / 255, with an all black and an all white picture among them."""
    images = np.random.default_rng(0).uniform(size=(50, 8, 8, 3)).astype("float32")
    images[0], images[1] = 0, 1
    return images


@pytest.fixture(scope="module")
def uint8_file(model, pictures, tmp_path_factory):
    path = tmp_path_factory.mktemp("uint8") / "m.tflite"
    tflite_export.export(
        model,
        path,
        representative_data=pictures,
        input_dtype="uint8",
        output_dtype="uint8",
    )
    return path


def _float_content(folder, shape, *, output=(), classes=5, **options) -> bytes:
    inputs = keras.Input(shape, name="image")
    scores = keras.layers.Dense(classes)(keras.layers.Flatten()(inputs))
    outputs = keras.layers.Reshape(output)(scores) if output else scores
    model = keras.Model(inputs, outputs)
    path = folder / "m.tflite"
    tflite_export.export(model, path, quantization="none", **options)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("mean", "std"), [(0, 1), (127.5, 127.5), (3, 255), ((0, 0, 30), 255)]
)
def test_a_uint8_input_must_stand_for_the_raw_pixels(mean, std, uint8_file):
    content = uint8_file.read_bytes()
    check_metadata(content, PLAIN)
    check_metadata(content, ImageMetadata(LABELS, mean=0.5, std=255))
    with pytest.raises(ValueError, match="raw pixels to a uint8 input"):
        check_metadata(content, ImageMetadata(LABELS, mean=mean, std=std))


def test_int8_inputs_and_outputs_are_refused(model, pictures, tmp_path):
    for end in ("input", "output"):
        path = tmp_path / "m.tflite"
        options = {f"{end}_dtype": "int8"}
        tflite_export.export(model, path, representative_data=pictures, **options)
        with pytest.raises(ValueError, match=f'{end}_dtype="float32" or "uint8"'):
            with_metadata(path.read_bytes(), PLAIN)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((4, 4, 2), {}, r"1 or 3 channels.*\(1, 4, 4, 2\)"),
        ((4, 4), {}, r"channels last.*\(1, 4, 4\)"),
        ((4, 4, 3), {"batch_size": 2}, r"batch_size=1.*\(2, 4, 4, 3\)"),
        ((4, 4, 3), {"classes": 4}, r"\(1, 4\), 5 labels"),
        ((4, 4, 3), {"output": (1, 1, 5)}, r"\(1, 1, 1, 5\), 5 labels"),
        ((4, 4, 1), {}, "or 1, one per channel"),
    ],
)
def test_files_that_are_no_such_classifier_are_refused(
    shape, options, message, tmp_path
):
    with pytest.raises(ValueError, match=message):
        with_metadata(_float_content(tmp_path, shape, **options), COLOURS)


def test_files_with_two_inputs_are_refused(two_inputs, tmp_path):
    path = tmp_path / "m.tflite"
    tflite_export.export(two_inputs, path, quantization="none")
    with pytest.raises(ValueError, match="2 inputs and 1 outputs"):
        with_metadata(path.read_bytes(), PLAIN)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("abc", 0, 1), "sequence of str"),
        (([], 0, 1), "sequence of str"),
        (([1, 2], 0, 1), "sequence of str"),
        ((["a", ""], 0, 1), "not blank.*index 1"),
        ((["a", " "], 0, 1), "not blank"),
        ((["a", "b\nc"], 0, 1), "one line"),
        ((["a", "b\u2028"], 0, 1), "one line"),
        ((["a", "b", "a"], 0, 1), "repeat.*'a'"),
        ((["a"], "x", 1), "`mean` must be a finite"),
        ((["a"], float("nan"), 1), "`mean` must be a finite"),
        ((["a"], [], 1), "`mean` must be a finite"),
        ((["a"], 0, [[1]]), "`std` must be a finite"),
        ((["a"], 0, 0), "positive"),
        ((["a"], 0, (1, -1, 1)), "positive"),
        ((["a"], (1, 2), (1, 2, 3)), "one per channel"),
        ((["a"], 0, 1, 5), "`name` must be a str"),
    ],
)
def test_wrong_metadata_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ImageMetadata(*arguments)


def test_other_objects_are_refused(float_file):
    with pytest.raises(ValueError, match=r"must be an ImageMetadata.*dict"):
        with_metadata(float_file.read_bytes(), {"labels": LABELS})
    for content in (b"", b"hello world", float_file.read_bytes()[:500]):
        with pytest.raises(ValueError, match="valid"):
            with_metadata(content, PLAIN)
