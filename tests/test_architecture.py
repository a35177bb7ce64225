"""The one-way flow, read from the source: a later module imports earlier ones only."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

FLOW = [
    ["errors", "reasons", "labels", "graph", "notation", "adding", "engine"],
    ["edits", "plan", "folding", "patterns"],
    ["frontends"],
    ["records"],
    ["coupler"],
    ["rules"],
    ["resolution"],
    ["chains"],
    ["coupling"],
    ["groups"],
    ["cost", "residuals"],
    ["allocation"],
    ["criteria", "selection", "budget", "blocking", "rows"],
    ["choosing"],
    ["patterning"],
    ["data"],
    ["recipes"],
    ["relaxation"],
    ["methods"],
    ["fx"],
    ["sizes", "layouts"],
    ["frontends.torch"],
    ["surgery"],
    ["planning"],
    ["reference", "agreement", "sampling", "pattern_check"],
    ["proof"],
    ["history"],
    ["reporting"],
    ["latency"],
    ["packed"],
    ["sidecar"],
    ["formats"],
    ["calibration"],
    ["pruning", "freeing"],
    ["zeroing"],
    ["weight_pruning", "pattern_report"],
    ["calibrated"],
    ["sensitivity", "comparing"],
    ["branches"],
    ["targets"],
    ["rewriting"],
    ["modules"],
    ["search"],
    ["training"],
    ["api", "reported"],
    ["__init__"],
    ["__main__"],
]
"""First to last. Modules that are not listed may stand anywhere, as long as they open no way back."""

READS_ONNX_IR = {
    "frontends", "sizes", "surgery", "reference", "running", "feeds", "probes", "agreement", "proof", "writing",
    "adding", "freeing", "pattern_check", "analysis", "pruning", "api", "models", "fx", "search", "training", "zeroing",
    "writeback", "formats", "targets", "rewriting", "frontends.torch", "calibration", "branches", "calibrated",
    "mapped", "hashing", "latency", "sensitivity", "comparing",
}  # fmt: skip
READS_ONNX = {"formats", "frontends", "folding", "models", "targets", "writing"}
TRAINS = {"relaxation", "fx", "search", "training", "frontends.torch", "modules"}
"""Packages that are imported only where something is trained: they may import torch at once."""
NEVER_AT_IMPORT = {"torch", "onnxruntime", "networkx", "onnx_graphsurgeon"}
LIGHT = {"typer", "rich"}


def imports(path: Path, *, inside_functions: bool) -> Iterator[str]:
    """Absolute names of modules that a file imports; those under ``if TYPE_CHECKING`` do not run."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = ".".join(path.relative_to(ROOT).with_suffix("").parts[:-1])
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.FunctionDef | ast.Lambda) and not inside_functions:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)
        stack.extend(ast.iter_child_nodes(node))


def part(module: str) -> str:
    """``graphprune.rules.matmul`` -> ``rules``: the stage that a module belongs to."""
    if module.startswith("graphprune.frontends.torch"):
        return "frontends.torch"
    return [*module.split("."), "__init__"][1]


