"""A bounded run of the mutation fuzzer, and what it found before. ``make fuzz`` runs it for longer."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.fuzz.judging import judge
from tests.fuzz.mutants import SAMPLE, Mutant, draw, real_sources
from tests.fuzz.mutations import MUTATIONS

COUNT = 150
LARGEST = 210_000
"""Bytes of the real files that are mutated here: they take milliseconds, not seconds."""


def test_mutants(tmp_path: Path) -> None:
    """Each is pruned and right, by two judges, or refused in one sentence."""
    sources = [*real_sources(LARGEST), SAMPLE.stem]
    kinds: Counter[str] = Counter()
    findings = []
    for seed in range(COUNT):
        mutant = draw(sources, seed)
        outcome = judge(mutant.build(), tmp_path, seed)
        kinds[outcome.kind] += 1
        kinds["removed"] += outcome.removed > 0
        kinds["compared"] += outcome.compared
        if outcome.kind == "finding":
            findings.append(f"seed {seed}, {mutant.to_json()}: {outcome.text}")
    assert not findings, "\n\n".join(findings)
    assert kinds["pruned"] > COUNT / 4  # or the mutations break too much to show anything
    assert kinds["refused"] > COUNT / 4
    assert kinds["removed"] > COUNT / 5
    assert kinds["compared"] > COUNT / 8


@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_every_mutation_changes_something(name: str) -> None:
    for number in range(60):
        before = Mutant(f"random:{number}", ())
        after = Mutant(f"random:{number}", ((name, number),))
        if before.build() != after.build():
            assert after.build() == Mutant.from_json(after.to_json()).build()
            return
    pytest.fail("it changed none of sixty networks")
