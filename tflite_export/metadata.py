"""TFLite metadata: what MediaPipe's ImageClassifier must know about a file."""

import contextlib
import io
import os
import uuid
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export import metadata_schema
from tflite_export.flatbuffer import bad_file, parse, read_bytes, shape_of
from tflite_export.metadata_checks import (
    check_fit,
    checked_floats,
    checked_labels,
    image_and_scores,
)
from tflite_export.runtime import load_failure

_ENTRY = b"TFLITE_METADATA"
_LABELS_FILE = "labels.txt"
_TEXTS = ("name", "description", "version", "author", "license")


@dataclass(frozen=True)
class ImageMetadata:
    """What a reader of the file must know to feed it pictures and name its classes.

    The input is normalised as `(pixel - mean) / std`, with pixels from 0 to 255: a
    model that was trained on pixels / 255 has mean 0 and std 255, one that holds its
    own Rescaling layer has mean 0 and std 1.

    Args:
        labels: One name per class, in the order of the model's outputs.
        mean: A number, or one per channel. Single precision, as the file holds it.
        std: Positive, a number or one per channel.
        name: Of the model; this and the following may be left out.
        description: What the model does.
        version: Of the model.
        author: Who made it.
        license: Under which terms it may be used.

    Raises:
        ValueError: If labels repeat, are blank or span lines, or a number is wrong.

    Example:

    ```python
    metadata = tflite_export.ImageMetadata(["cat", "dog"], mean=127.5, std=127.5)
    ```
    """

    labels: Sequence[str]
    mean: float | Sequence[float]
    std: float | Sequence[float]
    name: str | None = None
    description: str | None = None
    version: str | None = None
    author: str | None = None
    license: str | None = None

    def __post_init__(self):
        object.__setattr__(self, "labels", checked_labels(self.labels))
        for field in ("mean", "std"):
            object.__setattr__(self, field, checked_floats(field, getattr(self, field)))
        if min(self.std) <= 0:
            raise ValueError(f"`std` must be positive. Received: std={self.std}")
        # The schema's readers want as many means as deviations.
        numbers = max(len(self.mean), len(self.std))
        for field in ("mean", "std"):
            value = getattr(self, field)
            if len(value) not in (1, numbers):
                raise ValueError(
                    "`mean` and `std` must have one number, or one per channel. "
                    f"Received: mean={self.mean}, std={self.std}"
                )
            if len(value) < numbers:
                object.__setattr__(self, field, value * numbers)
        for field in _TEXTS:
            value = getattr(self, field)
            if value is not None and not isinstance(value, str):
                raise ValueError(f"`{field}` must be a str. Received: {value!r}")


def with_metadata(content: bytes, metadata: ImageMetadata) -> bytes:
    """The `.tflite` file `content` with metadata in it and the labels behind it.

    The labels are a zip archive after the flatbuffer, which LiteRT does not read.
    Older TFLite metadata is replaced; the converter's own entries stay. The same
    arguments give the same bytes.

    Args:
        content: The bytes of a `.tflite` file of one image input and one output of
            class scores, each float32 or uint8, with a fixed batch of 1.
        metadata: An `ImageMetadata` that fits it.

    Returns:
        The bytes of the new file.

    Raises:
        ValueError: If `content` is no such file or the metadata does not fit it.

    Example:

    ```python
    path = pathlib.Path("m.tflite")
    metadata = ImageMetadata(["cat", "dog"], mean=0, std=255)
    path.write_bytes(with_metadata(path.read_bytes(), metadata))
    ```
    """
    return _with_metadata(_checked(content, metadata, "<content>"), metadata)


def check_metadata(content: bytes, metadata: ImageMetadata) -> None:
    """ValueError unless `with_metadata` takes these arguments."""
    _checked(content, metadata, "<content>")