@cache
def modules() -> dict[str, Path]:
    """Every module of the engine by dotted name."""
    found = {}
    for path in sorted((ROOT / "graphprune").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def uses() -> dict[str, set[str]]:
    """Part -> the parts that it imports, also inside functions."""
    found: dict[str, set[str]] = {}
    for name, path in modules().items():
        here = part(name)
        targets = {
            part(m) for m in imports(path, inside_functions=True) if m in modules() and m != "graphprune"
        }
        found.setdefault(here, set()).update(targets - {here})
    return found


def reachable(start: str) -> set[str]:
    """Parts that ``start`` imports, directly or through others."""
    seen: set[str] = set()
    stack = [start]
    while stack:
        for target in uses().get(stack.pop(), set()) - seen:
            seen.add(target)
            stack.append(target)
    return seen


def test_the_flow_names_real_modules() -> None:
    assert {name for layer in FLOW for name in layer} <= set(uses())


def test_no_module_imports_a_later_stage() -> None:
    later = {name: level for level, layer in enumerate(FLOW) for name in layer}
    wrong = [
        f"{name} reaches {target}"
        for name, level in later.items()
        for target in reachable(name)
        if later.get(target, -1) > level
    ]
    assert wrong == []


def test_no_cycles() -> None:
    TopologicalSorter(uses()).prepare()  # raises CycleError


def test_rules_know_no_front_end() -> None:
    assert not reachable("rules") & {"frontends", "coupling", "groups", "surgery", "proof"}


@pytest.mark.parametrize(("library", "readers"), [("onnx_ir", READS_ONNX_IR), ("onnx", READS_ONNX)])
def test_only_the_edges_know_a_file_format(library: str, readers: set[str]) -> None:
    found = {
        part(name)
        for name, path in modules().items()
        if any(m.split(".")[0] == library for m in imports(path, inside_functions=True))
    }
    assert found <= readers


@pytest.mark.parametrize("name", sorted(modules()))
def test_heavy_libraries_are_imported_where_they_are_used(name: str) -> None:
    found = {m.split(".")[0] for m in imports(modules()[name], inside_functions=False)}
    assert not found & (NEVER_AT_IMPORT - {"torch"} if part(name) in TRAINS else NEVER_AT_IMPORT)


def test_data_is_read_without_torch() -> None:
    """Not even inside functions: what a user's factory imports itself is found in sys.modules."""
    for name, path in modules().items():
        if part(name) == "data":
            assert "torch" not in {m.split(".")[0] for m in imports(path, inside_functions=True)}, name
    assert not reachable("data") & TRAINS


def test_only_training_imports_what_trains() -> None:
    """Nothing else imports those packages at import time, so that ``analyze`` never waits for torch."""
    found = {
        name
        for name, path in modules().items()
        if part(name) not in TRAINS
        and any(part(m) in TRAINS for m in imports(path, inside_functions=False) if m in modules())
    }
    assert found == set()


@pytest.mark.parametrize("path", sorted((ROOT / "cli").glob("*.py")), ids=lambda path: path.name)
def test_the_command_line_starts_light_and_is_movable(path: Path) -> None:
    """Nothing heavy at import, and no absolute import of itself: it is installed as graphprune_cli."""
    at_start = {m.split(".")[0] for m in imports(path, inside_functions=False)}
    assert at_start <= LIGHT | set(sys.stdlib_module_names) | {"cli"}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    absolute = [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and not n.level]
    assert not [m for m in absolute if m and m.split(".")[0] in ("cli", "graphprune_cli")]


def test_the_engine_does_not_know_the_command_line() -> None:
    for name, path in modules().items():
        found = {m.split(".")[0] for m in imports(path, inside_functions=True)}
        assert not found & {"typer", "rich", "cli", "graphprune_cli", "sample_models", "tests"}, name


def test_every_package_is_installed() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = {p.parent.relative_to(ROOT) for p in (ROOT / "graphprune").rglob("__init__.py")}
    expected = {".".join(folder.parts) for folder in folders} | {"graphprune_cli"}
    assert set(config["tool"]["setuptools"]["packages"]) == expected
    assert config["tool"]["setuptools"]["package-dir"]["graphprune_cli"] == "cli"


@pytest.mark.parametrize(
    "path",
    sorted([*(ROOT / "graphprune").rglob("*.py"), *(ROOT / "cli").rglob("*.py")]),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_public_things_have_docstrings(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.ClassDef)
    public = [n for n in tree.body if isinstance(n, kinds) and not n.name.startswith("_")]
    inner = [
        m
        for n in public
        if isinstance(n, ast.ClassDef)
        for m in n.body
        if isinstance(m, kinds) and not m.name.startswith("_")
    ]
    missing = [n.name for n in (*public, *inner) if not ast.get_docstring(n)]
    assert ast.get_docstring(tree), "the module has no docstring"
    assert missing == []
