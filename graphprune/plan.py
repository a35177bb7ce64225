"""The decision as data: what was removed from which tensor, and what the proof needs to know.

A plan is plain JSON, so that a reader with numpy can rebuild the masked reference without this
package (README, "The plan file").
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from graphprune.errors import PlanError
from graphprune.plan_fields import check_fields

PLAN_VERSION = 1
PLAN_ENDING = ".plan.json"

Indices = list[int] | list[list[int]]
"""Removed positions along one axis; for a grouped weight one list per conv group."""


@dataclass
class Plan:
    """What pruning did. Tensor names are those of the original file.

    removed: tensor -> axis (as a string) -> removed indices in the original. A list of lists has one
        entry per equal block of axis 0 (the groups of a grouped convolution).
    contracted: tensor -> axes that consumers sum over. In the masked reference removed entries along
        them are 0; all other removed entries keep the original's values.
    gates: value -> axis -> indices set to 0 in the reference (two activations contract).
    kept_only: node -> axis -> removed indices: a cross-channel operator that the reference computes
        over the kept positions of that axis of its first input.
    blocks: tensor -> ``shape`` (block sizes along every axis of the stored tensor) and ``kept`` (numbers of
        the blocks that are not zero, row-major).
    patterns: tensor -> ``keep`` of every ``of`` consecutive weights along ``axis`` are not zero.
    pattern: the block or N:M pattern that was asked for, as ``16x8x1x1`` or ``2:4``.
    branches: residual branches that went: ``node`` and ``value``, the sum in the original, and ``removed``, the
        name of its operand that counts as 0.
    freed: ``channels`` and ``params`` that were removed because zeroed weights had made them useless.
    calibration: where inputs were looked at without training: ``samples``, ``compensate``, ``allocation``.
    analysis: what the original was read with, as far as it decides which channels belong together: ``attention``,
        ``allow_inexact`` and ``input_shapes``.
    renamed: name in the pruned file -> name in the original.
    added: names that exist only in the pruned file -> what they are for.
    fidelity: max_rel_diff, exact, nodes (kept_only nodes), distance_to_original, and more.
    """

    source_sha256: str
    structure: str = "channel"
    method: str = "magnitude"
    seed: int = 0
    weights: str = "original"
    budget: dict[str, Any] = field(default_factory=dict)
    removed: dict[str, dict[str, Indices]] = field(default_factory=dict)
    contracted: dict[str, list[int]] = field(default_factory=dict)
    gates: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    kept_only: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    blocks: dict[str, dict[str, Any]] = field(default_factory=dict)
    patterns: dict[str, dict[str, Any]] = field(default_factory=dict)
    pattern: str = ""
    branches: list[dict[str, str]] = field(default_factory=list)
    freed: dict[str, int] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)
    analysis: dict[str, Any] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    added: dict[str, str] = field(default_factory=dict)
    params: dict[str, int] = field(default_factory=dict)
    macs: dict[str, int] = field(default_factory=dict)
    fidelity: dict[str, Any] = field(default_factory=dict)
    version: int = PLAN_VERSION

    def to_dict(self) -> dict[str, Any]:
        """The JSON object."""
        return asdict(self)

    def to_json(self) -> str:
        """The JSON text, stable in order."""
        return json.dumps(self.to_dict(), indent=1, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        """Raises PlanError for missing or unknown fields, values of another type, or another version."""
        names = {f.name for f in fields(cls)}
        unknown = sorted(set(data) - names)
        if unknown:
            raise PlanError(
                f"the plan has an unknown field {unknown[0]!r}: it was not written by this version"
            )
        if data.get("version") != PLAN_VERSION:
            raise PlanError(
                f"the plan has version {data.get('version')!r}; this graphprune reads {PLAN_VERSION}"
            )
        if "source_sha256" not in data:
            raise PlanError("the plan has no source_sha256: it is not a graphprune plan")
        check_fields(data)
        return cls(**data)

    @classmethod
    def load(cls, path: Path) -> Plan:
        """Read a plan file. Raises PlanError."""
        if not path.exists():
            raise PlanError(
                f"{path}: no such plan: prune writes it beside its result (OUT.plan.json), and verify takes --plan"
            )
        if not path.is_file():
            raise PlanError(f"{path} is no plain file: name the .plan.json that prune wrote")
        try:
            data = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
        except RecursionError as error:
            raise PlanError(f"{path} is not a readable plan: it is nested too deeply") from error
        except (OSError, ValueError) as error:  # JSON's and UTF-8's errors are ValueErrors
            raise PlanError(f"{path} is not a readable plan: {error}") from error
        if not isinstance(data, dict):
            raise PlanError(f"{path} is not a graphprune plan: it holds no JSON object")
        return cls.from_dict(data)


def _no_number(text: str) -> Any:
    raise ValueError(f"it holds {text}, which is no number in JSON")


def beside(output: Path, ending: str) -> Path:
    """``OUT.onnx`` -> ``OUT`` with another ending: where the files that belong to a model lie."""
    return output.with_suffix(ending) if output.suffix in (".onnx", ".pt2") else Path(f"{output}{ending}")


def beside_plan(plan: Path, ending: str) -> Path:
    """``OUT.plan.json`` -> ``OUT`` with another ending."""
    return plan.with_name(plan.name.removesuffix(PLAN_ENDING) + ending)


def plan_path(output: Path) -> Path:
    """``OUT.onnx`` -> ``OUT.plan.json``."""
    return beside(output, PLAN_ENDING)


def recipe_path(output: Path) -> Path:
    """``OUT.onnx`` -> ``OUT.recipe.toml``."""
    return beside(output, ".recipe.toml")


def history_path(output: Path) -> Path:
    """``OUT.onnx`` -> ``OUT.history.json``."""
    return beside(output, ".history.json")
