"""How many units PSO takes away, and brings back, on its way: curves and a figure.

    python -m tests.benchmarks.pso_regrowth          # writes results/pso_regrowth.json and .svg

The trained ResNet-20 of sample_models: 16x8 blocks at 70 %, and channels at 50 %; 4 batches of 128 labelled CIFAR-10
test images, for curves alone: accuracy on these images would mean nothing.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from graphprune.search.search import Search

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).resolve().parent / "results" / "pso_regrowth.json"
CASES = {
    "16x8 blocks, 70 %": {"structure": "block", "block": "16x8x1x1", "sparsity": 0.7},
    "channels, 50 %": {"structure": "channel", "sparsity": 0.5},
}


def main() -> None:
    """Run both, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = [run(title, words) for title, words in CASES.items()]
    asked.results.parent.mkdir(exist_ok=True)
    asked.results.write_text(json.dumps(rows, indent=1) + "\n")
    figure(rows).savefig(asked.results.with_suffix(".svg"))
    for row in rows:
        back, gone = sum(row["regrown"]), sum(row["removed"])
        print(
            f"{row['title']}: {row['units']} units, {gone} removals, {back} came back, "
            f"density {row['density'][-1]:.4f}, {row['seconds']} s"
        )


def run(title: str, words: dict) -> dict:
    """One search, decided and proven."""
    images, labels = batches()
    start = time.perf_counter()
    search = Search(ROOT / "sample_models" / "resnet20_cifar10.onnx", method="pso", deferred=True, **words)
    search.begin(images, labels)
    seconds = time.perf_counter() - start
    plan, _ = search.finish()
    assert plan.fidelity["holds"]
    return {
        "title": title,
        **words,
        "units": search.masking.units.size,
        "achieved": plan.budget["achieved"],
        "seconds": round(seconds, 1),
        "machine": platform.processor() or platform.machine(),
        "density": [round(x, 6) for x in search.curves["density"]],
        "regrown": [int(x) for x in search.curves["regrown"]],
        "removed": [int(x) for x in search.curves["removed"]],
    }


def batches(count: int = 4, size: int = 128) -> tuple[list[tuple[torch.Tensor]], list[torch.Tensor]]:
    """Normalised images, and their labels."""
    with np.load(ROOT / "sample_models" / "cifar10_eval.npz") as data:
        x = torch.from_numpy(((data["input_u8"] / 255 - data["mean"]) / data["std"]).astype(np.float32))
        y = torch.from_numpy(data["labels"])
    parts = [slice(i * size, (i + 1) * size) for i in range(count)]
    return [(x[p],) for p in parts], [y[p] for p in parts]


def figure(rows: list[dict]) -> Figure:
    """Above: the density of the masks. Below: units that cross the threshold, up and down."""
    drawn = Figure(figsize=(9, 5), layout="constrained")
    above, below = drawn.subplots(2, len(rows), sharex=True, squeeze=False)
    for row, density, crossing in zip(rows, above, below, strict=True):
        number = np.arange(1, len(row["density"]) + 1)
        density.plot(number, row["density"], color="black")
        density.set_title(f"{row['title']} ({row['units']} units)")
        density.set_ylim(0, 1)
        crossing.bar(number, row["regrown"], width=1.0, color="tab:green", label="came back")
        crossing.bar(number, [-n for n in row["removed"]], width=1.0, color="tab:red", label="removed")
        crossing.axhline(0, color="black", linewidth=0.8)
        crossing.set_xlabel("step")
    above[0].set_ylabel("density of the masks")
    below[0].set_ylabel("units per step")
    drawn.legend(*below[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return drawn


if __name__ == "__main__":
    main()
