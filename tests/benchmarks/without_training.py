"""Accuracy without training, by method, images and share of the channels.

    python -m tests.benchmarks.without_training                # runs what is missing, then writes the table
    python -m tests.benchmarks.without_training --table        # the table alone
    python -m tests.benchmarks.without_training --tune ...     # measured on training images instead, not recorded

ResNet-20 of this repository and a third-party CNN, both trained on CIFAR-10. Calibration images are drawn from the
first 10,000 training images by a seed; accuracy is measured on the 10,000 test images. Settings were chosen on training
images 10,000 to 12,000. Channels are not aligned (``multiple_of=1``). onnxsim 0.8.1, where it is installed
(``pip install --no-deps onnxsim==0.8.1``), prunes with its own share and 256 images; ours then goes to the parameter
count that it reached. One row is one line of results/without_training.jsonl.
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import statistics
import sys
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import graphprune
from graphprune.calibration.collect import batched
from tests.benchmarks.one_shot import accuracy, datasets, networks
from tests.benchmarks.trained import machine, rows, short_commit

RESULTS = Path(__file__).resolve().parent / "results" / "without_training.jsonl"
TABLE = RESULTS.with_name("without_training.md")
SHARES = (0.1, 0.2, 0.3, 0.5)
METHODS: dict[str, dict[str, Any]] = {
    "magnitude": {"method": "magnitude"},
    "wanda": {"method": "wanda"},
    "flap + bias": {"method": "flap"},
    "obs + lstsq, uniform": {"method": "obs", "allocation": "uniform"},
    "reconstruct": {"method": "reconstruct"},
}
DATA = ("none", "256", "2000")
SEEDS = (0, 1, 2)
POOL = 10_000
TUNING = slice(10_000, 12_000)

Row = dict[str, Any]


def main() -> None:
    """Run what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="METHOD")
    parser.add_argument("--network", nargs="+", default=[])
    parser.add_argument("--data", nargs="+", default=list(DATA))
    parser.add_argument("--shares", nargs="+", type=float, default=list(SHARES))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--tune", action="store_true", help="measure on training images, record nothing")
    parser.add_argument("--table", action="store_true", help="only write the table")
    asked = parser.parse_args()
    known = {} if asked.tune else {key(r): r for r in rows(RESULTS)}
    for row in [] if asked.table else planned(asked):
        if key(row) in known:
            continue
        found = measure(row, tune=asked.tune)
        print(json.dumps(found), flush=True)
        if not asked.tune:
            known[key(row)] = found
            RESULTS.write_text("".join(json.dumps(r) + "\n" for r in known.values()))
    if not asked.tune:
        TABLE.write_text(table(known.values()))


def key(row: Row) -> tuple[Any, ...]:
    """What makes a row."""
    return tuple(row[k] for k in ("network", "method", "data", "share", "seed"))


def planned(asked: argparse.Namespace) -> Iterable[Row]:
    """Rows in the order of their worth: seed by seed."""
    names = [n for n, _, _ in networks(np.zeros((1, 1, 1, 3)))]
    for seed in asked.seeds:
        for network in names:
            if asked.network and network not in asked.network:
                continue
            for method in METHODS:
                for data in asked.data:
                    if (asked.only and method not in asked.only) or (
                        method == "magnitude" and data != "none"
                    ):
                        continue
                    if method == "magnitude" and seed:
                        continue
                    for share in asked.shares:
                        yield {
                            "network": network,
                            "method": method,
                            "data": data,
                            "share": share,
                            "seed": seed,
                        }
            if not asked.only and not asked.tune and not seed and importlib.util.find_spec("onnxsim"):
                for method in ("onnxsim", "onnxsim wanda"):
                    for share in asked.shares:
                        yield {
                            "network": network,
                            "method": method,
                            "data": "256",
                            "share": share,
                            "seed": seed,
                        }


@cache
def cifar() -> Any:
    """(images, labels) of training and of test, images in 0..1."""
    train, test = datasets().cifar10(12_000, 10_000)
    return (train[0] / np.float32(255), train[1]), (test[0] / np.float32(255), test[1])


