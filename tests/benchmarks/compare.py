"""Every trained method and magnitude on equal terms: ``make compare``.

    python -m tests.benchmarks.compare                        # runs what is missing, then writes the table
    python -m tests.benchmarks.compare --seeds 0 --methods smart pdp --recipes smart
    python -m tests.benchmarks.compare --table                # the table alone

ResNet-20 on CIFAR-10, channels at 50 % and blocks of 16x8x1x1 at 70 %; 10,000 unlabelled training images (all 50,000
where there is a GPU), the original network as the teacher, the same 8 epochs, optimiser, schedule and augmentation
for all: of the recipes ``smart`` (Adam) and ``smart-plus`` (Muon, averaged weights, light augmentation). magnitude
prunes at once and trains on for all epochs. Accuracy on the 10,000 test images; ``--validate`` measures on 5,000 other
training images, which is where ``TUNED`` comes from. A row is one line of results/compare.jsonl and is not run again;
two processes may run side by side on different seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import graphprune
from graphprune import TrainingOptions
from tests.benchmarks.trained import ROOT, Watch, images, machine, recipe_of, rows, short_commit

RESULTS = Path(__file__).resolve().parent / "results" / "compare.jsonl"
TABLE = RESULTS.with_name("compare.md")
MODEL = ROOT / "sample_models" / "resnet20_cifar10.onnx"
METHODS = ("magnitude", "gmp", "acdc", "awg", "pas", "pdp", "smart")
RECIPES = ("smart", "smart-plus")
STRUCTURES = {
    "channel": {"structure": "channel", "sparsity": 0.5},
    "block": {"structure": "block", "block": "16x8x1x1", "sparsity": 0.7},
}
TITLES = {"channel 50 %": "channel", "block 16x8 70 %": "block"}
TUNED: dict[tuple[str, str], list[str]] = {}
"""(method, recipe) -> settings that did better on validation than the method's own."""


def main() -> None:
    """Run what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES)
    parser.add_argument("--structures", nargs="+", default=list(STRUCTURES), choices=list(STRUCTURES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--hours", type=float, default=8.0, help="begin no row after so many hours")
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--set", nargs="*", default=[], metavar="FLAG=VALUE", help="change the recipe")
    parser.add_argument("--table", action="store_true", help="only write the table")
    asked = parser.parse_args()
    end = time.monotonic() + 3600 * asked.hours
    with tempfile.TemporaryDirectory() as folder:
        for key in [] if asked.table else wanted(asked):
            if any(all(row.get(k) == v for k, v in key.items()) for row in rows(asked.results)):
                continue
            if time.monotonic() > end:
                break
            data = images("resnet20", key["images"], asked.validate, Path(folder))
            row = run(key, data)
            with asked.results.open("a") as file:
                file.write(json.dumps(row) + "\n")
    if asked.results == RESULTS:
        TABLE.write_text(table(rows(RESULTS)))
    sys.stdout.write(table(rows(asked.results)))


def wanted(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Rows in the order in which they are run: one seed of everything first."""
    device, count, amp = "cpu", 10_000, "bf16"
    import torch

    if torch.cuda.is_available():
        device, count = "cuda", 50_000
    for seed in asked.seeds:
        for structure in asked.structures:
            for recipe in asked.recipes:
                for method in asked.methods:
                    yield {
                        "structure": structure,
                        "method": method,
                        "recipe": recipe,
                        "seed": seed,
                        "images": count,
                        "device": device,
                        "amp": amp,
                        "measured_on": "validation" if asked.validate else "test",
                        "set": [*TUNED.get((method, recipe), []), *asked.set],
                    }


def run(key: dict[str, Any], data: tuple[Path, Path]) -> dict[str, Any]:
    """One row."""
    start = time.perf_counter()
    recipe = replace(recipe_of(key), amp=key["amp"], device=key["device"])
    if key["method"] == "magnitude":  # pruned at once: what others search in, it trains on in
        recipe = replace(recipe, finetune_epochs=recipe.total_epochs)
    watch = Watch({"model": key["structure"], "sparsity": key["method"], **key})
    options = TrainingOptions(str(data[0]), recipe, eval_data=str(data[1]), watcher=watch)
    result = graphprune.prune(
        MODEL, method=key["method"], seed=key["seed"], training=options, **STRUCTURES[key["structure"]]
    )
    return {
        **key,
        **result.metrics,
        "params": result.plan.params,
        "achieved": result.plan.budget["achieved"],
        "fidelity": result.fidelity.max_rel_diff,
        "seconds": round(time.perf_counter() - start),
        "commit": short_commit(),
        "machine": machine(),
        "date": date.today().isoformat(),
        "command": " ".join(["python -m tests.benchmarks.compare", *sys.argv[1:]]),
    }


def table(found: list[dict[str, Any]]) -> str:
    """Mean and spread over seeds, as Markdown."""
    columns = [(s, r) for s in TITLES.values() for r in RECIPES]
    names = {v: k for k, v in TITLES.items()}
    heads = [f"{names[s]}, {r}" for s, r in columns]
    lines = [
        "Accuracy after training, in %, mean ± standard deviation (seeds); after hardening in brackets. Written by",
        "`python -m tests.benchmarks.compare --table` from compare.jsonl, where every row has its command, machine,",
        "commit and date.",
        "",
        "| method | " + " | ".join(heads) + " |",
        "| --- |" + " ---: |" * len(heads),
    ]
    for method in METHODS:
        cells = [
            cell([r for r in found if (r["structure"], r["recipe"], r["method"]) == (s, k, method)])
            for s, k in columns
        ]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    before = [r["before"] for r in found if "before" in r]
    lines += ["", f"Before pruning: {100 * before[0]:.2f} %." if before else "No row yet."]
    if found:
        machines = sorted({f"{r['machine']} ({r['device']}, {r['amp']})" for r in found})
        dates = sorted({r["date"] for r in found})
        lines.append(
            f"{len(found)} rows, {dates[0]} to {dates[-1]}, on {'; '.join(machines)}; "
            f"{statistics.median(r['seconds'] for r in found):.0f} s each in the median."
        )
    return "\n".join(lines) + "\n"


def cell(members: list[dict[str, Any]]) -> str:
    """``83.51 ± 0.20 (3) [80.1]``."""
    if not members:
        return ""
    final = [100 * m["after fine-tuning"] for m in members]
    hard = statistics.mean(100 * m["after hardening"] for m in members)
    spread = f" ± {statistics.stdev(final):.2f}" if len(final) > 1 else ""
    return f"{statistics.mean(final):.2f}{spread} ({len(final)}) [{hard:.1f}]"


if __name__ == "__main__":
    main()
