"""The same architectures through Torch-Pruning: ``python -m tests.benchmarks.torch_pruning_comparison``.

    pip install --no-deps torch-pruning                            # 1.6.1 was measured
    python -m tests.benchmarks.torch_coverage                      # graphprune's rows first
    python -m tests.benchmarks.torch_pruning_comparison            # runs what is missing, then writes the table
    python -m tests.benchmarks.torch_pruning_comparison --table

Default settings, as in its examples: BasePruner (MagnitudePruner, MetaPruner) with GroupMagnitudeImportance at a ratio
of 0.5, the classifier ignored. Here that means: layers with as many outputs as the model's first result has classes,
the layer that runs last, and its siblings. No heads are set by hand. What is checked:

* it runs: building the groups and ``step()`` raise nothing, and a parameter has become smaller;
* forward: the pruned module runs on the example, and its outputs have the original's sizes;
* right: in float64, the outputs equal those of the original in which everything that was removed is zero. What was
  removed is found by looking the remaining numbers up in the original weights. LayerNorm and GroupNorm of a width that
  was pruned are computed over the kept channels in that original too, so that this choice counts for nothing.
"""

from __future__ import annotations

import argparse
import copy
import functools
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.benchmarks.architectures import Architecture, all_architectures, library
from tests.benchmarks.isolation import Row, isolated
from tests.benchmarks.torch_coverage import RESULTS as OURS
from tests.benchmarks.torch_coverage import TOLERANCE, apart, check, count, quiet, sentence, tensors
from tests.benchmarks.trained import machine, rows

RESULTS = Path(__file__).resolve().parent / "results" / "torch_pruning_comparison.jsonl"
TABLE = RESULTS.with_name("torch_pruning_comparison.md")
HIDDEN = {"CLIP vision", "SigLIP vision", "T5 encoder", "DETR", "Conditional DETR", "DPT"}
"""They return hidden states or feature maps, so there is no classifier that could be ignored: left out."""
LAYERS = (nn.Linear, nn.modules.conv._ConvNd)


