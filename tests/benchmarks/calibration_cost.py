"""Time and peak memory of every method without training: ``python -m tests.benchmarks.calibration_cost``.

A CIFAR network of 1.1 M parameters (ResNet-20, twice as wide; half of the channels) and ResNet-50 (30 %), both with
random weights; inputs are noise, as many as the command line would read. Each row is a process of its own, so that the
peak is its own; nothing else should run on the machine. Rows go to results/calibration_cost.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from sample_models.export import export_module
from sample_models.resnet import resnet20, resnet50
from tests.benchmarks.trained import machine, rows, short_commit

RESULTS = Path(__file__).resolve().parent / "results" / "calibration_cost.jsonl"
TABLE = RESULTS.with_suffix(".md")
NETWORKS = {
    "ResNet-20 x 2 (1.1 M)": (lambda: resnet20(width=32), (3, 32, 32), 0.5),
    "ResNet-50 (25.6 M)": (resnet50, (3, 224, 224), 0.3),
}
METHODS = ("wanda", "flap", "obs", "reconstruct")


def main() -> None:
    """Run what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", default=list(METHODS))
    parser.add_argument("--network", nargs="+", default=list(NETWORKS))
    asked = parser.parse_args()
    known = {(r["network"], r["method"]): r for r in rows(RESULTS)}
    with tempfile.TemporaryDirectory() as folder:
        for network in asked.network:
            build, shape, share = NETWORKS[network]
            path = Path(folder) / "model.onnx"
            torch.manual_seed(0)
            export_module(build().eval(), path, torch.randn(1, *shape), ("logits",))
            for method in asked.only:
                if (network, method) not in known:
                    row = {"network": network, "method": method, **measure(path, method, share)}
                    print(json.dumps(row), flush=True)
                    known[network, method] = row
                    RESULTS.write_text("".join(json.dumps(r) + "\n" for r in known.values()))
            path.unlink()
    lines = ["| network | method | samples | seconds | peak memory |", "| --- | --- | ---: | ---: | ---: |"]
    lines += [
        f"| {r['network']} | {r['method']} | {r['samples']} | {r['seconds']:.0f} | {r['peak_mb'] / 1000:.1f} GB |"
        for r in known.values()
    ]
    TABLE.write_text("\n".join(lines) + "\n")


def measure(path: Path, method: str, share: float) -> dict[str, Any]:
    """One run of the command line, proof included."""
    out = path.with_name("small.onnx")
    start = time.perf_counter()
    command = [sys.executable, "-m", "graphprune", "prune", str(path), "--sparsity", str(share)]
    command += ["--method", method, "-o", str(out), "--force"]
    child = os.posix_spawn(sys.executable, command, dict(os.environ))
    _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit(f"{method} failed on {path.name}")
    plan = json.loads(out.with_suffix(".plan.json").read_text())
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "peak_mb": usage.ru_maxrss // 1024,
        "samples": plan["calibration"]["samples"],
        "proof": plan["fidelity"]["max_rel_diff"],
        "commit": short_commit(),
        "machine": machine(),
    }


if __name__ == "__main__":
    main()
