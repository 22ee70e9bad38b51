"""Runs a teacher over a dataset and keeps what comes out, shard by shard."""

import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from keras_compress.distillation.fingerprints import fingerprint, weights_sha256
from keras_compress.distillation.taps import Taps, find_layer
from keras_compress.distillation.teacher_cache_columns import DTYPES, columns_for
from keras_compress.distillation.teacher_cache_file import (
    Header,
    is_cache_folder,
    is_single_file,
    merge_shards,
    open_shard,
    replace_folder,
    write_index,
    write_shard,
)

_RECIPE = "recipe.json"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to keep of a teacher: the arguments of `TeacherCache.build`."""

    dtype: str = "float16"
    top_k: int | None = None
    feature_layers: Sequence[str] = ()
    shard_examples: int = 10_000

    def __post_init__(self):
        if self.dtype not in DTYPES:
            raise ValueError(
                f"`dtype` must be one of {DTYPES}. Received: {self.dtype!r}"
            )
        if self.top_k is not None and not self.top_k >= 1:
            raise ValueError(
                f"`top_k` must be at least 1, or None. Received: top_k={self.top_k}"
            )
        if not self.shard_examples >= 1:
            raise ValueError(
                "`shard_examples` must be at least 1. "
                f"Received: shard_examples={self.shard_examples}"
            )
        if isinstance(self.feature_layers, str):
            raise ValueError(
                "`feature_layers` must be a list of names. "
                f"Received: {self.feature_layers!r}"
            )


def build_cache(teacher, dataset, path: pathlib.Path, settings: Settings, verbose):
    """Writes the cache of `teacher` at `path`; see `TeacherCache.build`.

    Finished shards wait in the folder `<path>.partial`, where a build that was broken
    off is taken up again. The cache at `path` changes only once the new one is whole.
    """
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise OSError(
            f"Cannot write {path}: its folder is missing or not writable. "
            "Make the folder or choose another."
        )
    is_other_folder = path.is_dir() and not is_cache_folder(path)
    if is_other_folder or (path.is_file() and not is_single_file(path)):
        raise ValueError(
            f"{path} is there already and is not a folder of a teacher cache. Expected "
            "a name ending in .h5 for one file, or another name for a new folder."
        )
    run = _TeacherRun(teacher, settings)
    partial = path.with_name(f"{path.name}.partial")
    shards = _Shards(partial, run, settings.shard_examples)
    try:
        _run_over(dataset, run, shards, verbose)
        shards.flush()
        if not shards.paths:
            raise ValueError("`dataset` has no examples.")
    finally:
        if not shards.paths:
            shutil.rmtree(partial)
    _finish(shards.paths, partial, path)


def _run_over(dataset, run, shards, verbose):
    size = dataset.cardinality().numpy()
    progress = keras.utils.Progbar(size if size > 0 else None, verbose=verbose)
    for x in dataset:
        fingerprints = fingerprint(x).numpy()
        rows = shards.new_rows(fingerprints)
        if rows.size:
            outputs = run(x)
            shards.add(
                fingerprints[rows], {name: v[rows] for name, v in outputs.items()}
            )
        progress.add(1)


def _finish(paths, partial, path):
    if not is_single_file(path):
        (partial / _RECIPE).unlink()
        write_index(partial, paths)
        replace_folder(partial, path)
        return
    if len(paths) == 1:
        paths[0].replace(path)
    else:
        merge_shards(paths, path)
    shutil.rmtree(partial)


class _TeacherRun:
    """A teacher in inference mode, its outputs and features by column name."""

    def __init__(self, teacher, settings):
        self.settings = settings
        self.structure = "one"
        self.sha256 = weights_sha256(teacher)
        self.name = teacher.name
        self._teacher = teacher
        self._layers = {
            name: find_layer(teacher, name) for name in settings.feature_layers
        }
        self._taps = Taps(self._layers.values())
        self._forward = tf.function(self._outputs_and_features, reduce_retracing=True)

    def __call__(self, x: Any) -> dict[str, np.ndarray]:
        if not self._layers:
            self.structure, named = _named(self._teacher.predict_on_batch(x))
            return named
        self._taps.install()
        try:
            outputs, features = self._forward(x)
        finally:
            self._taps.remove()
        outputs = keras.tree.map_structure(keras.ops.convert_to_numpy, outputs)
        self.structure, named = _named(outputs)
        for layer, values in features.items():
            named[f"features/{layer}"] = keras.ops.convert_to_numpy(values)
        return named

    def _outputs_and_features(self, x):
        self._taps.clear()
        outputs = self._teacher(x, training=False)
        taken = self._taps.take()
        return outputs, {name: taken[id(layer)] for name, layer in self._layers.items()}

    def recipe(self):
        """What a shard of another build must agree with to be taken over."""
        settings = dataclasses.asdict(self.settings)
        settings["feature_layers"] = list(self._layers)
        del settings["shard_examples"]
        return json.dumps({"teacher_sha256": self.sha256, **settings})


class _Shards:
    """The shards of one build in its folder, the last one still in memory."""

    def __init__(self, folder, run, shard_examples):
        self._folder, self._run, self._size = folder, run, shard_examples
        self._columns = self._parts = None
        self._waiting = []
        self._prepare()
        self.paths = sorted(folder.glob("shard-*.h5"))
        found = [_fingerprints_of(path) for path in self.paths]
        self._known = np.sort(np.concatenate([np.zeros(0, "int64"), *found]))
        if self.paths:
            logging.info(
                "Goes on from %d examples of a build broken off: %s",
                len(self._known),
                folder,
            )

    def _prepare(self):
        recipe = self._folder / _RECIPE
        if self._folder.exists() and not recipe.is_file():
            raise ValueError(
                f"{self._folder} is in the way: unfinished teacher caches are kept "
                f"there, but it has no {_RECIPE}. Move it elsewhere."
            )
        if recipe.is_file() and recipe.read_text() != self._run.recipe():
            logging.warning(
                "%s is of another teacher or other settings; it is made anew.",
                self._folder,
            )
            shutil.rmtree(self._folder)
        self._folder.mkdir(exist_ok=True)
        recipe.write_text(self._run.recipe())

    def new_rows(self, fingerprints) -> np.ndarray:
        """The rows of examples that no shard holds, each example once."""
        unique, rows = np.unique(fingerprints, return_index=True)
        known = np.isin(unique, self._known)
        for waiting, _ in self._waiting:
            known |= np.isin(unique, waiting)
        return np.sort(rows[~known])

    def add(self, fingerprints, outputs):
        settings = self._run.settings
        if self._columns is None:
            self._columns = columns_for(outputs, settings.dtype, settings.top_k)
        arrays = {}
        for column in self._columns:
            shape = outputs[column.name].shape[1:]
            if shape != column.shape:
                raise ValueError(
                    "The teacher's outputs must have one shape for all examples. "
                    f"Received: {column.name} of {column.shape} and then of {shape}"
                )
            encoded = column.encode(np.asarray(outputs[column.name], "float32"))
            arrays |= {(column.name, name): v for name, v in encoded.items()}
        self._waiting.append((fingerprints, arrays))
        if sum(len(waiting) for waiting, _ in self._waiting) >= self._size:
            self.flush()

    def flush(self):
        """Writes the examples in memory as a shard."""
        if not self._waiting:
            return
        run = self._run
        header = Header(run.sha256, run.name, self._columns, run.structure)
        fingerprints = np.concatenate([waiting for waiting, _ in self._waiting])
        batches = [arrays for _, arrays in self._waiting]
        arrays = {key: np.concatenate([b[key] for b in batches]) for key in batches[0]}
        path = self._folder / f"shard-{len(self.paths):05d}.h5"
        write_shard(path, header, fingerprints, arrays)
        self.paths.append(path)
        self._known = np.union1d(self._known, fingerprints)
        self._waiting = []


def _fingerprints_of(path):
    try:
        return open_shard(path).fingerprints
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path}, of a build broken off, is damaged: {error}. Delete its folder, "
            "and build again."
        ) from error


def as_batches(dataset: Any, batch_size: int) -> tf.data.Dataset:
    """The student's inputs in batches, from arrays or a batched dataset."""
    if not isinstance(dataset, tf.data.Dataset):
        return tf.data.Dataset.from_tensor_slices(dataset).batch(batch_size)
    if isinstance(dataset.element_spec, tuple):
        return dataset.map(lambda x, *rest: x)
    return dataset


def _named(outputs):
    if isinstance(outputs, dict):
        return "dict", {f"outputs/{key}": v for key, v in outputs.items()}
    if isinstance(outputs, list | tuple):
        return "list", {f"outputs/{i}": v for i, v in enumerate(outputs)}
    return "one", {"outputs": outputs}
