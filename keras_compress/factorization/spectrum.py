"""Singular values and truncated products of a matrix, through its Gram matrix."""

from dataclasses import dataclass

import numpy as np

# Rows that are turned to float64 at a time.
_BLOCK = 8192


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The singular values of a matrix and the singular vectors of its shorter side.

    Attributes:
        squares: float64 array (k,): squared singular values, the largest first; zero
            where they are within the rounding of a float32 matrix.
        vectors: float32 array (k, k), one column for each.
    """

    squares: np.ndarray
    vectors: np.ndarray

    @property
    def lost(self) -> np.ndarray:
        """Energy lost by rank 0, 1, ..., k: the share of the sum of the squares."""
        tails = np.cumsum(self.squares[::-1])[::-1]
        return np.append(tails, 0.0) / max(tails[0], np.finfo("float64").tiny)

    def factors(self, matrix: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
        """The best product of this rank: (n, rank) and (rank, m).

        Each has the square roots of the singular values in it.
        """
        if matrix.shape[0] < matrix.shape[1]:
            second, first = self.factors(matrix.T, rank)
            return first.T, second.T
        vectors = self.vectors[:, :rank]
        scaled = matrix @ vectors
        roots = np.sqrt(np.linalg.norm(scaled, axis=0))
        first = np.divide(scaled, roots, out=np.zeros_like(scaled), where=roots > 0)
        return first, (vectors * roots).T


def spectrum(matrix: np.ndarray) -> Spectrum:
    """The `Spectrum` of a float32 matrix (n, m)."""
    if matrix.shape[0] < matrix.shape[1]:
        matrix = matrix.T
    gram = np.zeros((matrix.shape[1],) * 2)
    for start in range(0, len(matrix), _BLOCK):
        rows = matrix[start : start + _BLOCK].astype("float64")
        gram += rows.T @ rows
    squares, vectors = np.linalg.eigh(gram)
    squares, vectors = squares[::-1], vectors[:, ::-1].astype("float32")
    rounding = len(matrix) * np.finfo("float32").eps
    squares = np.where(squares > squares[0] * rounding**2, squares, 0.0)
    return Spectrum(squares, vectors)
