"""What units compete with before anything is trained: initial logits, or the scores of a method in one shot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from graphprune.errors import OptionError
from graphprune.search.answers import every
from graphprune.search.initial import Inputs, initial_logits, input_norms, needs_data, unit_scores
from graphprune.search.reconstructing import start_scores
from graphprune.search.scoring import Scoring
from graphprune.search.unit_masking import UnitMasking

if TYPE_CHECKING:
    from graphprune.search.search import Search

_HELD = 3.0
"""Lifts units that an earlier round kept above all others, whose scores lie in -1..1."""


def start(search: Search) -> None:
    """Give the masks what their units compete with at first, where it is not their weights themselves.

    Raises OptionError where data is needed and there is none.
    """
    masking = search.masking
    if search.method.one_shot:
        score(search)
    elif search.source_of_masks == "logits" and isinstance(masking, UnitMasking):
        masking.start(_logits(search, masking))
    elif search.source_of_masks == "logits":
        sizes = {name: w.detach().abs() for name, w in masking.tensors.weights().items()}
        shares = {name: w / w.max().clamp_min(1e-30) for name, w in sizes.items()}
        masking.start(masking.tensors.sums(shares).cpu().numpy())


def score(search: Search) -> None:
    """Ask a method in one shot, again in every round; what went in an earlier round stays last."""
    method, module = search.method, search.module
    assert method.score is not None
    samples = search.samples()
    if not samples and method.data != "none":
        raise OptionError(f"--method {method.name} looks at inputs: give data")
    training = module.training
    scoring = Scoring(search, samples)
    scores = method.score(scoring)
    module.train(training)
    for name, curve in scoring.curves.items():
        search.curves.setdefault(name, []).extend(curve)
    scores = scores / max(float(np.abs(scores).max(initial=0.0)), np.finfo(np.float64).tiny)
    held = search.masking.held_masks()
    search.masking.start(scores if held is None else scores + _HELD * held)


def _logits(search: Search, masking: UnitMasking) -> np.ndarray:
    """Of a method that trains them, told apart by a little noise: float ``[units]``."""
    begin, seed = search.method.start, search.structure.options.seed
    if begin is not None:
        return initial_logits(np.full(masking.units.size, begin), relative=False, seed=seed)
    if search.recipe.init_from:
        scores = start_scores(search)
    else:
        scores = _importance(search, masking)
    return initial_logits(scores, relative=search.recipe.temp_unit == "std", seed=seed)


def _importance(search: Search, masking: UnitMasking) -> np.ndarray:
    """As ``mask_init`` says: float ``[units]``."""
    kind = search.recipe.mask_init
    batches = [inputs for inputs, _ in search.samples()] if needs_data(kind) else []
    if needs_data(kind) and not batches:
        raise OptionError(f"--mask-init {kind} looks at inputs: give data")
    if kind == "taylor":
        return _sensitivity(search, masking, batches)
    norms = None
    if kind in ("activation", "weight-activation"):
        norms = input_norms(search.original, search.imported.nodes, search.imported.graph, batches)
    return unit_scores(kind, masking.units, search.read, norms)


def _sensitivity(search: Search, masking: UnitMasking, batches: Sequence[Inputs]) -> np.ndarray:
    """|dL/ds| at s = 1, L the squared outputs: how much the outputs move when a unit fades."""
    total = np.zeros(masking.units.size)
    search.module.eval()
    for inputs in batches:
        probe = masking.masks.probe()
        outputs = search.module(*inputs)
        loss = torch.stack([x.float().square().mean() for x in every(outputs) if x.is_floating_point()]).sum()
        (gradient,) = torch.autograd.grad(loss, probe)
        total += gradient.abs().double().cpu().numpy()
    masking.masks.mode = "dense"
    return total
