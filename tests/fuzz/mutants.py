"""Mutants: a source, and the mutations that make another model of it. The same words, the same bytes.

A source is a file's name (of tests.real_models or sample_models), or ``random:SEED``, a network of
tests.random_graphs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx

from tests.fuzz import (  # noqa: F401 - importing them fills the table
    attribute_mutations,
    model_mutations,
    node_mutations,
    tensor_mutations,
)
from tests.fuzz.mutations import MUTATIONS
from tests.random_graphs import build, random_recipe
from tests.real_models import shared_models

SAMPLE = Path(__file__).resolve().parents[2] / "sample_models" / "resnet20_cifar10.onnx"
MOST_STEPS = 4

VALID = (
    "rewire_alike", "insert_identity", "insert_transposes", "insert_reshapes", "insert_split", "insert_shuffle",
    "insert_statistic", "insert_residual", "insert_quantisation", "into_function", "into_branch", "share_tensor",
    "tensor_to_constant", "computed_tensor", "odd_name", "node_names", "add_output", "move_output",
    "drop_shapes",
)  # fmt: skip
"""Mutations that leave a network that runs, most of the time: half of the mutants have no others."""

SLOW = ("microsoft__fns_candy",)
"""Files that take longer than a mutant may, as they are."""


@dataclass(frozen=True)
class Mutant:
    """``steps``: (name of a mutation, seed of its choices), one after another."""

    source: str
    steps: tuple[tuple[str, int], ...]

    def build(self) -> onnx.ModelProto:
        model = onnx.ModelProto()
        model.CopyFrom(source_model(self.source))
        for name, seed in self.steps:
            MUTATIONS[name](model, np.random.default_rng(seed))
        return model

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Mutant:
        found = json.loads(text)
        return Mutant(found["source"], tuple((name, seed) for name, seed in found["steps"]))


@cache
def source_model(source: str) -> onnx.ModelProto:
    if source.startswith("random:"):
        return build(random_recipe(int(source.removeprefix("random:"))))
    paths = {p.stem: p for p in (SAMPLE, *shared_models())}
    return onnx.load(paths[source])


def draw(sources: Sequence[str], seed: int) -> Mutant:
    """A mutant: every second one of a random network, the others of ``sources``."""
    rng = np.random.default_rng(seed)
    known = sorted(VALID if rng.random() < 0.5 else MUTATIONS)
    count = int(min(rng.geometric(0.5), MOST_STEPS))
    steps = tuple((known[int(rng.integers(len(known)))], int(rng.integers(2**20))) for _ in range(count))
    if not sources or rng.random() < 0.5:
        return Mutant(f"random:{int(rng.integers(400))}", steps)
    return Mutant(sources[int(rng.integers(len(sources)))], steps)


def real_sources(largest: int) -> list[str]:
    """Names of the files of at most ``largest`` bytes."""
    paths = [p for p in (SAMPLE, *shared_models()) if p.stat().st_size <= largest]
    return [p.stem for p in paths if p.stem not in SLOW]
