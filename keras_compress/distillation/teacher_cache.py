"""Teacher outputs, computed once and kept on disk."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_compress.distillation.fingerprints import fingerprint, weights_sha256
from keras_compress.distillation.teacher_cache_attach import (
    attach_column,
    attached_to_step,
    column_name,
)
from keras_compress.distillation.teacher_cache_build import (
    Settings,
    as_batches,
    build_cache,
)
from keras_compress.distillation.teacher_cache_table import CacheTable, by_layer


class TeacherCache:
    """A teacher's outputs for a dataset, on disk, usable as a `teacher`.

    Outputs are found again by a 64-bit fingerprint of each example, so the order of
    the examples does not matter. An example that the cache never saw (augmented, or
    preprocessed differently) is an error; `attach` carries the outputs of plain
    examples through augmentation. 16 bytes per example are held in memory; outputs are
    read through memory maps, a batch at a time.

    Args:
        path: the file or folder that `TeacherCache.build` wrote.
        teacher: if given, the model whose outputs these must be.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: it is not a complete cache, or belongs to other weights than
            `teacher` has.

    Example:

    >>> import os, tempfile, keras, numpy as np
    >>> import keras_compress as kc
    >>> teacher = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> x = np.arange(32, dtype="float32").reshape(8, 4)
    >>> path = os.path.join(tempfile.mkdtemp(), "teacher.h5")
    >>> cache = kc.TeacherCache.build(teacher, x, path, verbose=0)
    >>> len(cache), cache.output_shape
    (8, (3,))
    """

    def __init__(self, path: str | os.PathLike, teacher: "keras.Model | None" = None):
        self.path = pathlib.Path(path)
        if not self.path.exists():
            raise FileNotFoundError(
                f"No teacher cache at {self.path}. Make one with "
                "keras_compress.TeacherCache.build(teacher, dataset, path)."
            )
        self._table = CacheTable(self.path)
        self.teacher_sha256 = self._table.header.teacher_sha256
        self._column_name = column_name(self.teacher_sha256)
        self._is_attached, self._unknown = False, None
        if teacher is not None and weights_sha256(teacher) != self.teacher_sha256:
            raise ValueError(
                f"{self.path} is stale: it holds outputs of a teacher whose weights "
                f"have SHA-256 {self.teacher_sha256}, but the weights of "
                f"{teacher.name!r} have {weights_sha256(teacher)}. Build the cache "
                "again with this teacher."
            )

    def __len__(self) -> int:
        return len(self._table)

    @property
    def output_shape(self) -> Any:
        """Shape of the outputs of one example; a list or dict for several outputs."""
        return self._table.structured(self._table.shapes(self._table.output_names))

    @property
    def name(self) -> str:
        """The name of the teacher."""
        return self._table.header.teacher_name

    @property
    def ends_in(self) -> list[str]:
        """For each output, in flat order, "softmax" or "unknown".

        "softmax" where the first outputs stored were probabilities.
        """
        return self._table.ends_in()

    @property
    def feature_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one example's features, by the name of the teacher's layer."""
        return by_layer(self._table.shapes(self._table.feature_names))

    @classmethod
    def build(
        cls,
        teacher: keras.Model,
        dataset: Any,
        path: str | os.PathLike,
        *,
        dtype: str = "float16",
        top_k: int | None = None,
        feature_layers: Sequence[str] = (),
        batch_size: int = 256,
        shard_examples: int = 10_000,
        verbose: int = 1,
    ) -> "TeacherCache":
        """Runs the teacher over a dataset once and writes its outputs to `path`.

        Every `shard_examples` examples a shard is finished in the folder
        `<path>.partial`. A build that was broken off goes on from there when it is
        called again: examples of finished shards do not pass the teacher a second time.
        Examples of that build stay, also those that `dataset` no longer has.

        Args:
            teacher: a built model.
            dataset: an array or a list/dict of arrays (the student's inputs), or a
                batched `tf.data.Dataset` of inputs or `(inputs, labels, ...)`.
            path: with a name ending in `.h5` or `.hdf5` the shards become one file at
                the end, else `path` is a folder of shards, which takes no more disk
                than the outputs. An old cache is replaced only once the new one is
                whole.
            dtype: `"float16"` (half the bytes, 3 significant digits), `"bfloat16"`
                (the range of float32, 2 digits) or `"float32"`.
            top_k: keep only the outputs of the `k` most likely classes. All others
                get one value, such that at temperature 1 every kept class has the
                probability that the teacher gives it.
            feature_layers: names of layers, however deep they are nested, whose
                outputs are kept too, whole. Each is called once in a forward pass.
            batch_size: examples in a batch, where `dataset` is arrays.
            shard_examples: a shard is written by the batch that brings it to as many
                examples; until then it is held in memory.
            verbose: 1 shows a progress bar, 0 nothing.

        Returns:
            The new `TeacherCache`.

        Raises:
            ValueError: a wrong argument, an unknown layer, no examples, or outputs
                that are not finite in `dtype`.
            OSError: the folder of `path` is missing or not writable.
        """
        settings = Settings(dtype, top_k, feature_layers, shard_examples)
        path = pathlib.Path(path)
        build_cache(teacher, as_batches(dataset, batch_size), path, settings, verbose)
        return cls(path)

    def look_up(self, x: Any) -> Any:
        """The teacher's outputs for the examples `x`.

        Args:
            x: an array or a structure of arrays, `(n, ...)`.

        Returns:
            `float32`, `(n, *output_shape)`; a list or dict of them where the teacher
            has several outputs.

        Raises:
            ValueError: an example is not in the cache.
        """
        found = self._table.find(self.keys(x).numpy(), self._table.output_names)
        return self._table.structured(found)

    def look_up_features(self, x: Any) -> dict[str, np.ndarray]:
        """The stored features of the examples `x`, by the name of the teacher's layer.

        Args:
            x: an array or a structure of arrays, `(n, ...)`.

        Returns:
            `float32` arrays `(n, ...)`.

        Raises:
            ValueError: an example is not in the cache.
        """
        found = self._table.find(self.keys(x).numpy(), self._table.feature_names)
        return by_layer(found)

    def keys(self, x: Any) -> tf.Tensor:
        """What the cache finds the examples `x` by: int64, `(n,)`.

        They may travel with the examples through an augmenting pipeline, one by one,
        as its last component, to `attach(dataset, keyed=True)`.
        """
        return fingerprint(x)

    def attach(self, dataset: tf.data.Dataset, keyed: bool = False) -> tf.data.Dataset:
        """A dataset whose batches carry the teacher's outputs and features.

        Only `fit` with `Distillation(cache)` can train on it. The column, a dictionary
        behind the inputs, labels and sample weights, is looked up by the inputs as they
        are here; a later `map` may augment them and must hand the column on. Because
        the pipeline looks up, XLA may compile the step. Under `tf.distribute` let the
        student `evaluate` one plain batch before: Keras would read the first one of
        `fit` before it asks a callback.

        Args:
            dataset: batches of inputs, `(inputs, labels)` or
                `(inputs, labels, sample_weights)`.
            keyed: the last component is `keys` of the plain inputs, which is taken off.

        Returns:
            Batches with the column as their last component.

        Raises:
            ValueError: `dataset` is not a `tf.data.Dataset`, or has no keys; when it is
                iterated, an example is not in the cache.
        """
        names = self._table.output_names + self._table.feature_names

        def look_up(source):
            return self._find_in_graph(source if keyed else self.keys(source), names)

        attached = attach_column(dataset, self._column_name, look_up, keyed)
        self._is_attached = True
        return attached

    @property
    def is_attached(self) -> bool:
        """Whether `attach` was called, so that XLA need not look up."""
        return self._is_attached

    def look_up_in_graph(self, x: Any) -> Any:
        """`look_up` for symbolic tensors, inside a `tf.function`.

        In a training step whose batch carries attached outputs these are returned,
        whatever `x` is.

        Raises:
            ValueError: XLA compiles the step, and its batch carries no outputs.
        """
        found = attached_to_step(self._column_name)
        if found is None:
            found = self._find_in_graph(self.keys(x), self._table.output_names)
        return self._table.structured(found)

    def look_up_features_in_graph(self, x: Any) -> dict[str, tf.Tensor]:
        """`look_up_features` for symbolic tensors, as `look_up_in_graph`."""
        found = attached_to_step(self._column_name)
        if found is None:
            found = self._find_in_graph(self.keys(x), self._table.feature_names)
        return by_layer({name: found[name] for name in self._table.feature_names})

    def explain(self, error: BaseException) -> BaseException | None:
        """The `ValueError` of a failed look-up behind an exception of TensorFlow."""
        del error
        unknown, self._unknown = self._unknown, None
        return unknown

    def _find_in_graph(self, keys, names):
        @tf.autograph.experimental.do_not_convert
        def find(wanted):
            try:
                found = self._table.find(wanted, names)
            except ValueError as error:
                self._unknown = error
                raise
            return [found[name] for name in names]

        if not names:
            return {}
        self._unknown = None
        types = [tf.float32] * len(names)
        found = tf.numpy_function(find, [keys], types, stateful=False)
        shapes = self._table.shapes(names)
        return {
            name: tf.ensure_shape(values, (None, *shapes[name]))
            for name, values in zip(names, found, strict=True)
        }
