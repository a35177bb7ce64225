"""Accuracy of trained masks on networks of others, over seeds: the figures of README, "Trained masks".

    python -m tests.benchmarks.trained                    # runs what is missing, then prints the table
    python -m tests.benchmarks.trained --models resnet20 --structure block --sparsity 0.7 0.9 --recipes smart-plus

10,000 unlabelled CIFAR-10 training images, the original network as the teacher, 4 + 4 epochs (smart-plus: its own
3 + 5); accuracy on the 10,000 test images. ``--validate`` measures on 5,000 other training images instead: settings
are chosen there, never on the test images. Each row is one line of results/trained.jsonl and is not run again.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

import graphprune
from graphprune import Recipe, TrainingOptions
from graphprune.recipes.recipe import read_recipe

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
RESULTS = Path(__file__).resolve().parent / "results" / "trained.jsonl"
VALIDATION = slice(40_000, 45_000)

MODELS = {
    "tutorial": (
        SHARED / "models" / "microsoft__cifar10_tutorial_cnn.onnx",
        "modelInput",
        [0.5] * 3,
        [0.5] * 3,
    ),
    "resnet20": (ROOT / "sample_models" / "resnet20_cifar10.onnx", "input", None, None),
}
ROWS = [("tutorial", 0.3), ("tutorial", 0.5), ("resnet20", 0.5)]
RECIPES = ("magnitude", "smart", "smart-plus")


def main() -> None:
    """Run what is missing and print everything."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--sparsity", nargs="+", type=float)
    parser.add_argument("--structure", default="channel", choices=("channel", "block"))
    parser.add_argument("--block", default="16x8x1x1")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--multiple-of", type=int, default=None)
    parser.add_argument("--images", type=int, default=10_000, help="training images")
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--set", nargs="*", default=[], metavar="FLAG=VALUE", help="change the recipe")
    asked = parser.parse_args()
    asked.results.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        wanted = [r for r in ROWS if r[0] in asked.models and r[1] in (asked.sparsity or [r[1]])]
        if asked.structure == "block":
            wanted = [(m, s) for m in asked.models for s in asked.sparsity or [0.7]]
        for model, sparsity in wanted:
            for seed in asked.seeds:
                for recipe in asked.recipes:
                    if recipe == "magnitude" and seed:
                        continue
                    key = {
                        "model": model,
                        "sparsity": sparsity,
                        "recipe": recipe,
                        "seed": seed,
                        "multiple_of": asked.multiple_of,
                        "images": asked.images,
                        "measured_on": "validation" if asked.validate else "test",
                        "set": asked.set,
                    }
                    if asked.structure == "block":
                        key |= {"structure": "block", "block": asked.block}
                    if not any(all(row.get(k) == v for k, v in key.items()) for row in rows(asked.results)):
                        row = run(key, images(model, asked.images, asked.validate, Path(folder)))
                        with asked.results.open("a") as file:
                            file.write(json.dumps(row) + "\n")
    show(rows(asked.results))


