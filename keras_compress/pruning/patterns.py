"""Patterns: which weights of a kernel become zero together.

A pattern turns the scores of a kernel's weights into those of its units, of which the
best are kept, and a mask of units into one of weights. A unit with an infinite score
is always kept.
"""

import dataclasses
import itertools
import re

import numpy as np


@dataclasses.dataclass(frozen=True)
class Element:
    """Every weight by itself."""

    def why_not(self, kernel) -> str:
        """Why the pattern cannot be on a kernel; empty if it can."""
        return ""

    def check(self, kernel) -> None:
        """Raise if the pattern does not fit the kernel."""

    def check_final(self, sparsity: float) -> None:
        """Raise if the pattern cannot have this share of zeros."""

    def pool(self, scores: np.ndarray, kernel) -> np.ndarray:
        """Scores of units, of any shape."""
        return scores

    def spread(self, kept: np.ndarray, kernel) -> np.ndarray:
        """The mask of weights, of the kernel's shape."""
        return kept.reshape(kernel.shape)


@dataclasses.dataclass(frozen=True)
class NOfM(Element):
    """At most `n` weights of `m` in a row along the input channels are kept.

    As written in `"2:4"`. While a schedule rises, weights that the full pattern would
    prune become zero, the smallest first. Where the channels are no multiple of `m`,
    the last group is smaller and keeps up to `n` of its weights.

    Args:
        n: Weights kept of each group, at least 1.
        m: Weights of a group, above `n`.

    Raises:
        ValueError: If `n` is not in [1, m).

    Source: Mishra et al. 2021, 2104.08378.
    """

    n: int
    m: int

    def __post_init__(self) -> None:
        if not 1 <= self.n < self.m:
            raise ValueError(
                '`pattern` "n:m" keeps n of m weights, so it needs 1 <= n < m. '
                f'Received: "{self.n}:{self.m}"'
            )

    def why_not(self, kernel) -> str:
        """Depthwise kernels and embeddings sum over no input channels."""
        if kernel.input_axes:
            return ""
        return f"{self.n}:{self.m} needs a kernel that sums over input channels"

    def check_final(self, sparsity: float) -> None:
        """The pattern fixes the last sparsity."""
        zeros = 1 - self.n / self.m
        if not np.isclose(sparsity, zeros, rtol=0, atol=1e-6):
            raise ValueError(
                f'The pattern "{self.n}:{self.m}" leaves a share of {zeros:g} zeros, '
                f"which must be the last sparsity of the schedule. Received: {sparsity}"
            )

    def pool(self, scores: np.ndarray, kernel) -> np.ndarray:
        """Scores of weights; infinite for those that the full pattern keeps."""
        rows, back = _inputs_last(scores, kernel)
        channels = rows.shape[-1]
        missing = -channels % self.m
        padded = np.pad(rows, ((0, 0), (0, missing)), constant_values=-np.inf)
        places = np.ascontiguousarray(padded.reshape(-1, self.m).T)
        # How many of its group are before a weight: larger ones, or equal and first.
        rank = np.zeros(places.shape, "int16")
        for here, there in itertools.permutations(range(self.m), 2):
            before = np.greater_equal if there < here else np.greater
            rank[here] += before(places[there], places[here])
        places[rank < self.n] = np.inf
        return back(places.T.reshape(padded.shape)[:, :channels])


