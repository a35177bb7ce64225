"""How many PyTorch architectures are pruned, and prove to be pruned right: ``make coverage``.

    python -m tests.benchmarks.torch_coverage                 # runs what is missing, then writes the table
    python -m tests.benchmarks.torch_coverage --only resnet18 ViT --again
    python -m tests.benchmarks.torch_coverage --table         # the table alone

timm and transformers must be importable (all weights are random, nothing is downloaded). Every model is traced, loses
half of its channels, and passes where all of these hold: the traced ONNX model computes what the module computes; the
pruned one equals the masked original (the engine's proof, not vacuous); the pruned module equals the pruned ONNX model
in onnxruntime; it runs at another batch size and gives the same for the same samples; one SGD step changes it with
finite gradients for every parameter; it is exported again by torch.export.save, and by torch.onnx.export if that can
export the original. ``renamed`` counts tensors of its state_dict without a namesake in the original: weights that the
original computes from others (weight normalisation), stored as one. Where nothing can go exactly (every width is
normalised over), ``allow_inexact`` is used and the row says so. A row is one line of results/torch_coverage.jsonl and
is not run again.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import graphprune
from graphprune.errors import BudgetError
from graphprune.running import Session
from tests.benchmarks.architectures import BATCH, Architecture, all_architectures, library
from tests.benchmarks.isolation import Row, isolated
from tests.benchmarks.trained import machine, rows, short_commit

RESULTS = Path(__file__).resolve().parent / "results" / "torch_coverage.jsonl"
TABLE = RESULTS.with_name("torch_coverage.md")
SHARE = 0.5
TOLERANCE = 1e-3
"""Between torch and onnxruntime, of the largest output: float32 in another order, up to 150 layers."""


class Wrong(Exception):
    """A check that failed, in one sentence."""


def main() -> None:
    """Run what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--source", nargs="+", default=[], choices=["sample", "timm", "transformers"])
    parser.add_argument("--again", action="store_true", help="run even what has a row")
    parser.add_argument("--failed", action="store_true", help="run again what failed")
    parser.add_argument("--limit", type=float, default=90, help="seconds of processor time per model")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="only write the table")
    parser.add_argument("-v", action="store_true", help="tracebacks")
    asked = parser.parse_args()
    quiet()
    known = {(r["source"], r["model"]): r for r in rows(asked.results)}
    for a in [] if asked.table else all_architectures():
        row = known.get((a.source, a.name))
        wanted = row is None or asked.again or (asked.failed and not row["ok"])
        chosen = (not asked.only or a.name in asked.only) and (not asked.source or a.source in asked.source)
        if not (wanted and chosen):
            continue
        known[a.source, a.name] = run(a, asked.limit, asked.v)
        asked.results.write_text("".join(json.dumps(r) + "\n" for r in known.values()))
        print(summary(known[a.source, a.name]), flush=True)
    if asked.results == RESULTS:
        TABLE.write_text(table(known.values()))
    if asked.table:
        sys.stdout.write(table(known.values()))


