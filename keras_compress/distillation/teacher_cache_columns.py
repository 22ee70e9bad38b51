"""How a teacher cache stores one output or feature of its teacher."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

DTYPES = ("float16", "bfloat16", "float32")


@dataclasses.dataclass(frozen=True)
class Column:
    """One output or feature of the teacher, for every example.

    With `top_k`, only the `k` largest entries of the last axis are kept, and one number
    for all others: what each of them would be if they were equal and weighed as much
    together as they do. For logits that is `log(mean(exp(rest)))`, which keeps every
    probability of the `k` classes as it was; for probabilities it is `mean(rest)`.

    Args:
        name: `"outputs"`, `"outputs/<key>"` or `"features/<layer>"`.
        shape: of one example.
        dtype: one of `DTYPES`, in which the values are stored.
        top_k: how many entries of the last axis are kept; `None` for all.
        is_probabilities: whether the entries of the last axis are probabilities.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    top_k: int | None = None
    is_probabilities: bool = False

    def encode(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays to store for float32 `values`, `(n, *shape)`, by their names."""
        if self.top_k is None:
            return {"values": self._to_stored(values)}
        order = np.argpartition(values, -self.top_k, axis=-1)
        kept, others = order[..., -self.top_k :], order[..., : -self.top_k]
        rest = np.take_along_axis(values, others, axis=-1).astype("float64")
        return {
            "values": self._to_stored(np.take_along_axis(values, kept, axis=-1)),
            "indices": kept.astype(_index_dtype(self.shape[-1])),
            "rest": self._mean(rest).astype("float32"),
        }

    def decode(self, stored: Mapping[str, np.ndarray]) -> np.ndarray:
        """float32 `(n, *shape)` from what `encode` made."""
        values = self.from_stored(stored["values"]).astype("float32")
        if self.top_k is None:
            return values
        decoded = np.empty((len(values), *self.shape), "float32")
        decoded[:] = stored["rest"][..., None]
        indices = stored["indices"].astype("int64")
        np.put_along_axis(decoded, indices, values, axis=-1)
        return decoded

    def array_names(self) -> tuple[str, ...]:
        """Names of the arrays that `encode` makes."""
        return ("values",) if self.top_k is None else ("values", "indices", "rest")

    def _mean(self, rest):
        if self.is_probabilities:
            return rest.mean(-1)
        highest = rest.max(-1)
        return highest + np.log(np.mean(np.exp(rest - highest[..., None]), -1))

    def _to_stored(self, values):
        with np.errstate(over="ignore"):
            values = values.astype(_numpy_dtype(self.dtype))
        if not np.isfinite(values.astype("float32")).all():
            raise ValueError(
                f"`{self.name}` of the teacher is not finite in {self.dtype}. Expected "
                "finite values; try dtype='float32', and look for NaN in the data and "
                "the weights."
            )
        # HDF5 has no bfloat16: its bits are kept as integers.
        return values.view("uint16") if self.dtype == "bfloat16" else values

    def from_stored(self, values: np.ndarray) -> np.ndarray:
        """Stored values in the column's own dtype."""
        return values.view(_numpy_dtype(self.dtype))


def columns_for(
    outputs: Mapping[str, np.ndarray], dtype: str, top_k: int | None
) -> tuple[Column, ...]:
    """The columns for a batch of a teacher's outputs and features, by their names.

    Raises:
        ValueError: an output has not more than `top_k` classes.
    """
    columns = []
    for name, values in outputs.items():
        is_feature = name.startswith("features/")
        column = Column(
            name,
            values.shape[1:],
            dtype,
            None if is_feature else top_k,
            not is_feature and _are_probabilities(values),
        )
        if column.top_k and not (column.shape and top_k < column.shape[-1]):
            raise ValueError(
                "`top_k` must be below the number of classes, the last axis of each of "
                f"the teacher's outputs. Received: top_k={top_k} for {name} of shape "
                f"{column.shape}"
            )
        columns.append(column)
    return tuple(columns)


def _are_probabilities(values):
    """Not negative, of sum 1 (to float16) and of two classes or more."""
    values = np.asarray(values, "float64")
    return bool(
        values.ndim > 1
        and values.shape[-1] > 1
        and (values >= 0).all()
        and (np.abs(values.sum(-1) - 1) < 1e-2).all()
    )


def _numpy_dtype(dtype):
    return tf.as_dtype(dtype).as_numpy_dtype


def _index_dtype(classes):
    return "uint16" if classes <= 2**16 else "int32"