@dataclasses.dataclass(frozen=True)
class Block(Element):
    """Blocks of a kernel's (input, output) matrix become zero as a whole.

    A convolution has one such matrix for each position in its window. Where a side is
    no multiple of the block's, the last blocks are smaller.

    Args:
        size: (rows, columns) of a block: input channels and output channels.
        pooling: `"average"` or `"max"`: what of a block's scores is its own.

    Raises:
        ValueError: On another size or pooling.

    Example:

    >>> import keras_compress as kc
    >>> pruning = kc.MagnitudePruning(0.5, pattern=kc.Block((1, 4)))

    Source: Narang et al. 2017, 1711.02782.
    """

    size: tuple[int, int]
    pooling: str = "average"

    def __post_init__(self) -> None:
        size = tuple(self.size) if isinstance(self.size, list | tuple) else ()
        if len(size) != 2 or not all(isinstance(s, int) and s >= 1 for s in size):
            raise ValueError(
                "`size` must be (rows, columns), two ints of at least 1. "
                f"Received: size={self.size!r}"
            )
        if self.pooling not in ("average", "max"):
            raise ValueError(
                '`pooling` must be "average" or "max". '
                f"Received: pooling={self.pooling!r}"
            )
        object.__setattr__(self, "size", size)

    def why_not(self, kernel) -> str:
        """Depthwise kernels have no matrix of input and output channels."""
        if kernel.input_axes:
            return ""
        return "blocks need a kernel of input and output channels"

    def check(self, kernel) -> None:
        """A block must not be larger than the kernel."""
        matrix = _matrix_shape(kernel)
        if any(side > have for side, have in zip(self.size, matrix, strict=True)):
            raise ValueError(
                f"A block of {self.size} does not fit kernel {kernel.path!r} with "
                f"(input, output) channels {matrix}. Give a smaller block, or leave "
                "the layer out with `layers`."
            )

    def pool(self, scores: np.ndarray, kernel) -> np.ndarray:
        """Average or maximum of each block, of shape (positions, rows, columns)."""
        matrices, _ = _matrices(scores, kernel)
        rows, columns = self.size
        reduce = np.add if self.pooling == "average" else np.maximum
        pooled = reduce.reduceat(matrices, range(0, matrices.shape[1], rows), axis=1)
        pooled = reduce.reduceat(pooled, range(0, matrices.shape[2], columns), axis=2)
        if self.pooling == "average":
            heights = _lengths(matrices.shape[1], rows)
            widths = _lengths(matrices.shape[2], columns)
            pooled = pooled / np.outer(heights, widths).astype(pooled.dtype)
        return pooled

    def spread(self, kept: np.ndarray, kernel) -> np.ndarray:
        """Every weight of a kept block."""
        height, width = _matrix_shape(kernel)
        rows, columns = self.size
        mask = kept.repeat(rows, axis=1)[:, :height].repeat(columns, axis=2)
        _, back = _matrices(np.empty(kernel.shape, "bool"), kernel)
        return back(mask[:, :, :width])


def as_pattern(pattern) -> Element:
    """The pattern that an argument stands for.

    Raises:
        ValueError: If it is not None, `"n:m"` or a pattern.
    """
    if pattern is None:
        return Element()
    if isinstance(pattern, Element):
        return pattern
    numbers = (
        re.fullmatch(r"(\d+):(\d+)", pattern) if isinstance(pattern, str) else None
    )
    if not numbers:
        raise ValueError(
            '`pattern` must be None, "n:m" such as "2:4", or a kc.Block((rows, '
            f"columns)). Received: pattern={pattern!r}"
        )
    return NOfM(*map(int, numbers.groups()))


def _inputs_last(scores: np.ndarray, kernel) -> tuple:
    """Scores as (everything else, input channels), and the way back."""
    axes = kernel.input_axes
    order = [axis for axis in range(scores.ndim) if axis not in axes] + list(axes)
    moved = scores.transpose(order)
    inputs = int(np.prod([scores.shape[axis] for axis in axes]))

    def back(rows):
        return rows.reshape(moved.shape).transpose(np.argsort(order))

    return moved.reshape(-1, inputs), back


def _matrix_shape(kernel) -> tuple[int, int]:
    sides = (kernel.input_axes, kernel.output_axes)
    return tuple(int(np.prod([kernel.shape[a] for a in axes])) for axes in sides)


def _matrices(scores: np.ndarray, kernel) -> tuple:
    """Scores as (positions, input channels, output channels), and the way back."""
    ends = [*kernel.input_axes, *kernel.output_axes]
    order = [axis for axis in range(scores.ndim) if axis not in ends] + ends
    moved = scores.transpose(order)

    def back(matrices):
        return matrices.reshape(moved.shape).transpose(np.argsort(order))

    return moved.reshape(-1, *_matrix_shape(kernel)), back


def _lengths(total: int, part: int) -> list[int]:
    return [min(part, total - start) for start in range(0, total, part)]
