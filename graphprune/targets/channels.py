"""Rule ``channels``: channel counts that are no multiple of what the target works on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graphprune.analysis import Analysis
from graphprune.reasons import Reason
from graphprune.targets.findings import FAIL, NOTE, Finding
from graphprune.targets.target import CONTRACTIONS, Target


def channel_findings(analysis: Analysis, target: Target) -> Iterator[Finding]:
    """Output channels of convolutions and matrix products whose number is no multiple of the target's.

    The model's inputs and outputs are as its users need them, and are not looked at. A count fails where
    removing channels can align it: there are more than the multiple, enough of them can go, and no
    constraint couples their number to that of others. The rest are notes: the target fills them up.
    Coupled channels (those that live and die together) are one finding, under their first producer.
    """
    multiple = target.multiple_of
    if multiple is None:
        return
    coupling = analysis.coupling
    seen: set[tuple[bytes, int]] = set()
    for ids, node in coupling.coupler.born:
        count = int(ids.size)
        channels = coupling.of(ids).reshape(-1)
        groups = np.unique(analysis.groups.group_of[channels])
        key = (groups.tobytes(), count)
        if node.op not in CONTRACTIONS or count % multiple == 0 or key in seen:
            continue
        seen.add(key)
        frozen = channels[coupling.frozen[channels]]
        events = [coupling.why[c] for c in frozen.tolist() if c in coupling.why]
        if any(event.reason is Reason.OUTPUT for event in events):
            continue
        sentence, detail = f"output channels are no multiple of {multiple}", f"{count} channels"
        reason = _fixed(analysis, channels, frozen, groups, multiple)
        if reason:
            yield Finding(NOTE, "channels", node.name, f"{sentence}: {reason}", detail)
        else:
            detail += f", {count % multiple} too many"
            advice = f"prune with --multiple-of {multiple}"
            yield Finding(FAIL, "channels", node.name, sentence, detail, advice)


def _fixed(
    analysis: Analysis, channels: np.ndarray, frozen: np.ndarray, groups: np.ndarray, multiple: int
) -> str:
    """Why removing some of ``channels`` cannot align their number; empty where it can."""
    if channels.size < multiple:
        return "too few to remove any"
    if channels.size - frozen.size < channels.size % multiple:
        why = analysis.coupling.why
        return next((why[c].sentence for c in frozen.tolist() if c in why), "they stay")
    coupling = analysis.coupling
    rows = [coupling.of(b.ids) for b in (*coupling.coupler.balances, *coupling.coupler.position_ties)]
    bound = any(np.isin(analysis.groups.group_of[r], groups[groups >= 0]).any() for r in rows)
    return "bound to the numbers of others" if bound else ""
