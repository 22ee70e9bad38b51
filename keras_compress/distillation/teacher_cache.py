"""Teacher outputs, computed once and kept on disk."""

import hashlib
import os
import pathlib
import tempfile
from typing import Any

import h5py
import keras
import numpy as np
import tensorflow as tf

_FORMAT = "keras_compress.TeacherCache"
_VERSION = 1


class TeacherCache:
    """A teacher's outputs for a dataset, in one file, usable as a `teacher`.

    Outputs are found again by a 64-bit fingerprint of each example, so the order of
    the examples does not matter. An example that the cache never saw (augmented, or
    preprocessed differently) is an error. The file is HDF5; the outputs are read
    through a memory map, a batch at a time.

    Args:
        path: a file that `TeacherCache.build` wrote.
        teacher: if given, the model whose outputs these must be.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a complete cache, or belongs to other weights than
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
        if not self.path.is_file():
            raise FileNotFoundError(
                f"No teacher cache at {self.path}. Make one with "
                "keras_compress.TeacherCache.build(teacher, dataset, path)."
            )
        self._fingerprints, self._outputs, attributes = _open(self.path)
        self.teacher_sha256 = str(attributes["teacher_sha256"])
        self._unknown = None
        if teacher is not None and weights_sha256(teacher) != self.teacher_sha256:
            raise ValueError(
                f"{self.path} is stale: it holds outputs of a teacher whose weights "
                f"have SHA-256 {self.teacher_sha256}, but the weights of "
                f"{teacher.name!r} have {weights_sha256(teacher)}. Build the cache "
                "again with this teacher."
            )

    def __len__(self) -> int:
        return len(self._fingerprints)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the outputs of one example."""
        return self._outputs.shape[1:]

    @classmethod
    def build(
        cls,
        teacher: keras.Model,
        dataset: Any,
        path: str | os.PathLike,
        *,
        dtype: str = "float16",
        batch_size: int = 256,
        verbose: int = 1,
    ) -> "TeacherCache":
        """Runs the teacher over a dataset once and writes its outputs to `path`.

        Args:
            teacher: a built model with one output.
            dataset: an array or a list/dict of arrays (the student's inputs), or a
                batched `tf.data.Dataset` of inputs or `(inputs, labels, ...)`.
            path: the file to write; replaced only once the new one is whole.
            dtype: `"float16"` (half the bytes, 3 significant digits) or `"float32"`.
            batch_size: examples in a batch, where `dataset` is arrays.
            verbose: 1 shows a progress bar, 0 nothing.

        Returns:
            The new `TeacherCache`.

        Raises:
            ValueError: unknown `dtype`, no examples, several outputs, or outputs that
                are not finite in `dtype`.
            OSError: the folder of `path` is missing or not writable.
        """
        if dtype not in ("float16", "float32"):
            raise ValueError(
                f"`dtype` must be 'float16' or 'float32'. Received: {dtype!r}"
            )
        path = pathlib.Path(path)
        if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
            raise OSError(
                f"Cannot write {path}: its folder is missing or not writable. "
                "Make the folder or choose another."
            )
        fingerprints, outputs = _run(
            teacher, _as_dataset(dataset, batch_size), dtype, verbose
        )
        _write(path, fingerprints, outputs, weights_sha256(teacher), teacher.name)
        return cls(path)

    def look_up(self, x: Any) -> np.ndarray:
        """The teacher's outputs for the examples `x`.

        Args:
            x: an array or a structure of arrays, `(n, ...)`.

        Returns:
            `float32`, `(n, *output_shape)`.

        Raises:
            ValueError: an example is not in the cache.
        """
        return self._find(fingerprint(x).numpy())

    def look_up_in_graph(self, x: Any) -> tf.Tensor:
        """`look_up` for symbolic tensors, inside a (not XLA-compiled) `tf.function`."""
        self._unknown = None
        found = tf.numpy_function(
            self._find_or_keep_error, [fingerprint(x)], tf.float32, stateful=False
        )
        return tf.ensure_shape(found, (None, *self.output_shape))

    def explain(self, error: BaseException) -> BaseException | None:
        """The `ValueError` of a failed look-up behind an exception of TensorFlow."""
        del error
        unknown, self._unknown = self._unknown, None
        return unknown

    def _find_or_keep_error(self, wanted):
        try:
            return self._find(wanted)
        except ValueError as error:
            self._unknown = error
            raise

    def _find(self, wanted):
        rows = np.searchsorted(self._fingerprints, wanted)
        rows = np.minimum(rows, len(self._fingerprints) - 1)
        unknown = self._fingerprints[rows] != wanted
        if unknown.any():
            raise ValueError(
                f"{self.path} holds no teacher output for {int(unknown.sum())} of "
                f"{len(wanted)} examples. It knows only the exact inputs it was built "
                "from: augmentation, other preprocessing and other data make new ones. "
                "Build the cache from the data the student trains on, or pass the "
                "teacher itself to Distillation."
            )
        return self._outputs[rows].astype("float32")


