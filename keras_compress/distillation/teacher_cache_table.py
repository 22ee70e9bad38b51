"""All shards of a teacher cache as one table, whose rows are found by fingerprint."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_compress.distillation.teacher_cache_file import open_cache

_FEATURES = "features/"


class CacheTable:
    """The columns of an open cache.

    Args:
        path: of a whole cache, a file or a folder.

    Raises:
        ValueError: it is not a complete cache.
    """

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._shards = open_cache(path)
        self.header = self._shards[0].header
        self.columns = {column.name: column for column in self.header.columns}
        fingerprints = np.concatenate([s.fingerprints for s in self._shards])
        self._rows = np.argsort(fingerprints, kind="stable")
        self._fingerprints = fingerprints[self._rows]
        self._starts = np.cumsum([0, *(len(s.fingerprints) for s in self._shards)])

    def __len__(self) -> int:
        return len(self._fingerprints)

    @property
    def output_names(self) -> list[str]:
        """The columns of the teacher's outputs."""
        return [name for name in self.columns if not name.startswith(_FEATURES)]

    @property
    def feature_names(self) -> list[str]:
        """The columns of the teacher's features."""
        return [name for name in self.columns if name.startswith(_FEATURES)]

    def shapes(self, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """Shapes of one example."""
        return {name: self.columns[name].shape for name in names}

    def structured(self, by_name: Mapping[str, Any]) -> Any:
        """One value for each output, as the teacher returns its outputs."""
        values = [by_name[name] for name in self.output_names]
        if self.header.structure == "one":
            return values[0]
        if self.header.structure == "list":
            return values
        keys = [name.removeprefix("outputs/") for name in self.output_names]
        return dict(zip(keys, values, strict=True))

    def ends_in(self) -> list[str]:
        """For each output, in flat order, "softmax" or "unknown"."""
        kinds = {
            name: "softmax" if self.columns[name].is_probabilities else "unknown"
            for name in self.output_names
        }
        return keras.tree.flatten(self.structured(kinds))

    def find(
        self, fingerprints: np.ndarray, names: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """float32 values `(n, ...)` of the named columns for `n` fingerprints.

        Raises:
            ValueError: one of them is not in the cache.
        """
        rows = self._find_rows(fingerprints)
        shard_of_row = np.searchsorted(self._starts, rows, side="right") - 1
        values = {
            name: np.empty((len(rows), *shape), "float32")
            for name, shape in self.shapes(names).items()
        }
        for i in np.unique(shard_of_row):
            here = shard_of_row == i
            for name in names:
                values[name][here] = self._shards[i].read(
                    self.columns[name], rows[here] - self._starts[i]
                )
        return values

    def _find_rows(self, wanted):
        places = np.searchsorted(self._fingerprints, wanted)
        places = np.minimum(places, len(self._fingerprints) - 1)
        unknown = self._fingerprints[places] != wanted
        if unknown.any():
            raise ValueError(
                f"{self._path} holds no teacher output for {int(unknown.sum())} of "
                f"{len(wanted)} examples. It knows only the exact inputs it was built "
                "from: augmentation, other preprocessing and other data make new ones. "
                "Build the cache from the data the student trains on, attach its "
                "outputs before augmentation (`cache.attach(dataset)`), or pass the "
                "teacher itself to Distillation."
            )
        return self._rows[places]


def by_layer(features: Mapping[str, Any]) -> dict[str, Any]:
    """The same by the name of the teacher's layer."""
    return {name.removeprefix(_FEATURES): v for name, v in features.items()}
