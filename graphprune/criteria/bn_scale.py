"""BatchNorm scale: |gamma| as importance (Liu et al. 2017, Network Slimming)."""

from __future__ import annotations

import numpy as np

from graphprune.criteria.registry import channel_criterion
from graphprune.criteria.scoring import mean_over_slices
from graphprune.errors import OptionError
from graphprune.folding import constant_array
from graphprune.groups import Groups


@channel_criterion("bn-scale", citation="Liu et al. 2017, arXiv:1708.06519")
def bn_scale(groups: Groups, rng: np.random.Generator) -> np.ndarray:
    """|gamma| of the BatchNormalization nodes a channel passes, relative to each node's mean.

    Channels that pass none (BatchNorm is folded into the convolution in most exported files) are
    scored by magnitude. Raises OptionError where the model has no BatchNormalization at all.
    """
    coupling = groups.coupling
    total, found = np.zeros(coupling.count), np.zeros(coupling.count)
    for node in coupling.graph.nodes:
        scale = node.input(1)
        if node.op != "BatchNormalization" or scale is None or not scale.constant:
            continue
        labels = coupling.labels.get(scale)
        if labels is None or not labels.terms:
            continue
        channels = coupling.of(labels.terms[0].reshape(-1))
        gamma = np.abs(constant_array(scale)).astype(np.float64).reshape(-1)
        if gamma.size != channels.size:
            continue
        np.add.at(total, channels, gamma / max(float(gamma.mean()), 1e-12))
        np.add.at(found, channels, 1)
    if not found.any():
        raise OptionError(
            "--method bn-scale needs BatchNormalization nodes, and this model has none (exporters fold them "
            "into convolutions): use --method magnitude"
        )
    return np.where(found > 0, total / np.maximum(found, 1), mean_over_slices(groups))
