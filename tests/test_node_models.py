"""Every single-operator model of the onnx package is analysed, or refused in one sentence."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

import graphprune
from graphprune.errors import GraphpruneError
from graphprune.frontends.loading import OLDEST_OPSET

DATA = Path(os.path.dirname(onnx.__file__)) / "backend" / "test" / "data"
LIMIT = 2.0
"""Processor seconds for one model."""


def files(family: str) -> Iterator[tuple[str, onnx.ModelProto]]:
    for path in sorted((DATA / family).glob("*/model.onnx")):
        yield path.parent.name, onnx.load(path)


def generated() -> Iterator[tuple[str, onnx.ModelProto]]:
    """The node tests, which onnx generates instead of shipping them."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, about the reference outputs of special values
        cases = collect_testcases(None)
    for case in cases:
        yield case.name, case.model


def converted(family: str) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Files of an opset that graphprune refuses, in a newer one."""
    for name, model in files(family):
        if opset(model) < OLDEST_OPSET:
            try:
                yield name, onnx.version_converter.convert_version(model, 13)
            except RuntimeError:  # the converter has no adapter for a few old operators
                continue


def opset(model: onnx.ModelProto) -> int:
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)


@pytest.mark.parametrize("family", ["pytorch-converted", "pytorch-operator", "simple"])
def test_shipped_models(family: str) -> None:
    check(files(family), at_least=20)


@pytest.mark.parametrize("family", ["pytorch-converted", "pytorch-operator"])
def test_shipped_models_in_a_newer_opset(family: str) -> None:
    check(converted(family), at_least=20)


def test_generated_node_models() -> None:
    check(generated(), at_least=1000)


def check(models: Iterator[tuple[str, onnx.ModelProto]], at_least: int) -> None:
    count, failures = 0, []
    for name, model in models:
        count += 1
        failures += [f"{name}: {problem}" for problem in problems(model)]
    assert count >= at_least
    assert not failures, "\n".join(failures)


def problems(model: onnx.ModelProto) -> Iterator[str]:
    """What is wrong with the analysis of ``model``."""
    start = time.process_time()
    try:
        report = graphprune.analyze(model).to_dict()
    except GraphpruneError as error:
        if opset(model) >= OLDEST_OPSET:
            yield f"refused: {error}"
        return
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the failure that the test reports
        yield f"{type(error).__name__}: {error}"
        return
    json.dumps(report, allow_nan=False)
    operators = [n for n in model.graph.node if n.op_type != "Constant"]
    if not model.functions and len(report["nodes"]) != len(operators):
        yield f"{len(report['nodes'])} nodes in the report, {len(operators)} in the model"
    taken = time.process_time() - start
    if taken > LIMIT:
        yield f"took {taken:.1f} s"
