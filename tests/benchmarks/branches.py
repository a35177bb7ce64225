"""Accuracy after removing whole residual branches: ``python -m tests.benchmarks.branches``.

ResNet-20 of this repository, calibrated on CIFAR-10 training images, measured on test images; nothing is trained.
"""

from __future__ import annotations

import argparse

import numpy as np
import onnx
from rich.console import Console
from rich.table import Table

import graphprune
from graphprune.branches.registry import all_branch_methods
from tests.benchmarks.one_shot import accuracy, datasets, networks

MOST = 4
"""Branches that are removed, at most."""


def main() -> None:
    """Print one row for each method."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=256, help="images that the methods look at")
    parser.add_argument("--test", type=int, default=2000, help="test images that accuracy is measured on")
    asked = parser.parse_args()
    (pixels, _), (tests, labels) = datasets().cifar10(n_train=asked.samples, n_test=asked.test)
    _, path, seen = next(networks(pixels / 255))
    _, _, images = next(networks(tests / 255))
    feed = {"input": np.ascontiguousarray(seen.transpose(0, 3, 1, 2), np.float32)}
    branches = graphprune.analyze(path, structure="branch").branches or []
    numbers = {b["value"]: i + 1 for i, b in enumerate(branches)}
    table = Table("method", *(f"{k} of {len(branches)} branches" for k in range(1, MOST + 1)))
    whole = accuracy(onnx.load(path), images, labels)
    for method in sorted(all_branch_methods()):
        row = []
        for k in range(1, MOST + 1):
            share = k / len(branches)
            result = graphprune.prune(path, structure="branch", sparsity=share, method=method, data=[feed])
            gone = ", ".join(str(numbers[b["value"]]) for b in result.plan.branches)
            row.append(f"{accuracy(result.model.to_onnx(), images, labels):.1f} ({gone})")
        table.add_row(method, *row)
    console = Console(width=110)
    console.print(f"ResNet-20, {whole:.1f} % unpruned, on {asked.test} test images")
    console.print(table)


if __name__ == "__main__":
    main()
