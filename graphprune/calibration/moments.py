"""Second moments of a contraction's inputs, and least squares with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

AT_ONCE = 1_024
"""Rows that are multiplied together at least: few at a time would spend the time on adding up large matrices."""

TOLERANCE = 1e-8
"""Of conjugate gradients."""


@dataclass(eq=False)
class Moments:
    """Sums over rows of inputs ``x`` and, where given, targets ``y``, in float64.

    rows: how many. x: ``[groups, columns]``, y: ``[groups, outputs]``, xx: ``[groups, columns, columns]``,
    xy: ``[groups, columns, outputs]``, yy: ``[groups, outputs]`` (squares).
    """

    rows: int = 0
    x: np.ndarray = field(default_factory=lambda: np.zeros(0))
    xx: np.ndarray = field(default_factory=lambda: np.zeros(0))
    y: np.ndarray | None = None
    xy: np.ndarray | None = None

    def add(self, x: np.ndarray, y: np.ndarray | None = None) -> None:
        """``x``: ``[rows, groups, columns]``; ``y``: ``[rows, groups, outputs]``."""
        across = np.ascontiguousarray(x.transpose(1, 0, 2))
        sums = across.sum(1, dtype=np.float64)
        squares = np.matmul(across.transpose(0, 2, 1), across)
        if not self.rows:
            self.x, self.xx = np.zeros(sums.shape), np.zeros(squares.shape)
        self.rows += len(x)
        self.x += sums
        self.xx += squares
        if y is not None:
            targets = np.ascontiguousarray(y.transpose(1, 0, 2))
            products = np.matmul(across.transpose(0, 2, 1), targets)
            if self.y is None or self.xy is None:
                self.y, self.xy = np.zeros((*sums.shape[:1], y.shape[2])), np.zeros(products.shape)
            self.y += targets.sum(1, dtype=np.float64)
            self.xy += products

    def add_all(self, xs: Sequence[np.ndarray], ys: Sequence[np.ndarray]) -> None:
        """Many batches: as ``add`` for each, in pieces of at least as many rows as there are columns."""
        columns = xs[0].shape[2] if xs else 0
        first = rows = 0
        for number, x in enumerate(xs):
            rows += len(x)
            if number + 1 == len(xs) or rows >= max(columns, AT_ONCE):
                part = slice(first, number + 1)
                self.add(np.concatenate(xs[part]), np.concatenate(ys[part]))
                first, rows = number + 1, 0

    def covariance(self, *, centred: bool) -> np.ndarray:
        """``[groups, columns, columns]``: E[x x'], around the mean where ``centred``."""
        found = self.xx / self.rows
        if centred:
            mean = self.x / self.rows
            found = found - mean[:, :, None] * mean[:, None, :]
        return found


def damping(covariance: np.ndarray, rows: int, ridge: float) -> np.ndarray:
    """What is added to the diagonal: float ``[groups, 1, 1]``.

    ``ridge`` times the mean of the diagonal, more where there are fewer than ten rows for a column.
    """
    columns = covariance.shape[-1]
    diagonal = np.einsum("gcc->gc", covariance).mean(1) if columns else np.zeros(len(covariance))
    strength = ridge * max(1.0, 10.0 * columns / max(rows, 1))
    return np.asarray(np.maximum(strength * diagonal, 1e-12)[:, None, None])


def kept_columns(covariance: np.ndarray, w: np.ndarray, kept: np.ndarray, damp: np.ndarray) -> np.ndarray:
    """Weights of the kept columns that come nearest to what all columns computed, on the same inputs.

    covariance ``[g, c, c]``, w ``[g, c, o]``, kept: ``[g, k]`` columns of each group, damp ``[g, 1, 1]``.
    Minimises ``|X w - X_K v|^2 + damp |v - w_K|^2`` (per row). Returns ``[g, k, o]``.
    """
    rows = np.arange(len(w))[:, None]
    inside = covariance[rows[..., None], kept[:, :, None], kept[:, None, :]]
    cross = np.matmul(covariance[rows, kept], w)
    return solve(inside, cross, w[rows, kept], damp)


def solve(xx: np.ndarray, xy: np.ndarray, pull: np.ndarray, damp: np.ndarray) -> np.ndarray:
    """Ridge regression towards ``pull``: ``(xx + damp) v = xy + damp pull``; ``[g, c, c]``, ``[g, c, o]``."""
    size = xx.shape[-1]
    if not size:
        return np.zeros_like(pull)
    left = xx + damp * np.eye(size)
    right = xy + damp * pull
    return np.asarray(np.linalg.solve(left, right))


def solve_within(
    xx: np.ndarray, xy: np.ndarray, pull: np.ndarray, damp: np.ndarray, support: np.ndarray
) -> np.ndarray:
    """As ``solve``, with 0 outside of ``support`` (bool ``[g, c, o]``): conjugate gradients for all outputs at once.

    Preconditioned by the diagonal; stops at a relative residual of TOLERANCE, or after as many steps as there are
    columns.
    """
    size = xx.shape[-1]
    left = xx + damp * np.eye(size)
    weight = 1 / np.einsum("gcc->gc", left)[:, :, None]
    right = np.where(support, xy + damp * pull, 0)
    v = np.where(support, pull, 0)
    residual = right - np.where(support, left @ v, 0)
    direction = weight * residual
    dot = (residual * direction).sum(1, keepdims=True)
    enough = TOLERANCE**2 * np.maximum((right * weight * right).sum(1, keepdims=True), 1e-300)
    for _ in range(max(size, 16)):
        if (dot <= enough).all():
            break
        image = np.where(support, left @ direction, 0)
        curve = (direction * image).sum(1, keepdims=True)
        step = np.where(dot > enough, dot / np.where(curve > 0, curve, 1), 0)
        v = v + step * direction
        residual = residual - step * image
        new = (residual * weight * residual).sum(1, keepdims=True)
        direction = weight * residual + new / np.where(dot > 0, dot, 1) * direction
        dot = new
    return np.asarray(v)
