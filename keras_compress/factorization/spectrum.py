"""Singular values and truncated products of a matrix, through its Gram matrix."""

from dataclasses import dataclass

import numpy as np
import scipy

# Rows that are turned to float64 at a time.
_BLOCK = 8192


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The singular values of a matrix, and what its singular vectors come from.

    Attributes:
        squares: float64 array (k,): squared singular values, the largest first; zero
            where they are within the rounding of a float32 matrix.
        gram: The Gram matrix (k, k) of the matrix's shorter side.
    """

    squares: np.ndarray
    gram: "Tridiagonal"

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
        vectors = self.gram.largest_vectors(rank).astype("float32")
        scaled = matrix @ vectors
        roots = np.sqrt(np.linalg.norm(scaled, axis=0))
        first = np.divide(scaled, roots, out=np.zeros_like(scaled), where=roots > 0)
        return first, (vectors * roots).T


@dataclass(frozen=True, eq=False)
class Tridiagonal:
    """A symmetric matrix as Q T Q', T tridiagonal, Q a product of reflections.

    Half the work of an eigendecomposition, and all that its eigenvalues take. Most
    kernels stay as they are and never need the vectors, others some of them.

    Attributes:
        reflections: float64 array (k, k), below the diagonal, as LAPACK stores them.
        scales: float64 array (k - 1,), one for each reflection.
        diagonal: float64 array (k,), of T.
        beside: float64 array (k - 1,), next to T's diagonal.
    """

    reflections: np.ndarray
    scales: np.ndarray
    diagonal: np.ndarray
    beside: np.ndarray

    @classmethod
    def of(cls, symmetric: np.ndarray) -> "Tridiagonal":
        """From a C-contiguous float64 matrix, whose memory it takes."""
        work, _ = scipy.linalg.lapack.dsytrd_lwork(len(symmetric), lower=1)
        reflections, diagonal, beside, scales, _ = scipy.linalg.lapack.dsytrd(
            symmetric.T, lower=1, lwork=int(work), overwrite_a=1
        )
        return cls(reflections, scales, diagonal, beside)

    def eigenvalues(self) -> np.ndarray:
        """All of them, the largest first."""
        return scipy.linalg.eigvalsh_tridiagonal(self.diagonal, self.beside)[::-1]

    def largest_vectors(self, count: int) -> np.ndarray:
        """The eigenvectors of the largest eigenvalues, as columns (k, count)."""
        size = len(self.diagonal)
        _, vectors = scipy.linalg.eigh_tridiagonal(
            self.diagonal,
            self.beside,
            select="i",
            select_range=(size - count, size - 1),
            lapack_driver="stemr",
        )
        vectors = np.asfortranarray(vectors[:, ::-1])
        if size > 1:
            parts = (self.reflections[1:, :-1], self.scales, vectors[1:])
            _, work, _ = scipy.linalg.lapack.dormqr("L", "N", *parts, lwork=-1)
            options = {"lwork": int(work[0])}
            vectors[1:], _, _ = scipy.linalg.lapack.dormqr("L", "N", *parts, **options)
        return vectors


def spectrum(matrix: np.ndarray) -> Spectrum:
    """The `Spectrum` of a float32 matrix (n, m)."""
    if matrix.shape[0] < matrix.shape[1]:
        matrix = matrix.T
    gram = np.zeros((matrix.shape[1],) * 2)
    for start in range(0, len(matrix), _BLOCK):
        rows = matrix[start : start + _BLOCK].astype("float64")
        gram += rows.T @ rows
    gram = Tridiagonal.of(gram)
    squares = gram.eigenvalues()
    rounding = len(matrix) * np.finfo("float32").eps
    squares = np.where(squares > squares[0] * rounding**2, squares, 0.0)
    return Spectrum(squares, gram)
