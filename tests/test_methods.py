"""The catalogue of methods: what the registries hold, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from graphprune.branches.registry import all_branch_methods
from graphprune.calibration.criteria import all_data_criteria
from graphprune.catalog import all_methods, method_table
from graphprune.criteria import UnitRows, all_criteria, criterion, registry
from graphprune.methods import all_trained

STRUCTURES = {"channel", "block", "nm", "branch"}


def test_every_method_is_listed_with_its_source() -> None:
    found = {m.name: m for m in all_methods()}
    assert set(found) == {*all_criteria(), *all_data_criteria(), *all_trained(), *all_branch_methods()}
    for m in found.values():
        assert m.summary
        assert set(m.structures) <= STRUCTURES
        assert m.data in ("none", "inputs", "labels")
        assert m.citation or m.name == "random"
    assert found["smart"].kind == "trained"
    assert found["wanda"].kind == "calibrated"
    assert found["bn-scale"].structures == ("channel",)


def test_a_method_from_outside_appears(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_CRITERIA", dict(registry._CRITERIA))

    @criterion("first-weight", citation="nobody | 2026")
    def first_weight(units: UnitRows) -> object:
        """The first weight."""
        return abs(units.weights[:, 0])

    assert (
        "| `first-weight` | one shot | channel, block, nm | none | The first weight | nobody \\| 2026 |"
        in method_table()
    )


def test_listing_needs_no_torch() -> None:
    code = "import sys, graphprune.catalog as c; c.all_methods(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    from graphprune.__main__ import command_line

    main = command_line()
    assert main(["methods", "--json", "-"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [m["name"] for m in listed] == [m.name for m in all_methods()]
    assert main(["methods"]) == 0
    shown = capsys.readouterr().out
    assert all(m.name in shown for m in all_methods())
