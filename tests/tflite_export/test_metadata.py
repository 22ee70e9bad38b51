import hashlib
import io
import os
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from flatbuffers import number_types
from flatbuffers.table import Table

import tflite_export
from tflite_export import metadata as metadata_module
from tflite_export.metadata import (
    ImageMetadata,
    add_metadata,
    read_metadata,
    with_metadata,
)

LABELS = ("T-shirt/top", "Trouser", "Füße", "Coat", "a label of several words")
FULL = ImageMetadata(
    LABELS,
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
    name="small",
    description="Tells clothes apart.",
    version="1.2",
    author="A. Author",
    license="Apache-2.0",
)
PLAIN = ImageMetadata(LABELS, mean=0, std=255)


def _read(content):
    return flatbuffer_utils.read_model_from_bytearray(content)


def _metadata_buffer(content) -> bytes:
    model = _read(content)
    (entry,) = [e for e in model.metadata if e.name == b"TFLITE_METADATA"]
    return bytes(model.buffers[entry.buffer].data)


@pytest.mark.parametrize("metadata", [FULL, PLAIN])
def test_what_was_written_is_read_back(metadata, float_file, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(with_metadata(float_file.read_bytes(), metadata))
    assert read_metadata(path) == metadata
    assert read_metadata(float_file) is None


def test_numbers_are_kept_in_single_precision_one_for_each_channel():
    metadata = ImageMetadata(["a"], mean=0.1, std=[1, 2, 3])
    assert metadata.mean == (float(np.float32(0.1)),) * 3
    assert metadata.std == (1.0, 2.0, 3.0)
    assert metadata.labels == ("a",)


def test_the_flatbuffer_has_the_places_of_the_published_schema(float_file):
    content = _metadata_buffer(with_metadata(float_file.read_bytes(), FULL))
    assert content[4:8] == b"M001"

    def at(table, slot):
        return table.Offset(4 + 2 * slot)

    def follow(table, slot):
        return Table(content, table.Indirect(table.Pos + at(table, slot)))

    def only(table, slot):
        assert table.VectorLen(at(table, slot)) == 1
        return Table(content, table.Indirect(table.Vector(at(table, slot))))

    def text(table, slot):
        return table.String(table.Pos + at(table, slot)).decode()

    def byte(table, slot):
        return table.Get(number_types.Int8Flags, table.Pos + at(table, slot))

    root = Table(content, int.from_bytes(content[:4], "little"))
    assert [text(root, slot) for slot in (0, 1, 2, 4, 5, 7)] == [
        "small",
        "Tells clothes apart.",
        "1.2",
        "A. Author",
        "Apache-2.0",
        "1.0.0",
    ]
    graph = only(root, 3)
    image, scores = only(graph, 2), only(graph, 3)
    properties = follow(image, 3)
    assert byte(properties, 0) == 2  # ImageProperties
    assert byte(follow(properties, 1), 0) == 1  # RGB
    unit = only(image, 4)
    assert byte(unit, 0) == 1  # NormalizationOptions
    numbers = follow(unit, 1)
    for slot, expected in ((0, FULL.mean), (1, FULL.std)):
        start, length = (
            numbers.Vector(at(numbers, slot)),
            numbers.VectorLen(at(numbers, slot)),
        )
        assert np.frombuffer(content, "<f4", length, start).tolist() == list(expected)
    labels = only(scores, 6)
    assert text(labels, 0) == "labels.txt"
    assert byte(labels, 2) == 2  # TENSOR_AXIS_LABELS


def test_a_file_of_one_channel_says_it_is_grey(tmp_path):
    inputs = keras.Input((4, 4, 1))
    outputs = keras.layers.Dense(5)(keras.layers.Flatten()(inputs))
    path = tmp_path / "m.tflite"
    tflite_export.export(keras.Model(inputs, outputs), path, quantization="none")
    content = with_metadata(path.read_bytes(), PLAIN)
    tables = metadata_module.metadata_schema.unpack(_metadata_buffer(content))
    image = tables["subgraph_metadata"][0]["input_tensor_metadata"][0]
    assert image["content"]["content_properties"]["color_space"] == 2


def test_the_labels_lie_behind_the_file_in_an_archive(float_file):
    content = with_metadata(float_file.read_bytes(), PLAIN)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (entry,) = archive.infolist()
        assert entry.filename == "labels.txt"
        assert entry.compress_type == zipfile.ZIP_STORED
        assert archive.read(entry).decode() == "\n".join(LABELS)
    assert content[4:8] == b"TFL3"


def test_litert_reads_and_computes_the_same(float_file, int8_file, x, tmp_path):
    path = tmp_path / "m.tflite"
    for file in (float_file, int8_file):
        path.write_bytes(file.read_bytes())
        add_metadata(path, PLAIN)
        expected = tflite_export.predict(file, x)
        np.testing.assert_array_equal(tflite_export.predict(path, x), expected)
        before, after = tflite_export.inspect(file), tflite_export.inspect(path)
        assert after.ops == before.ops
        assert after.tensors == before.tensors
        assert after.bytes == len(path.read_bytes()) > before.bytes


def test_the_converters_own_entries_stay(int8_file):
    def entries(content):
        model = _read(content)
        return {e.name: bytes(model.buffers[e.buffer].data) for e in model.metadata}

    before = entries(int8_file.read_bytes())
    after = entries(with_metadata(int8_file.read_bytes(), PLAIN))
    assert {b"min_runtime_version", b"CONVERSION_METADATA"} <= set(before)
    assert after.pop(b"TFLITE_METADATA")
    assert after == before


def test_every_constant_starts_at_a_multiple_of_16_bytes(int8_file):
    content = with_metadata(int8_file.read_bytes(), PLAIN)
    model = schema.Model.GetRootAs(content, 0)
    buffers = [model.Buffers(index) for index in range(model.BuffersLength())]
    starts = [b._tab.Vector(b._tab.Offset(4)) for b in buffers if b.DataLength()]
    assert len(starts) >= 7
    assert {start % 16 for start in starts} == {0}


def test_the_bytes_are_the_same_in_another_process(int8_file):
    code = (
        "import sys, hashlib\n"
        "from tflite_export.metadata import ImageMetadata, with_metadata\n"
        "content = open(sys.argv[1], 'rb').read()\n"
        "metadata = ImageMetadata(sys.argv[2:], 0, 255)\n"
        "print(hashlib.sha256(with_metadata(content, metadata)).hexdigest())\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(int8_file), *LABELS],
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONUTF8": "1"},
        capture_output=True,
        check=True,
        text=True,
    ).stdout.strip()
    content = with_metadata(int8_file.read_bytes(), PLAIN)
    assert found == hashlib.sha256(content).hexdigest()


def test_older_metadata_is_replaced(float_file):
    content = float_file.read_bytes()
    once = with_metadata(content, PLAIN)
    assert with_metadata(with_metadata(content, FULL), PLAIN) == once
    assert with_metadata(once, PLAIN) == once


def test_add_metadata_that_fails_leaves_the_file(float_file, tmp_path, monkeypatch):
    content = float_file.read_bytes()
    path = tmp_path / "m.tflite"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"5\), 1 labels"):
        add_metadata(path, ImageMetadata(["one"], 0, 255))
    monkeypatch.setattr(metadata_module, "load_failure", lambda path: "no reason")
    with pytest.raises(ValueError, match="no reason"):
        add_metadata(path, PLAIN)
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["m.tflite"]
    with pytest.raises(FileNotFoundError):
        add_metadata(tmp_path / "missing.tflite", PLAIN)


def test_damaged_metadata_is_an_error_or_harmless(float_file, tmp_path):
    content = with_metadata(float_file.read_bytes(), PLAIN)
    packed = _metadata_buffer(content)
    start = content.index(packed)
    path = tmp_path / "m.tflite"
    refused = 0
    for place in range(start, start + len(packed), 5):
        path.write_bytes(content[:place] + b"\xfb" + content[place + 1 :])
        try:
            assert len(read_metadata(path).labels) == 5
        except ValueError as error:
            assert "not that of an image classifier" in str(error)
            refused += 1
    assert refused > 10
    path.write_bytes(content[:-40])
    with pytest.raises(ValueError, match="not that of an image classifier"):
        read_metadata(path)