def fingerprint(x: Any) -> tf.Tensor:
    """A 64-bit hash (FarmHash) of each example of `x`, over all its inputs.

    Floats count as float32 and integers as int64, as Keras may convert them between a
    dataset and the model. Returns an int64 tensor `(n,)`.
    """
    rows = []
    for tensor in keras.tree.flatten(x):
        tensor = tf.convert_to_tensor(tensor)
        if not (tensor.dtype.is_floating or tensor.dtype.is_integer):
            raise ValueError(
                "A teacher cache needs inputs of integers or floats. "
                f"Received dtype: {tensor.dtype.name}"
            )
        kind = tf.float32 if tensor.dtype.is_floating else tf.int64
        row_bytes = tf.bitcast(tf.cast(tensor, kind), tf.uint8)
        rows.append(tf.reshape(row_bytes, (tf.shape(tensor)[0], -1)))
    hashed = tf.raw_ops.Fingerprint(data=tf.concat(rows, axis=1), method="farmhash64")
    return tf.bitcast(hashed, tf.int64)


def weights_sha256(model: keras.Model) -> str:
    """SHA-256 over the shape, dtype and bytes of every weight, in the model's order."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(f"{weight.shape}{weight.dtype}".encode())
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()


def _as_dataset(dataset, batch_size):
    if not isinstance(dataset, tf.data.Dataset):
        return tf.data.Dataset.from_tensor_slices(dataset).batch(batch_size)
    if isinstance(dataset.element_spec, tuple):
        return dataset.map(lambda x, *rest: x)
    return dataset


def _run(teacher, dataset, dtype, verbose):
    size = dataset.cardinality().numpy()
    progress = keras.utils.Progbar(size if size > 0 else None, verbose=verbose)
    fingerprints, outputs = [], []
    for x in dataset:
        batch = teacher.predict_on_batch(x)
        if not isinstance(batch, np.ndarray):
            raise ValueError(
                f"The teacher must have one output. Received: {len(batch)} outputs"
            )
        with np.errstate(over="ignore"):
            batch = batch.astype(dtype)
        if not np.isfinite(batch).all():
            raise ValueError(
                f"The teacher {teacher.name!r} has outputs that are not finite in "
                f"{dtype}. Expected finite logits; try dtype='float32', and look for "
                "NaN in the data and the weights."
            )
        fingerprints.append(fingerprint(x).numpy())
        outputs.append(batch)
        progress.add(1)
    if not outputs:
        raise ValueError("`dataset` has no examples.")
    unique, first = np.unique(np.concatenate(fingerprints), return_index=True)
    return unique, np.concatenate(outputs)[first]


def _write(path, fingerprints, outputs, teacher_sha256, teacher_name):
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, text=False)
    os.close(handle)
    try:
        with h5py.File(temporary, "w") as file:
            file.attrs["format"] = _FORMAT
            file.attrs["version"] = _VERSION
            file.attrs["teacher_sha256"] = teacher_sha256
            file.attrs["teacher_name"] = teacher_name
            file.create_dataset("fingerprints", data=fingerprints)
            file.create_dataset("outputs", data=outputs)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _open(path):
    """Fingerprints in memory, outputs as a memory map, the header's attributes."""
    try:
        with h5py.File(path, "r") as file:
            attributes = dict(file.attrs)
            found = attributes.get("format"), attributes.get("version")
            if found != (_FORMAT, _VERSION):
                raise ValueError(f"expected {(_FORMAT, _VERSION)}, received {found}")
            fingerprints = file["fingerprints"][()]
            stored = file["outputs"]
            offset, shape, dtype = stored.id.get_offset(), stored.shape, stored.dtype
        if offset is None or len(fingerprints) != shape[0]:
            raise ValueError(
                f"{len(fingerprints)} fingerprints for outputs of shape {shape}"
            )
        outputs = np.memmap(path, dtype, "r", offset, shape)
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path} is not a complete teacher cache: {error}. Build it again with "
            "keras_compress.TeacherCache.build."
        ) from error
    return fingerprints, outputs, attributes
