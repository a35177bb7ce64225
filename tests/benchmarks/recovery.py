"""What training gains from pruning without training: where masks start, the refit after hardening, what trains on.

    python -m tests.benchmarks.recovery                     # runs what is missing, then writes the table
    python -m tests.benchmarks.recovery --only "smart" ...  # some rows
    python -m tests.benchmarks.recovery --validate --results FILE

ResNet-20 on CIFAR-10, channels at 50 % (not aligned), unlabelled training images, the original network as the
teacher, recipe ``smart`` with few epochs: ``--epochs`` of search and as many of fine-tuning, or all of them for a
network that ``reconstruct`` has pruned (a search of one step, which moves next to nothing, then the refit). Accuracy on
test images, the first ``--measured`` of them; ``--validate`` measures on other training images. A row is one line of
results/recovery.jsonl and is not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

import graphprune
from graphprune import TrainingOptions
from tests.benchmarks.trained import ROOT, Watch, accuracy, images, machine, recipe_of, rows, short_commit

RESULTS = Path(__file__).resolve().parent / "results" / "recovery.jsonl"
TABLE = RESULTS.with_name("recovery.md")
MODEL = ROOT / "sample_models" / "resnet20_cifar10.onnx"
BOTH = ['init-from="reconstruct"', "refit=true"]
NO_SEARCH = [*BOTH, "search-epochs=0.01", "mask-lr=1e-9", "snap=0", "budget-anneal=0"]
ARMS: dict[str, list[str] | None] = {
    "smart": [],
    "smart, init-from": BOTH[:1],
    "smart, refit": BOTH[1:],
    "smart, init-from and refit": BOTH,
    "reconstruct": None,
    "reconstruct, then all": NO_SEARCH,
    "reconstruct, then biases and norms": [*NO_SEARCH, 'trainable="biases-and-norms"'],
    "reconstruct, then biases and norms, lr 0.01": [*NO_SEARCH, 'trainable="biases-and-norms"', "lr=0.01"],
    "smart, biases and norms": ['trainable="biases-and-norms"'],
    "smart, refit, biases and norms": ["refit=true", 'trainable="biases-and-norms"'],
}
"""Settings beside the recipe; None does not train."""


def main() -> None:
    """Run what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=2, help="of search, and of fine-tuning")
    parser.add_argument("--measured", type=int, default=10_000, help="images to measure on")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="only write the table")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for seed in [] if asked.table else asked.seeds:
            for arm in asked.only:
                key = {
                    "arm": arm,
                    "seed": seed,
                    "images": asked.images,
                    "measured": asked.measured,
                    "epochs": asked.epochs,
                    "measured_on": "validation" if asked.validate else "test",
                    "set": ARMS[arm],
                }
                if any(all(row.get(k) == v for k, v in key.items()) for row in rows(asked.results)):
                    continue
                data = images("resnet20", asked.images, asked.validate, Path(folder))
                row = run(key, (data[0], first(data[1], asked.measured)))
                with asked.results.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    if asked.results == RESULTS:
        TABLE.write_text(table(rows(RESULTS)))
    sys.stdout.write(table(rows(asked.results)))


def first(data: Path, count: int) -> Path:
    """A file of the first ``count`` images."""
    found = data.with_name(f"{count}_{data.name}")
    with np.load(data) as stored:
        np.savez(found, **{n: a if n in ("mean", "std") else a[:count] for n, a in stored.items()})
    return found


def run(key: dict[str, Any], data: tuple[Path, Path]) -> dict[str, Any]:
    """One row."""
    start = time.perf_counter()
    common: dict[str, Any] = {"sparsity": 0.5, "multiple_of": 1, "seed": key["seed"]}
    if key["set"] is None:
        result = graphprune.prune(MODEL, method="reconstruct", data=data[0], samples=256, **common)
        metrics = {"after hardening": accuracy(result, data[1])}
    else:
        epochs = key["epochs"]
        after = 2 * epochs if NO_SEARCH[-1] in key["set"] else epochs
        changes = [f"search-epochs={epochs}", f"finetune-epochs={after}", *key["set"]]
        recipe = recipe_of({"recipe": "smart", "set": changes})
        watch = Watch({"model": key["arm"], "sparsity": 0.5, "recipe": "smart", "seed": key["seed"]})
        options = TrainingOptions(
            str(data[0]), replace(recipe, device="cpu"), eval_data=str(data[1]), watcher=watch
        )
        result = graphprune.prune(MODEL, method="smart", training=options, **common)
        metrics = result.metrics
    return {
        **key,
        **metrics,
        "params": result.plan.params,
        "achieved": result.plan.budget["achieved"],
        "fidelity": result.fidelity.max_rel_diff,
        "seconds": round(time.perf_counter() - start),
        "commit": short_commit(),
        "machine": machine(),
        "date": date.today().isoformat(),
        "command": " ".join(["python -m tests.benchmarks.recovery", *sys.argv[1:]]),
    }


def table(found: list[dict[str, Any]]) -> str:
    """Means over seeds, as Markdown."""
    lines = [
        "Accuracy in %, mean over seeds. Written by `python -m tests.benchmarks.recovery --table` from recovery.jsonl.",
        "",
        "| arm | training images | epochs | test images | seeds | after hardening | after training | seconds |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for arm in ARMS:
        own = [r for r in found if r["arm"] == arm]
        for sizes in sorted({size_of(r) for r in own}):
            members = [r for r in own if size_of(r) == sizes]
            count, epochs, measured = sizes
            cells = [mean(members, k) for k in ("after hardening", "after fine-tuning")]
            seconds = sum(m["seconds"] for m in members) / len(members)
            lines.append(
                f"| {arm} | {count:,} | {2 * epochs} | {measured:,} | {len(members)} | {cells[0]} | {cells[1]} "
                f"| {seconds:.0f} |"
            )
    before = [r["before"] for r in found if "before" in r]
    lines += ["", f"Before pruning: {100 * before[0]:.2f} %." if before else "No trained row yet."]
    return "\n".join(lines) + "\n"


def size_of(row: dict[str, Any]) -> tuple[int, int, int]:
    """Training images, epochs of a phase, images measured on."""
    return row["images"], row["epochs"], row["measured"]


def mean(members: list[dict[str, Any]], when: str) -> str:
    """``83.51``, or a dash where nothing trained."""
    values = [100 * m[when] for m in members if when in m]
    return f"{sum(values) / len(values):.2f}" if values else "-"


if __name__ == "__main__":
    main()
