"""The files of a teacher cache.

A shard is one HDF5 file: fingerprints, and the arrays of every column in their order.
A cache is a single shard, or a folder of shards with a `cache.json` that names them.
"""

import dataclasses
import json
import os
import pathlib
import shutil
import tempfile
import urllib.parse
from collections.abc import Mapping, Sequence

import h5py
import numpy as np

from keras_compress.distillation.teacher_cache_columns import Column

_FORMAT = "keras_compress.TeacherCache"
_VERSION = 2
_INDEX = "cache.json"
_FILE_SUFFIXES = (".h5", ".hdf5")


@dataclasses.dataclass(frozen=True)
class Header:
    """What a shard says of itself.

    Args:
        teacher_sha256: of the teacher's weights.
        teacher_name: its name, for people.
        columns: what is stored for each example.
        structure: of the outputs: `"one"`, `"list"` or `"dict"`.
    """

    teacher_sha256: str
    teacher_name: str
    columns: tuple[Column, ...]
    structure: str = "one"


@dataclasses.dataclass(frozen=True, eq=False)
class Shard:
    """An open shard: fingerprints in memory, all else as memory maps.

    Args:
        header: what the file says of itself.
        fingerprints: int64, `(n,)`.
        arrays: by column name and array name, each `(n, ...)`.
    """

    header: Header
    fingerprints: np.ndarray
    arrays: Mapping[tuple[str, str], np.ndarray]

    def read(self, column: Column, rows: np.ndarray) -> np.ndarray:
        """float32 values of one column in the given rows."""
        return column.decode(
            {
                name: self.arrays[column.name, name][rows]
                for name in column.array_names()
            }
        )


def is_single_file(path: pathlib.Path) -> bool:
    """Whether a cache at `path` is one file, going by the name; else it is a folder."""
    return path.suffix in _FILE_SUFFIXES


def write_shard(path: pathlib.Path, header: Header, fingerprints, arrays) -> None:
    """Writes a shard beside `path` and moves it there once it is whole."""

    def write(file):
        file.create_dataset("fingerprints", data=fingerprints)
        for (column, name), values in arrays.items():
            file.create_dataset(_dataset_name(column, name), data=values)

    _write_file(path, header, write)


def merge_shards(paths: Sequence[pathlib.Path], path: pathlib.Path) -> None:
    """Writes one shard of many, one after the other through memory."""
    shards = [open_shard(p) for p in paths]
    ends = np.cumsum([len(s.fingerprints) for s in shards])

    def write(file):
        everything = [("fingerprints", [s.fingerprints for s in shards])]
        for key in shards[0].arrays:
            everything.append((_dataset_name(*key), [s.arrays[key] for s in shards]))
        for name, parts in everything:
            shape = (int(ends[-1]), *parts[0].shape[1:])
            dataset = file.create_dataset(name, shape, parts[0].dtype)
            for end, part in zip(ends, parts, strict=True):
                dataset[end - len(part) : end] = part

    _write_file(path, shards[0].header, write)


def write_index(folder: pathlib.Path, shards: Sequence[pathlib.Path]) -> None:
    """Names the shards of a folder, which makes it a whole cache."""
    names = [shard.name for shard in shards]
    index = {"format": _FORMAT, "version": _VERSION, "shards": names}
    (folder / _INDEX).write_text(json.dumps(index, indent=1))


def is_cache_folder(folder: pathlib.Path) -> bool:
    """Whether `folder` is a teacher cache, and so may be replaced by a new one."""
    try:
        return json.loads((folder / _INDEX).read_text())["format"] == _FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        return False


def replace_folder(new: pathlib.Path, path: pathlib.Path) -> None:
    """Moves a new cache folder to `path`, in an old one's place."""
    if path.exists():
        old = pathlib.Path(tempfile.mkdtemp(dir=path.parent, prefix=f"{path.name}.old"))
        path.rename(old / path.name)
        new.rename(path)
        shutil.rmtree(old)
    else:
        new.rename(path)


def open_cache(path: pathlib.Path) -> list[Shard]:
    """The shards of the cache at `path`.

    Raises:
        ValueError: it is not a complete cache.
    """
    try:
        if not path.is_dir():
            return [open_shard(path)]
        index = json.loads((path / _INDEX).read_text())
        found = index.get("format"), index.get("version")
        if found != (_FORMAT, _VERSION):
            raise ValueError(f"expected {(_FORMAT, _VERSION)}, received {found}")
        shards = [open_shard(path / name) for name in index["shards"]]
        if any(shard.header != shards[0].header for shard in shards):
            raise ValueError("its shards are not of one teacher and one kind")
        return shards
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is not a complete teacher cache: {error}. Build it again with "
            "keras_compress.TeacherCache.build."
        ) from error


def open_shard(path: pathlib.Path) -> Shard:
    """Opens one file, of this version or of version 1 (sorted, one plain column)."""
    with h5py.File(path, "r") as file:
        found = file.attrs.get("format"), file.attrs.get("version")
        if found not in ((_FORMAT, 1), (_FORMAT, _VERSION)):
            raise ValueError(f"expected {(_FORMAT, _VERSION)}, received {found}")
        header = _read_header(file)
        fingerprints = file["fingerprints"][()]
        arrays = {}
        for column in header.columns:
            for name in column.array_names():
                stored = file[_dataset_name(column.name, name)]
                if len(stored) != len(fingerprints):
                    raise ValueError(
                        f"{len(fingerprints)} fingerprints for {column.name} of shape "
                        f"{stored.shape}"
                    )
                arrays[column.name, name] = np.memmap(
                    path, stored.dtype, "r", stored.id.get_offset(), stored.shape
                )
    return Shard(header, fingerprints, arrays)


def _read_header(file):
    teacher = file.attrs["teacher_sha256"], file.attrs["teacher_name"]
    if file.attrs["version"] == 1:
        stored = file["outputs"]
        return Header(
            *teacher, (Column("outputs", stored.shape[1:], stored.dtype.name),)
        )
    columns = tuple(
        Column(**{**column, "shape": tuple(column["shape"])})
        for column in json.loads(file.attrs["columns"])
    )
    return Header(*teacher, columns, file.attrs["structure"])


def _write_file(path, header, write):
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, text=False)
    os.close(handle)
    try:
        with h5py.File(temporary, "w") as file:
            file.attrs["format"] = _FORMAT
            file.attrs["version"] = _VERSION
            file.attrs["teacher_sha256"] = header.teacher_sha256
            file.attrs["teacher_name"] = header.teacher_name
            file.attrs["structure"] = header.structure
            columns = [dataclasses.asdict(column) for column in header.columns]
            file.attrs["columns"] = json.dumps(columns)
            write(file)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _dataset_name(column, name):
    """Flat: a slash in a layer's name would make a group of HDF5."""
    quoted = column if column == "outputs" else urllib.parse.quote(column, safe="")
    return quoted if name == "values" else f"{quoted}:{name}"
