"""Latency asked for against latency reached: ``python -m tests.benchmarks.latency_budget``.

ResNet-20 and two third-party files (where ../shared/models is) at 0.8, 0.6 and 0.4 of their latency, in one shot. What
is reached is measured again afterwards, from the written files, by ``bench``: its ratio with a 95 % confidence
interval. Nothing else should run on the machine. Rows that exist already are kept; they go to
results/latency_budget.jsonl, the table to results/latency_budget.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import graphprune
from graphprune.engine import Engine
from graphprune.errors import BudgetError
from graphprune.latency import Turns, bench
from graphprune.latency.multiples import measure_multiples
from tests.benchmarks.trained import rows, short_commit
from tests.real_models import SHARED_MODELS

RESULTS = Path(__file__).resolve().parent / "results" / "latency_budget.jsonl"
TABLE = RESULTS.with_suffix(".md")
MODELS = {
    "ResNet-20": Path(__file__).resolve().parents[2] / "sample_models" / "resnet20_cifar10.onnx",
    "UltraFace slim 320": SHARED_MODELS / "Linzaer__ultraface_slim320_simp.onnx",
    "YOLOX-nano": SHARED_MODELS / "Kazuhito00__yolox_nano.onnx",
}
REQUESTED = (0.8, 0.6, 0.4)


def main() -> None:
    """Run what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--latency", nargs="+", type=float, default=list(REQUESTED))
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--seconds", type=float, default=10.0, help="of the last measurement")
    parser.add_argument("--results", type=Path, default=RESULTS)
    asked = parser.parse_args()
    known = {(r["model"], r["requested"], r["threads"]): r for r in rows(asked.results)}
    for name in asked.model:
        if not MODELS[name].exists():
            print(f"{name}: left out, {MODELS[name]} is absent")
            continue
        for threads in asked.threads:
            for requested in asked.latency:
                key = (name, requested, threads)
                if key not in known:
                    known[key] = row = {
                        "model": name,
                        "requested": requested,
                        **measure(MODELS[name], requested, Engine(threads), asked.seconds),
                        "commit": short_commit(),
                    }
                    print(json.dumps(row), flush=True)
                    asked.results.write_text("".join(json.dumps(r) + "\n" for r in known.values()))
    asked.results.with_suffix(".md").write_text(table(list(known.values())))


def measure(path: Path, requested: float, engine: Engine, seconds: float) -> dict[str, Any]:
    """One budget: what the plan says, and what ``bench`` says of the files."""
    start = time.perf_counter()
    row: dict[str, Any] = {**engine.to_dict(), "rule": measure_multiples(engine).rule}
    try:
        result = graphprune.prune(path, latency=requested, engine=engine)
    except BudgetError as error:
        return row | {"refused": str(error), "seconds": round(time.perf_counter() - start, 1)}
    spent = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        small = result.save(Path(folder) / "small.onnx")
        found = bench(path, small, engine=engine, turns=Turns(seconds=seconds), profile=False)
    before, after = found.models
    assert after.ratio is not None
    macs = result.plan.macs
    return row | {
        "planned": result.plan.budget["measured"],
        "reached": after.ratio.to_dict(),
        "before_ms": round(1000 * before.seconds.median, 4),
        "after_ms": round(1000 * after.seconds.median, 4),
        "spread": round(max(m.seconds.relative for m in found.models), 3),
        "macs": round(macs["after"] / macs["before"], 4),
        "notes": [n for n in (*result.analysis.notes, *found.notes) if "sizes" not in n],
        "seconds": round(spent, 1),
    }


def table(found: list[dict[str, Any]]) -> str:
    """As the README shows it."""
    lines = [
        "| model | threads | asked | measured twice | bench afterwards (95 %) | MACs left | ms before | ms after | s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for r in found:
        shown = f"| {r['model']} | {r['threads'] or 'default'} | {r['requested']:g} "
        if "refused" in r:
            lines.append(f"{shown}| refused: {r['refused']} | | | | | {r['seconds']:.0f} |")
            continue
        twice = " and ".join(f"{x:.3f}" for x in r["planned"])
        again = f"{r['reached']['value']:.3f} ({r['reached']['low']:.3f} to {r['reached']['high']:.3f})"
        times = f"{r['before_ms']:.3g} | {r['after_ms']:.3g} | {r['seconds']:.0f}"
        lines.append(f"{shown}| {twice} | {again} | {r['macs']:.2f} | {times} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