def rows(path: Path) -> list[dict]:
    """Every row so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def images(model: str, count: int, validate: bool, folder: Path) -> tuple[Path, Path]:
    """Training images without labels, and images to measure on."""
    sys.path.insert(0, str(SHARED / "data"))
    from datasets import cifar10

    _, name, mean, std = MODELS[model]
    found = folder / f"{model}_train.npz", folder / f"{model}_{validate}.npz"
    if all(p.exists() for p in found):
        return found
    (x, y), (x_test, y_test) = cifar10()
    if mean is None:
        stored = np.load(ROOT / "sample_models" / "cifar10_eval.npz")
        mean, std = stored["mean"].reshape(-1), stored["std"].reshape(-1)
    scale = {"mean": np.asarray(mean, np.float32), "std": np.asarray(std, np.float32)}
    measured = (x[VALIDATION], y[VALIDATION]) if validate else (x_test, y_test)
    np.savez(found[0], **{name: x[:count].transpose(0, 3, 1, 2)}, **scale)
    np.savez(
        found[1], **{name: measured[0].transpose(0, 3, 1, 2)}, labels=measured[1].astype(np.int64), **scale
    )
    return found


def run(key: dict, data: tuple[Path, Path]) -> dict:
    """One row."""
    path = MODELS[key["model"]][0]
    start = time.perf_counter()
    same = ("sparsity", "multiple_of", "seed", "structure", "block")
    common = {name: key[name] for name in same if name in key}
    if key["recipe"] == "magnitude":
        result = graphprune.prune(path, **common)
        metrics = {"one-shot": accuracy(result, data[1])}
    else:
        options = TrainingOptions(str(data[0]), recipe_of(key), eval_data=str(data[1]), watcher=Watch(key))
        result = graphprune.prune(path, method="smart", training=options, **common)
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
        "command": " ".join(["python -m tests.benchmarks.trained", *sys.argv[1:]]),
    }


def short_commit() -> str:
    """What was run."""
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return found.stdout.strip()


def machine() -> str:
    """What it was run on."""
    return platform.processor() or platform.machine()


def recipe_of(key: dict) -> Recipe:
    """The shipped recipe, with ``--set`` applied; one thread, because seeds run side by side."""
    kinds = {f.name: f.type for f in fields(Recipe)}
    import typing

    hints = typing.get_type_hints(Recipe)
    shipped = read_recipe(key["recipe"], {**hints, "method": str, "structure": str, "data": str})
    recipe = Recipe(**{k: v for k, v in shipped.items() if k in kinds}, threads=1)
    for entry in key["set"]:
        flag, _, value = entry.partition("=")
        recipe = replace(recipe, **{flag.replace("-", "_"): json.loads(value)})
    return recipe


def accuracy(result: graphprune.PruneResult, data: Path) -> float:
    """Top-1 accuracy of a model in onnxruntime."""
    import onnxruntime as ort

    stored = np.load(data)
    name = next(n for n in stored.files if n not in ("labels", "mean", "std"))
    session = ort.InferenceSession(result.model.to_onnx().SerializeToString())
    x = stored[name].astype(np.float32) / 255
    x = (x - stored["mean"].reshape(3, 1, 1)) / stored["std"].reshape(3, 1, 1)
    found = [session.run(None, {name: x[i : i + 500]})[0].argmax(1) for i in range(0, len(x), 500)]
    return float((np.concatenate(found) == stored["labels"]).mean())


class Watch:
    """Says once in a while how far a run is."""

    def __init__(self, key: dict) -> None:
        self.key = key

    def step(self, progress: object) -> None:
        """Quiet."""

    def metric(self, when: str, name: str, value: float) -> None:
        """One line."""
        print(
            self.key["model"],
            self.key["sparsity"],
            self.key["recipe"],
            self.key["seed"],
            when,
            f"{value:.4f}",
        )
        sys.stdout.flush()

    def note(self, sentence: str) -> None:
        """One line."""
        print(sentence)


def show(found: list[dict]) -> None:
    """Mean and spread over seeds."""
    groups: dict[tuple, list[dict]] = {}
    for row in found:
        key = (
            row["measured_on"],
            row["model"],
            row["sparsity"],
            row["recipe"],
            row["multiple_of"],
            row.get("images"),
            row.get("block", "channel"),
            *row["set"],
        )
        groups.setdefault(key, []).append(row)
    for key, members in sorted(groups.items(), key=str):
        values = {}
        for when in ("before", "one-shot", "after hardening", "after fine-tuning"):
            numbers = [100 * m[when] for m in members if when in m]
            if numbers:
                spread = f" ± {statistics.stdev(numbers):.2f}" if len(numbers) > 1 else ""
                values[when] = f"{statistics.mean(numbers):.2f}{spread}"
        seconds = statistics.mean(m["seconds"] for m in members)
        print(*key, f"n={len(members)}", values, f"{seconds:.0f} s")


if __name__ == "__main__":
    main()
