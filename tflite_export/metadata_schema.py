"""Write and read the parts of TFLite's metadata schema that images need.

The tables follow the published `metadata_schema.fbs`: a field's place in its table is
its place here. Fields after the last one used are left out.
"""

import flatbuffers
import numpy as np
from flatbuffers import number_types
from flatbuffers.table import Table

IDENTIFIER = b"M001"
MIN_PARSER_VERSION = "1.0.0"
"""The first version of the schema; every field used here was already in it."""

RGB, GRAYSCALE = 1, 2
TENSOR_AXIS_LABELS = 2
IMAGE_PROPERTIES = 2
NORMALIZATION_OPTIONS = 1

# A field is a str, an int (one byte), [float], a table, [table], or None where the
# schema has one that is not used. A union is (the value of its `_type` field, table).
_FILE = {"name": str, "description": str, "type": int}
_IMAGE = {"color_space": int}
_CONTENT = {
    "content_properties_type": int,
    "content_properties": (IMAGE_PROPERTIES, _IMAGE),
}
_NORMALIZATION = {"mean": [float], "std": [float]}
_PROCESS_UNIT = {
    "options_type": int,
    "options": (NORMALIZATION_OPTIONS, _NORMALIZATION),
}
_TENSOR = {
    "name": str,
    "description": str,
    "dimension_names": None,
    "content": _CONTENT,
    "process_units": [_PROCESS_UNIT],
    "stats": None,
    "associated_files": [_FILE],
}
_SUBGRAPH = {
    "name": str,
    "description": str,
    "input_tensor_metadata": [_TENSOR],
    "output_tensor_metadata": [_TENSOR],
}
_MODEL = {
    "name": str,
    "description": str,
    "version": str,
    "subgraph_metadata": [_SUBGRAPH],
    "author": str,
    "license": str,
    "associated_files": [_FILE],
    "min_parser_version": str,
}


def pack(model: dict) -> bytes:
    """The ModelMetadata flatbuffer of nested dicts; None stands for no value."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(_write_table(builder, _MODEL, model), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def unpack(content: bytes) -> dict:
    """The nested dicts of a ModelMetadata flatbuffer, without the absent fields.

    Raises:
        ValueError: If the identifier is missing; damaged bytes may raise any error.
    """
    if content[4:8] != IDENTIFIER:
        raise ValueError(f"the identifier {IDENTIFIER.decode()} is missing")
    root = flatbuffers.encode.Get(flatbuffers.packer.uoffset, content, 0)
    return _read_table(_MODEL, Table(content, root))


def _write_table(builder, fields: dict, values: dict) -> int:
    given = {name: value for name, value in values.items() if value is not None}
    # What a table points to is written before the table itself.
    places = {
        name: _write_value(builder, fields[name], value)
        for name, value in given.items()
        if fields[name] is not int
    }
    builder.StartObject(len(fields))
    for slot, name in enumerate(fields):
        if name in places:
            builder.PrependUOffsetTRelativeSlot(slot, places[name], 0)
        elif name in given:
            builder.PrependInt8Slot(slot, given[name], 0)
    return builder.EndObject()


def _write_value(builder, kind, value) -> int:
    if kind is str:
        return builder.CreateString(value)
    if kind == [float]:
        return builder.CreateNumpyVector(np.array(value, "<f4"))
    if isinstance(kind, tuple):
        kind = kind[1]
    if isinstance(kind, dict):
        return _write_table(builder, kind, value)
    places = [_write_table(builder, kind[0], item) for item in value]
    builder.StartVector(4, len(places), 4)
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    return builder.EndVector()


def _read_table(fields: dict, table: Table) -> dict:
    values = {}
    for slot, (name, kind) in enumerate(fields.items()):
        offset = table.Offset(4 + 2 * slot)
        if isinstance(kind, tuple):
            # A union of another type than the one known here is not looked into.
            kind = kind[1] if values.get(f"{name}_type") == kind[0] else None
        if offset and kind is not None:
            values[name] = _read_value(kind, table, offset)
    return values


def _read_value(kind, table: Table, offset: int):
    place = table.Pos + offset
    if kind is int:
        return table.Get(number_types.Int8Flags, place)
    if kind is str:
        return table.String(place).decode()
    if isinstance(kind, dict):
        return _read_table(kind, Table(table.Bytes, table.Indirect(place)))
    start, length = table.Vector(offset), table.VectorLen(offset)
    if kind == [float]:
        return np.frombuffer(table.Bytes, "<f4", length, start).tolist()
    items = [table.Indirect(start + 4 * index) for index in range(length)]
    return [_read_table(kind[0], Table(table.Bytes, item)) for item in items]