def add_metadata(path, metadata: ImageMetadata) -> None:
    """Put metadata into an existing `.tflite` file; see `with_metadata`.

    The new file is loaded and run once before it takes the old one's place.

    Raises:
        OSError: If the file cannot be read or written.
        ValueError: If it is no such file or the metadata does not fit it.

    Example:

    ```python
    add_metadata("m.tflite", ImageMetadata(["cat", "dog"], mean=0, std=255))
    ```
    """
    model = _checked(read_bytes(path), metadata, path)
    content = _with_metadata(model, metadata)
    target = os.path.realpath(path)
    written = f"{target.removesuffix('.tflite')}.{uuid.uuid4().hex}.tflite"
    try:
        with open(written, "xb") as file:
            file.write(content)
        failure = load_failure(written)
        if failure:
            raise bad_file(path, f"LiteRT cannot run it with metadata ({failure})")
        os.replace(written, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(written)


def read_metadata(path) -> ImageMetadata | None:
    """The image metadata of a `.tflite` file, None if it has no TFLite metadata.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is no `.tflite` file, or has metadata without the labels or
            the normalisation of an image classifier.

    Example:

    ```python
    print(read_metadata("m.tflite").labels)
    ```
    """
    content = read_bytes(path)
    model = parse(content, path)
    entry = _entry(model)
    if entry is None:
        return None
    try:
        found = metadata_schema.unpack(bytes(model.buffers[entry.buffer].data))
        (subgraph,) = found["subgraph_metadata"]
        image = subgraph["input_tensor_metadata"][0]
        scores = subgraph["output_tensor_metadata"][0]
        normalization = _first(
            image["process_units"],
            "options_type",
            metadata_schema.NORMALIZATION_OPTIONS,
        )["options"]
        file = _first(
            scores["associated_files"], "type", metadata_schema.TENSOR_AXIS_LABELS
        )
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            labels = archive.read(file["name"]).decode().splitlines()
        texts = {key: found.get(key) for key in _TEXTS}
        return ImageMetadata(labels, **normalization, **texts)
    # Metadata of other kinds lacks parts; damaged bytes may raise anything.
    except Exception as error:
        reason = f"its metadata is not that of an image classifier ({error!r})"
        raise bad_file(path, reason) from error


class _AlignedBuilder(flatbuffers.Builder):
    """Starts every constant at a multiple of 16 bytes, as LiteRT's schema asks.

    The generated Python writer leaves that out.
    """

    def CreateNumpyVector(self, x):
        if x.dtype == np.uint8:
            self.Prep(16, x.size)
        return super().CreateNumpyVector(x)


def _checked(content: bytes, metadata: ImageMetadata, path):
    if not isinstance(metadata, ImageMetadata):
        raise ValueError(
            f"`metadata` must be an ImageMetadata. Received: {type(metadata).__name__}"
        )
    model = parse(content, path)
    check_fit(model, metadata.labels, metadata.mean, metadata.std)
    return model


def _with_metadata(model, metadata: ImageMetadata) -> bytes:
    packed = metadata_schema.pack(_tables(model, metadata))
    for buffer in model.buffers:
        if buffer.data is not None:
            buffer.data = np.frombuffer(buffer.data, np.uint8)
    entry = _entry(model)
    if entry is None:
        entry = schema.MetadataT(name=_ENTRY, buffer=len(model.buffers))
        model.metadata = [*(model.metadata or []), entry]
        model.buffers.append(schema.BufferT())
    model.buffers[entry.buffer].data = np.frombuffer(packed, np.uint8)
    builder = _AlignedBuilder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    file = io.BytesIO(builder.Output())
    file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file, "w") as archive:
        # A fixed date, system and mode, and no compression: readers map the file.
        entry = zipfile.ZipInfo(_LABELS_FILE, (1980, 1, 1, 0, 0, 0))
        entry.create_system, entry.external_attr = 3, 0o644 << 16
        archive.writestr(entry, "\n".join(metadata.labels))
    return file.getvalue()


def _entry(model):
    """The file's TFLITE_METADATA entry, None if there is none with content."""
    entries = [e for e in model.metadata or [] if e.name == _ENTRY and e.buffer]
    return entries[0] if entries else None


def _tables(model, metadata: ImageMetadata) -> dict:
    image, _ = image_and_scores(model)
    gray = shape_of(image)[-1] == 1
    color = metadata_schema.GRAYSCALE if gray else metadata_schema.RGB
    return {
        **{field: getattr(metadata, field) for field in _TEXTS},
        "min_parser_version": metadata_schema.MIN_PARSER_VERSION,
        "subgraph_metadata": [
            {
                "input_tensor_metadata": [
                    {
                        "name": "image",
                        "content": {
                            "content_properties_type": metadata_schema.IMAGE_PROPERTIES,
                            "content_properties": {"color_space": color},
                        },
                        "process_units": [
                            {
                                "options_type": metadata_schema.NORMALIZATION_OPTIONS,
                                "options": {
                                    "mean": metadata.mean,
                                    "std": metadata.std,
                                },
                            }
                        ],
                    }
                ],
                "output_tensor_metadata": [
                    {
                        "name": "scores",
                        "associated_files": [
                            {
                                "name": _LABELS_FILE,
                                "type": metadata_schema.TENSOR_AXIS_LABELS,
                            }
                        ],
                    }
                ],
            }
        ],
    }


def _first(items: list[dict], key: str, wanted: int) -> dict:
    return next(item for item in items if item.get(key) == wanted)