def measure(row: Row, *, tune: bool) -> Row:
    """Prune and evaluate."""
    (images, labels), test = cifar()
    held = (images[TUNING], labels[TUNING]) if tune else test
    path, _, scaled = next((p, n, x) for n, p, x in networks(images) if n == row["network"])
    evaluated = next(x for n, _, x in networks(held[0]) if n == row["network"])
    name = graphprune.load(path).ir.graph.inputs[0].name
    feeds = None
    if row["data"] != "none":
        chosen = np.random.default_rng(row["seed"]).choice(POOL, int(row["data"]), replace=False)
        pixels = np.ascontiguousarray(scaled[chosen].transpose(0, 3, 1, 2), np.float32)
        feeds = batched({name: pixels}, 64)
    start = time.perf_counter()
    if row["method"].startswith("onnxsim"):
        found = rival(row, path, feeds)
        took = time.perf_counter() - start
        before, after = parameters(onnx.load(path)), parameters(found)
        ours = graphprune.prune(
            path, params=1 - after / before, data=feeds, method="reconstruct", multiple_of=1, seed=row["seed"]
        )
        extra = {"ours": accuracy(ours.model.to_onnx(), evaluated, held[1])}
        params = after / before
        pruned = found
    else:
        result = graphprune.prune(
            path, sparsity=row["share"], data=feeds, multiple_of=1, seed=row["seed"],
            samples=256 if feeds is None else None, **METHODS[row["method"]],
        )  # fmt: skip
        took = time.perf_counter() - start
        params = result.plan.params["after"] / result.plan.params["before"]
        extra = {"proof": result.fidelity.max_rel_diff, "achieved": result.plan.budget["achieved"]}
        pruned = result.model.to_onnx()
    return {
        **row,
        "accuracy": accuracy(pruned, evaluated, held[1]),
        "params": round(params, 4),
        "seconds": round(took, 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        **extra,
        "commit": short_commit(),
        "machine": machine(),
    }


def rival(row: Row, path: Path, feeds: Any) -> onnx.ModelProto:
    """onnxsim's structured pruning, by magnitude or Wanda, with one share everywhere."""
    onnxsim = importlib.import_module("onnxsim")
    model = onnx.load(path)
    if row["method"] == "onnxsim":
        return onnxsim.apply_structured_pruning(model, sparsity=row["share"])
    return onnxsim.apply_structured_wanda_pruning(
        model, calibration_data=feeds, num_samples=len(feeds), sparsity=row["share"], seed=row["seed"]
    )


def parameters(model: onnx.ModelProto) -> int:
    """Numbers in floating-point initializers."""
    return sum(int(np.prod(i.dims)) for i in model.graph.initializer if i.data_type == onnx.TensorProto.FLOAT)


def table(found: Iterable[Row]) -> str:
    """Means over seeds, with the spread where there are several."""
    rows = list(found)
    parts = []
    for network in dict.fromkeys(r["network"] for r in rows):
        own = [r for r in rows if r["network"] == network]
        parts += [f"\n{network}, test accuracy at", ""]
        parts += [
            "| method | images | 10 % | 20 % | 30 % | 50 % | seconds |",
            "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
        ]
        for method in METHODS:
            for data in DATA:
                mine = [r for r in own if r["method"] == method and r["data"] == data]
                if mine:
                    cells = [spread([r["accuracy"] for r in mine if r["share"] == s]) for s in SHARES]
                    seconds = statistics.median(r["seconds"] for r in mine)
                    parts.append(f"| {method} | {data} | " + " | ".join(cells) + f" | {seconds:.1f} |")
        rivals = [r for r in own if r["method"].startswith("onnxsim")]
        if rivals:
            parts += [
                "",
                "| onnxsim 0.8.1 | its share | parameters left | its accuracy | reconstruct, as many parameters |",
            ]
            parts += ["| --- | ---: | ---: | ---: | ---: |"]
            parts += [
                f"| {r['method']} | {r['share']:.0%} | {r['params']:.0%} | {r['accuracy']:.1f} | {r['ours']:.1f} |"
                for r in sorted(rivals, key=lambda r: (r["method"], r["share"]))
            ]
    return "\n".join(parts).strip() + "\n"


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    if not values:
        return ""
    text = f"{statistics.mean(values):.1f}"
    return text if len(values) < 2 else f"{text} ± {statistics.stdev(values):.1f}"


if __name__ == "__main__":
    sys.exit(main())