def main() -> None:
    """Run what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--again", action="store_true", help="run even what has a row")
    parser.add_argument(
        "--redo", nargs="+", default=[], metavar="VERDICT", help="run rows like 'wrong' again"
    )
    parser.add_argument("--limit", type=float, default=90, help="seconds of processor time per model")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="only write the table")
    asked = parser.parse_args()
    quiet()
    known = {(r["source"], r["model"]): r for r in rows(asked.results)}
    for a in [] if asked.table else all_architectures():
        if a.name in HIDDEN or (asked.only and a.name not in asked.only):
            continue
        row = known.get((a.source, a.name))
        if row is None or asked.again or row["verdict"] in asked.redo:
            row = known[a.source, a.name] = run(a, asked.limit)
            asked.results.write_text("".join(json.dumps(r) + "\n" for r in known.values()))
            print(f"{row['model']}: {row['verdict']} ({row.get('reason', '')})", flush=True)
    text = table(known.values(), {(r["source"], r["model"]): r for r in rows(OURS)})
    if asked.results == RESULTS:
        TABLE.write_text(text)
    if asked.table:
        sys.stdout.write(text)


def pruner() -> Any:
    """The module torch_pruning. Exits with what to install."""
    try:
        return importlib.import_module("torch_pruning")
    except ImportError as error:
        sys.exit(f"{error}: pip install --no-deps torch-pruning")


def run(a: Architecture, limit: float) -> Row:
    """One row."""
    pruner()
    if a.source != "sample":
        library(a.source)
    found = isolated(partial(examine, a), limit)
    stage, failed = found.get("stage"), "reason" in found
    verdict = {
        "groups": "does not run",
        "prune": "does not run",
        "forward": "forward fails",
        "right": "wrong",
    }
    verdict = verdict.get(stage, "not built") if failed else "right"
    return {"source": a.source, "model": a.name, "verdict": verdict} | found | {"machine": machine()}


def examine(a: Architecture, note: Callable[..., None]) -> None:
    """Everything that is measured and checked, in the order of ``stage``."""
    try:
        _examine(a, note)
    except Exception as error:  # noqa: BLE001 - a row says what went wrong
        note(reason=sentence(error), error=type(error).__name__)


def _examine(a: Architecture, note: Callable[..., None]) -> None:
    tp = pruner()
    note(stage="build")
    module, inputs = a.build(), a.example()
    make_distinct(module)
    original = copy.deepcopy(module)
    with torch.no_grad():
        sizes = [t.shape for t in tensors(module(*inputs))]
    note(params=count(module))
    ignored = classifiers(module, inputs)

    note(stage="groups", ignored=len(ignored))
    start = time.process_time()
    found = tp.pruner.BasePruner(
        module, inputs, tp.importance.GroupMagnitudeImportance(), pruning_ratio=0.5, ignored_layers=ignored,
        output_transform=tensors,
    )  # fmt: skip
    note(group_s=round(time.process_time() - start, 2), stage="prune")
    start = time.process_time()
    found.step()
    note(prune_s=round(time.process_time() - start, 2), params_after=count(module))
    check(count(module) < count(original), "nothing was removed")

    note(stage="forward")
    with torch.no_grad():
        got = [t.shape for t in tensors(module(*inputs))]
    check(got == sizes, f"outputs have sizes {[tuple(s) for s in got]}, not {[tuple(s) for s in sizes]}")
    note(stage="right")
    mask(original, module)
    precise = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    with torch.no_grad():
        diff = apart(tensors(module.double()(*precise)), tensors(original.double()(*precise)))
    note(diff=diff)
    check(diff < TOLERANCE, f"the outputs differ from the masked original's by {diff:.0e}")
    note(stage="done")


def classifiers(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[nn.Module]:
    """The layers that make the outputs."""
    ran: list[nn.Module] = []
    layers = [m for m in module.modules() if isinstance(m, LAYERS)]
    hooks = [m.register_forward_hook(lambda m, _i, _o: ran.append(m)) for m in layers]
    with torch.no_grad():
        first = tensors(module(*inputs))[0]
    for hook in hooks:
        hook.remove()
    last = ran[-1]
    siblings = next(
        (list(m) for m in module.modules() if isinstance(m, nn.ModuleList) and last in list(m)), []
    )
    classes = first.shape[1] if first.ndim in (2, 4) else first.shape[-1]
    width = lambda m: m.out_features if isinstance(m, nn.Linear) else m.out_channels  # noqa: E731
    chosen = [m for m in layers if width(m) == classes or m is last or m in siblings]
    return chosen


# -- the masked original -----------------------------------------------------------------------------------


def mask(original: nn.Module, pruned: nn.Module) -> None:
    """Zero in ``original`` what ``pruned`` has lost; normalise over what it has kept. Raises Wrong."""
    smaller = dict(pruned.named_parameters())
    for name, parameter in original.named_parameters():
        small = smaller[name]
        if small.shape == parameter.shape:
            continue
        check(small.ndim == parameter.ndim, f"{name} has other axes")
        kept = positions(parameter.detach(), small.detach(), name)
        keep = torch.zeros_like(parameter)
        keep[torch.meshgrid(*kept, indexing="ij")] = 1
        with torch.no_grad():
            parameter.mul_(keep)
        owner = original.get_submodule(name.rpartition(".")[0])
        if name.endswith(".weight") and isinstance(owner, nn.LayerNorm | nn.GroupNorm):
            groups = getattr(pruned.get_submodule(name.rpartition(".")[0]), "num_groups", 0)
            owner.forward = functools.partial(over_kept, owner, kept[-1], groups)  # type: ignore[method-assign]


def make_distinct(module: nn.Module) -> None:
    """No number twice in a vector: two channels with the same bias or scale could not be told apart afterwards."""
    for parameter in module.parameters():
        while parameter.ndim == 1 and parameter.unique().numel() < parameter.numel():
            with torch.no_grad():
                parameter.add_(1e-4 * torch.randn_like(parameter))


def positions(old: Tensor, new: Tensor, name: str) -> list[Tensor]:
    """Along every axis, the positions of ``old`` that are left in ``new``, by their numbers. Raises Wrong."""
    order = old.flatten().argsort()
    values = old.flatten()[order]
    found = []
    for axis, size in enumerate(new.shape):
        if size == old.shape[axis]:
            found.append(torch.arange(size))
            continue
        lines = new.movedim(axis, 0).reshape(size, -1)
        some = lines[:, torch.linspace(0, lines.shape[1] - 1, min(lines.shape[1], 32)).long()]
        flat = order[torch.searchsorted(values, some.contiguous()).clamp_max(len(order) - 1)]
        found.append(torch.unravel_index(flat, old.shape)[axis].mode(1).values)  # numbers may occur twice
    check(all(bool((f.diff() > 0).all()) for f in found), f"{name} holds its numbers in another order")
    rebuilt = old[torch.meshgrid(*found, indexing="ij")]
    check(bool((rebuilt == new).all()), f"{name} is not a slice of the original's")
    return found


def over_kept(layer: nn.LayerNorm | nn.GroupNorm, kept: Tensor, groups: int, x: Tensor) -> Tensor:
    """A normalisation over the kept channels; zero elsewhere."""
    axis = 1 if groups or x.shape[-1] != layer.weight.numel() else x.ndim - 1
    weight, bias = layer.weight[kept], None if layer.bias is None else layer.bias[kept]
    y = x.index_select(axis, kept)
    if groups:
        y = F.group_norm(y, groups, weight, bias, layer.eps)
    else:
        y = F.layer_norm(y.movedim(axis, -1), (len(kept),), weight, bias, layer.eps).movedim(-1, axis)
    return torch.zeros_like(x).index_copy(axis, kept, y)


# -- the table ------------------------------------------------------------------------------------------------


def judged(row: Row, ours: Row) -> Row:
    """``inexact`` instead of ``wrong`` where no channel can go exactly: another statistic over it is no mistake."""
    inexact = row["verdict"] == "wrong" and not ours.get("exact", True)
    return {**row, "verdict": "inexact"} if inexact else row


def table(theirs: Iterable[Row], ours: dict[tuple[str, str], Row]) -> str:
    """Coverage of both, times, and every model."""
    theirs = [judged(r, ours[r["source"], r["model"]]) for r in theirs if (r["source"], r["model"]) in ours]
    pairs = [(r, ours[r["source"], r["model"]]) for r in theirs]
    total = len(pairs)

    def line(what: str, ours: Any, theirs: Any) -> str:
        return f"| {what} | {ours} | {theirs} |"

    def at_least(*verdicts: str) -> str:
        count = sum(r["verdict"] not in verdicts for r in theirs)
        return f"{count} ({100 * count / max(total, 1):.0f} %)"

    passed = sum(o["ok"] for _, o in pairs)
    silent = [r["model"] for r in theirs if r["verdict"] == "wrong"]
    both = [(r, o) for r, o in pairs if "prune_s" in r and "prune_s" in o]
    mid = lambda xs: f"{statistics.median(xs):.2f} s" if xs else "-"  # noqa: E731
    groups = mid([o["trace_s"] + o["group_s"] for _, o in both]), mid([r["group_s"] for r, _ in both])
    prunes = mid([o["prune_s"] for _, o in both]), mid([r["prune_s"] for r, _ in both])
    shares = [
        f"{100 * statistics.median(1 - x['params_after'] / x['params'] for x in xs):.0f} %" if xs else "-"
        for xs in ([o for _, o in pairs if o["ok"]], [r for r, _ in pairs if r["verdict"] == "right"])
    ]
    lines = [
        f"| {total} models, half of the channels | graphprune | Torch-Pruning |", "| --- | ---: | ---: |",
        line("pruned without an error", f"{passed} ({100 * passed / max(total, 1):.0f} %)",
             at_least("does not run", "not built")),
        line("forward works, sizes as before", passed, at_least("does not run", "not built", "forward fails")),
        line("equals the masked original", passed,
             at_least("does not run", "not built", "forward fails", "wrong", "inexact")),
        line("runs, but computes something else", 0, len(silent)),
        line("parameters removed (median)", *shares),
        line("trace and groups (median, one thread)", *groups),
        line("prune (median; graphprune's with its proof)", *prunes), "",
        "| Model | graphprune | Torch-Pruning | why not |", "| --- | --- | --- | --- |",
    ]  # fmt: skip
    lines += [
        f"| {r['model']} ({r['source']}) | {'right' if o['ok'] else o['stage'] + ': ' + o['reason']} | "
        f"{r['verdict']} | {r.get('reason', '')[:120].replace('|', '/')} |"
        for r, o in pairs
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