def quiet() -> None:
    """One thread, and no warnings of the tracer's."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)


def run(a: Architecture, limit: float, verbose: bool = False) -> Row:
    """One row."""
    if a.source != "sample":
        library(a.source)
    found = isolated(partial(examine, a, verbose), limit)
    key = {"source": a.source, "model": a.name, "ok": found.get("stage") == "done" and "reason" not in found}
    where = {"machine": machine(), "commit": short_commit()}
    return key | found | where


def examine(a: Architecture, verbose: bool, note: Callable[..., None]) -> None:
    """Everything that is measured and checked, in the order of ``stage``. Times are of the processor, one thread."""
    start = time.process_time()
    try:
        _examine(a, note)
        note(stage="done", seconds=round(time.process_time() - start, 1))
    except Exception as error:  # noqa: BLE001 - a row says what went wrong
        if verbose:
            traceback.print_exc()
        seconds = round(time.process_time() - start, 1)
        note(reason=sentence(error), error=type(error).__name__, seconds=seconds)


def _examine(a: Architecture, note: Callable[..., None]) -> None:
    note(stage="build")
    module, inputs = a.build(), a.example()
    with torch.no_grad():
        wanted = tensors(module(*inputs))
    note(params=count(module))

    note(stage="trace")
    start = time.process_time()
    model = graphprune.load(module, inputs)
    note(trace_s=round(time.process_time() - start, 2), nodes=len(model.ir.graph))
    diff = apart(in_onnxruntime(model.ir, inputs), wanted)
    note(onnx_diff=diff)
    check(diff < TOLERANCE, f"the traced ONNX model differs from the module by {diff:.0e}")

    note(stage="group")
    start = time.process_time()
    analysis = graphprune.analyze(model)
    note(group_s=round(time.process_time() - start, 2), prunable=analysis.prunable_channels)
    note(stage="prune")
    start = time.process_time()
    try:
        result = graphprune.prune(model, sparsity=SHARE, multiple_of=1)
    except BudgetError as error:
        note(strict=sentence(error))
        result = graphprune.prune(model, sparsity=SHARE, multiple_of=1, allow_inexact=True)
    note(prune_s=round(time.process_time() - start, 2), removed=result.removed_channels)
    fidelity = result.fidelity
    note(fidelity=fidelity.max_rel_diff, exact=fidelity.exact, vacuous=fidelity.vacuous)
    check(fidelity.holds and not fidelity.vacuous, fidelity.message)

    note(stage="forward")
    small = result.module
    assert small is not None
    batch = result.model.ir.graph.inputs[0].shape[0]
    note(params_after=count(small), dynamic=not isinstance(batch, int))
    note(renamed=len(set(small.state_dict()) - set(module.state_dict())))
    with torch.no_grad():
        diff = apart(tensors(small(*inputs)), in_onnxruntime(result.model.ir, inputs))
    note(module_diff=diff)
    check(diff < TOLERANCE, f"the pruned module differs from the pruned ONNX model by {diff:.0e}")

    note(stage="batch")
    many = a.example(batch=BATCH + 1)
    with torch.no_grad():
        diff = apart([t[:BATCH] for t in tensors(small(*many))], tensors(small(*(x[:BATCH] for x in many))))
    note(batch_diff=diff)
    check(diff < TOLERANCE, f"a sample's result depends on the batch size: {diff:.0e}")

    note(stage="export")
    program = torch.export.export(small.eval(), inputs)
    torch.export.save(program, io.BytesIO())
    try:
        exported_again(small, program, inputs)
    except torch.onnx.OnnxExporterError as error:
        note(onnx=cause(error))
        check(
            not exportable(module, inputs), f"torch.onnx.export: {cause(error)}; it can export the original"
        )
    note(stage="train")
    train(small, inputs)


def exported_again(
    small: nn.Module, program: torch.export.ExportedProgram, inputs: tuple[Tensor, ...]
) -> None:
    """torch.onnx.export from a program of ``small``. Raises what it raises, and Wrong where it differs."""
    exported = to_onnx(program)
    with torch.no_grad():
        wanted = tensors(small(*inputs))
    diff = apart(in_onnxruntime(exported.model, inputs), wanted)
    check(diff < TOLERANCE, f"torch.onnx.export's model differs by {diff:.0e}")


def exportable(module: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    """Whether torch.onnx.export can do it with the original."""
    try:
        to_onnx(torch.export.export(module, inputs))
    except torch.onnx.OnnxExporterError:
        return False
    return True


def to_onnx(program: torch.export.ExportedProgram) -> Any:
    """torch.onnx.export, without what it prints."""
    stdout, sys.stdout = sys.stdout, io.StringIO()
    try:
        return torch.onnx.export(program, dynamo=True, optimize=False)
    finally:
        sys.stdout = stdout


def cause(error: BaseException) -> str:
    """The innermost reason."""
    while error.__cause__ is not None:
        error = error.__cause__
    return sentence(error)  # type: ignore[arg-type]


def train(small: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """One step of SGD in training mode, then evaluation again. Raises Wrong."""
    small.train()
    before = [p.detach().clone() for p in small.parameters()]
    optimiser = torch.optim.SGD(small.parameters(), 1e-3)
    sum(t.square().mean() for t in tensors(small(*inputs))).backward()
    read = {n.target for n in small.graph.nodes if n.op == "get_attr"}
    for name, p in small.named_parameters():
        if name in read and p.requires_grad:
            check(p.grad is not None, f"{name} has no gradient")
            check(bool(p.grad.isfinite().all()), f"the gradient of {name} is not finite")
    optimiser.step()
    check(
        any(not torch.equal(x, y) for x, y in zip(before, small.parameters(), strict=True)),
        "nothing was trained",
    )
    small.eval()(*inputs)


# -- pieces -------------------------------------------------------------------------------------------------


def check(holds: bool, message: str) -> None:
    """Raises Wrong."""
    if not holds:
        raise Wrong(message)


def tensors(result: Any) -> list[Tensor]:
    """The floating-point tensors that a module returns, each once."""
    leaves = {id(t): t for t in pytree.tree_leaves(result) if isinstance(t, Tensor)}
    return [t for t in leaves.values() if t.is_floating_point()]


def in_onnxruntime(model: Any, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """The floating-point outputs of an onnx_ir model."""
    with Session(model) as session:
        feed = {v.name: x.numpy() for v, x in zip(model.graph.inputs, inputs, strict=True)}
        found = [torch.from_numpy(y) for y in session.run(feed).values()]
    return [t for t in found if t.is_floating_point()]


def apart(found: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest difference, relative to the largest number of each output. Raises Wrong where sizes differ."""
    shapes = [[tuple(t.shape) for t in ts] for ts in (found, wanted)]
    check(shapes[0] == shapes[1], f"outputs have sizes {shapes[0]}, not {shapes[1]}")
    check(
        bool(wanted) and all(bool(t.isfinite().all()) for t in (*found, *wanted)), "an output is not finite"
    )
    return max(
        float((x - y).detach().abs().max() / y.detach().abs().max().clamp_min(1e-9))
        for x, y in zip(found, wanted, strict=True)
    )


