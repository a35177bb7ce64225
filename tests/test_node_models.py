"""Every single-operator model that ships with onnx is analysed, or refused in one sentence."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import onnx
import pytest

import graphprune
from graphprune.errors import GraphpruneError

DATA = Path(os.path.dirname(onnx.__file__)) / "backend" / "test" / "data"
FAMILIES = ("node", "pytorch-converted", "pytorch-operator", "simple")
LIMIT = 2.0  # seconds for one model


def models(family: str) -> list[Path]:
    return sorted((DATA / family).glob("*/model.onnx"))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_model_is_analysed_or_refused(family: str) -> None:
    failures = []
    found = models(family)
    for path in found:
        problem = analyse(path)
        if problem is not None:
            failures.append(f"{path.parent.name}: {problem}")
    assert found, f"onnx ships no {family} models any more"
    assert not failures, "\n".join(failures)


def analyse(path: Path) -> str | None:
    """What is wrong with the analysis of ``path``, None where nothing is."""
    start = time.process_time()
    try:
        report = graphprune.analyze(path).to_dict()
        json.dumps(report, allow_nan=False)
        if report["model"] != str(path) or len(report["nodes"]) != nodes_in(path):
            return "the report does not describe the model"
    except GraphpruneError as error:
        if "\n" in str(error) or not str(error):
            return f"not one sentence: {error}"
    except Exception as error:  # the test is that there is none
        return f"{type(error).__name__}: {error}"
    taken = time.process_time() - start
    return f"took {taken:.1f} s" if taken > LIMIT else None


def nodes_in(path: Path) -> int | None:
    """Nodes of the main graph; None where local functions are inlined."""
    model = onnx.load(path)
    return None if model.functions else len(model.graph.node)
