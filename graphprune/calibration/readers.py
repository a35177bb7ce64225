"""Which columns of which contractions read a coupled channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphprune.calibration.moments import Moments, damping
from graphprune.calibration.order import Reader
from graphprune.calibration.views import View
from graphprune.coupling import Coupling


class Readers:
    """The columns of every measured contraction by coupled channel: int ``[groups, columns]``, -1 for none."""

    def __init__(
        self, coupling: Coupling, found: Sequence[View], moments: Mapping[str, Moments], movable: np.ndarray
    ) -> None:
        self.views = {v.name: v for v in found if v.name in moments}
        self.moments = moments
        self.channels: dict[str, np.ndarray] = {}
        for s in coupling.coupler.slices:
            view = self.views.get(s.tensor.name)
            if view is None or s.axis != view.weight.in_axis or not coupling.coupler.summed[s.ids].any():
                continue
            per_group = np.atleast_2d(_deciding(coupling, coupling.of(s.ids), movable))
            per_group = np.repeat(per_group, view.groups // len(per_group), axis=0)
            self.channels[view.name] = np.repeat(per_group, view.columns // per_group.shape[1], axis=1)
        coupler_axes = {
            (s.tensor.name, s.axis): coupling.of(s.ids) for s in coupling.coupler.slices if s.rows == 1
        }
        self.outputs = {
            name: coupler_axes.get((name, view.weight.out_axis)) for name, view in self.views.items()
        }
        """Coupled channel of every output, where outputs are tracked."""

    def reading(self, channels: np.ndarray) -> list[str]:
        """Names of the contractions that read any of ``channels``."""
        return [n for n, c in self.channels.items() if np.isin(c, channels).any()]

    def of(self, channels: np.ndarray, ridge: float) -> list[Reader]:
        """For ``order.greedy_order``: every conv group that reads any of ``channels``."""
        found = []
        for name in self.reading(channels):
            view, moments = self.views[name], self.moments[name]
            w = view.matrix(np.asarray(view.weight.value.array()))
            covariance = moments.covariance(centred=view.shift is not None)
            damp = damping(covariance, moments.rows, ridge)
            energy = float(np.einsum("gco,gcd,gdo->", w, covariance, w, optimize=True))
            for g in range(view.groups):
                inside = self.channels[name][g]
                if not np.isin(inside, channels).any():
                    continue
                inverse = np.linalg.inv(covariance[g] + damp[g] * np.eye(len(inside)))
                found.append(Reader(inverse, w[g].copy(), inside, max(energy, 1e-30)))
        return found


def _deciding(coupling: Coupling, channels: np.ndarray, movable: np.ndarray) -> np.ndarray:
    """Elements of a grid by the head or the width that may go."""
    found = channels.copy()
    derived = coupling.grids.derived[channels]
    first, second = (coupling.grids.parents[channels[derived], side] for side in (0, 1))
    found[derived] = np.where(movable[first], first, second)
    return found
