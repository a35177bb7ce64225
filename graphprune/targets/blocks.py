"""Rule ``block``: zero blocks that lie on the target's grid."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from graphprune.notation import times
from graphprune.targets.claims import BlockClaim, Claims
from graphprune.targets.findings import FAIL, Finding, runs_dense_note
from graphprune.targets.grouping import holds_block, zero_block_share
from graphprune.targets.target import Target
from graphprune.targets.weights import ReadWeight, runs_dense

SLACK = 1e-9
"""Shares are equal up to rounding."""

FEW = 0.05
"""A share of zeros that a weight may have by chance (8-bit weights do)."""


def block_findings(weights: Iterable[ReadWeight], claims: Claims, target: Target) -> Iterator[Finding]:
    """For every weight, whether its zeros fill blocks of the target's grid.

    A weight that the file says is pruned in blocks fails where the recorded block does not fit the target's,
    or where fewer weights lie in zero blocks of the target's grid than were pruned. The others run dense,
    and are notes.
    """
    block = target.block_sizes
    if block is None:
        return
    for weight in weights:
        claim = claims.blocks.get(weight.name)
        shape = weight.nonzero.shape[1:]
        reason = runs_dense(weight, target)
        if reason:
            yield runs_dense_note("block", weight.name, reason)
        elif not holds_block(shape, block):
            small = f"smaller than one block of {target.block}"
            yield runs_dense_note("block", weight.name, small, times(shape))
        elif claim is not None and not _fits(recorded := _recorded(weight, claim), shape, block):
            unlike = "pruned in blocks that are not made of the target's"
            yield _wrong(weight, target, unlike, times(recorded))
        else:
            yield from _by_numbers(weight, claim, target, zero_block_share(weight.nonzero, block))


def _by_numbers(
    weight: ReadWeight, claim: BlockClaim | None, target: Target, blocks: float
) -> Iterator[Finding]:
    """``blocks``: share of the weight in zero blocks of the target's grid."""
    zeros = 1 - float(weight.nonzero.mean())
    claimed = None if claim is None else claim.zeros
    off_grid = f"zeros that do not fill blocks of {target.block}"
    if claimed is not None and blocks < claimed - SLACK:
        yield _wrong(weight, target, off_grid, f"{claimed:.1%} pruned, {blocks:.1%} in zero blocks")
    elif claimed is None and zeros > FEW and blocks < zeros / 2:
        counted = f"{zeros:.1%} zero, {blocks:.1%} in zero blocks"
        if claim is None:
            yield runs_dense_note("block", weight.name, off_grid, counted)
        else:
            yield _wrong(weight, target, off_grid, counted)
    elif not blocks:
        yield runs_dense_note("block", weight.name, f"no block of {target.block} is zero")


def _recorded(weight: ReadWeight, claim: BlockClaim) -> list[int]:
    """Recorded block sizes along outputs, inputs, kernel; empty where there are none."""
    if claim.stored_block is None:
        return list(claim.block or ())
    axes = weight.stored_axes()
    return [claim.stored_block[a] for a in axes] if len(claim.stored_block) == len(axes) else []


def _fits(recorded: Sequence[int], shape: Sequence[int], block: Sequence[int]) -> bool:
    """Whether every recorded block is made of whole target blocks; what is not recorded is not wrong."""
    sizes = zip(shape, [*block, *[1] * len(shape)], [*recorded, *[1] * len(shape)], strict=False)
    whole = ((n, n if b == -1 else b, n if r == -1 else r) for n, b, r in sizes)
    return not recorded or all(r >= n or r % b == 0 for n, b, r in whole)


def _wrong(weight: ReadWeight, target: Target, sentence: str, detail: str) -> Finding:
    advice = f"prune with --structure block --block {target.block}"
    return Finding(FAIL, "block", weight.name, sentence, detail, advice)
