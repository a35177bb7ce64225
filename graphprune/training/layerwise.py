"""``--loss layers``: every contraction says what the original's says (layer-wise reconstruction by gradient)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from graphprune.contractions import contraction_weights
from graphprune.errors import OptionError
from graphprune.fx.recorder import Recorder
from graphprune.graph import Graph
from graphprune.training.divergences import wide

Tensors = Sequence[torch.Tensor]


@dataclass(frozen=True)
class LayerWise:
    """The mean over layers of |y - y'|^2 / |y'|^2, ``y`` a contraction's output and ``y'`` the original's.

    Values are taken before masks, so that a masked channel, which may be anything, takes nothing from the others.
    ``--refit`` finds the minimum over one layer's weights in closed form; gradients move all layers at once.
    """

    observed: tuple[str, ...]
    """fx nodes."""
    needs_teacher = True
    needs_labels = False

    def __call__(self, outputs: Tensors, teacher: Tensors | None, labels: Any = None) -> torch.Tensor:
        if teacher is None:
            raise ValueError("the original's layers are needed")
        terms = []
        for ours, theirs in zip(outputs, teacher, strict=True):
            target = wide(theirs).detach()
            size = target.square().mean().clamp_min(torch.finfo(target.dtype).tiny)
            terms.append((wide(ours) - target).square().mean() / size)
        return torch.stack(terms).mean()


def layerwise(graph: Graph, nodes: Mapping[str, str]) -> LayerWise:
    """``nodes``: ONNX value -> fx node. Raises OptionError where the module has no layer to compare."""
    names = (w.node.outputs[0].name for w in contraction_weights(graph))
    found = tuple(dict.fromkeys(nodes[n] for n in names if n in nodes))
    if not found:
        raise OptionError("--loss layers: no convolution or matrix product stores weights, so use distill")
    return LayerWise(found)


def observe(module: nn.Module, names: Collection[str], inputs: Tensors) -> tuple[torch.Tensor, ...]:
    """Values of fx nodes of ``module`` for ``inputs``, in the order of ``names``.

    Raises OptionError for a module that several processes share, which has no fx nodes to look at.
    """
    if not isinstance(module, fx.GraphModule):
        raise OptionError("--loss layers runs in one process: use distill under torchrun")
    recorder = Recorder(module, names)
    recorder.run(*inputs)
    return tuple(recorder.found[name] for name in names)