def count(module: nn.Module) -> int:
    """Parameters, shared ones once."""
    return sum(p.numel() for p in module.parameters())


def sentence(error: Exception) -> str:
    """The first line of a message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


# -- the table ------------------------------------------------------------------------------------------------


def summary(row: Row) -> str:
    """One line for the terminal."""
    if not row["ok"]:
        return f"FAIL {row['model']}: {row['stage']}: {row.get('error', '')} {row['reason']} ({row.get('seconds')} s)"
    times = f"trace {row['trace_s']} s, groups {row['group_s']} s, prune {row['prune_s']} s"
    return f"ok   {row['model']}: {share(row)} of the parameters; {times}; {row['seconds']} s in all"


def share(row: Row) -> str:
    """Parameters removed, in percent."""
    return f"{100 * (1 - row['params_after'] / row['params']):.0f} %"


def table(found: Iterable[Row]) -> str:
    """Passed per source, every model, and what failed with its reason."""
    found = list(found)
    passed, total = Counter(r["source"] for r in found if r["ok"]), Counter(r["source"] for r in found)
    lines = ["| Models | Passed | Of |", "| --- | ---: | ---: |"]
    lines += [f"| {s} | {passed[s]} | {total[s]} |" for s in total]
    percent = f"{100 * passed.total() / max(total.total(), 1):.0f} %"
    lines += [f"| **all** | **{passed.total()}** ({percent}) | **{total.total()}** |", ""]
    failed = [r for r in found if not r["ok"]]
    if failed:
        lines += ["| Not passed | Step | Reason |", "| --- | --- | --- |"]
        lines += [f"| {r['model']} | {r['stage']} | {r['reason'].replace('|', '/')} |" for r in failed]
        lines.append("")
    lines += [
        "| Model | Parameters | Removed | Masked = pruned | Any batch | Trace | Groups | Prune and proof |",
        "| --- | ---: | ---: | ---: | --- | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {r['model']} ({r['source']}) | {r['params'] / 1e6:.2f} M | {share(r)} | "
        f"{r['fidelity']:.0e}{'' if r['exact'] else ' (inexact)'} | "
        f"{'yes' if r['dynamic'] else 'no'} | {r['trace_s']:.1f} s | {r['group_s']:.1f} s | {r['prune_s']:.1f} s |"
        for r in found
        if r["ok"]
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
