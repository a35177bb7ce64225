"""The HTML report: its figures add up, it is the same every time, needs nothing else, and says what is missing."""

from __future__ import annotations

import copy
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import Run, small_network
from hypothesis import given, settings
from hypothesis import strategies as st
from report_pages import HOSTILE, Page, hostile_network

import graphprune
from graphprune.errors import PlanError
from graphprune.history import COLUMNS, History, load_history
from graphprune.recipes.training import Progress
from graphprune.reporting import Extras, content_of, content_of_plan, page
from graphprune.reporting.figures import count, shape, share
from graphprune.reporting.layout import layered
from graphprune.training.recording import LOOKS, Recording

ROOT = Path(__file__).resolve().parents[1]
RESNET = ROOT / "sample_models" / "resnet20_cifar10.onnx"

STRUCTURES: dict[str, dict[str, Any]] = {
    "channel": {"sparsity": 0.4},
    "macs": {"macs": 0.3},
    "block": {"structure": "block", "block": "8x8x1x1", "sparsity": 0.5},
    "freed": {"structure": "block", "block": "16x-1x-1x-1", "sparsity": 0.6, "allocation": "global"},
    "nm": {"structure": "nm", "nm": "2:4"},
    "branch": {"structure": "branch", "sparsity": 0.3},
}


@pytest.fixture(scope="module")
def results() -> dict[str, graphprune.PruneResult]:
    """One small ResNet, pruned in every way."""
    return {name: graphprune.prune(RESNET, **words) for name, words in STRUCTURES.items()}


@pytest.mark.parametrize("way", STRUCTURES)
def test_layers_add_up_to_the_plan(results: dict[str, graphprune.PruneResult], way: str) -> None:
    result = results[way]
    layers = content_of(result.analysis, result.plan)["layers"]
    for key in ("params", "macs"):
        before, after = (sum(layer[key][i] for layer in layers) for i in (0, 1))
        planned = getattr(result.plan, key)
        # MACs of a layer are rounded, one by one
        assert before == pytest.approx(planned["before"], abs=0 if key == "params" else len(layers))
        assert after == pytest.approx(planned["after"], abs=0 if key == "params" else len(layers))


def test_shapes_after_are_those_of_the_written_model(results: dict[str, graphprune.PruneResult]) -> None:
    result = results["channel"]
    layers = {layer["name"]: layer for layer in content_of(result.analysis, result.plan)["layers"]}
    written = onnx.shape_inference.infer_shapes(result.model.to_onnx())
    found = {v.name: v for v in written.graph.value_info}
    checked = 0
    for node in written.graph.node:
        if node.op_type == "Conv" and node.output[0] in found:
            dims = found[node.output[0]].type.tensor_type.shape.dim
            assert layers[node.name]["shape_after"][1:] == [d.dim_value for d in dims][1:], node.name
            assert layers[node.name]["channels"][1] == dims[1].dim_value
            checked += 1
    assert checked >= 20


def test_removed_channels_of_groups_are_those_of_the_plan(results: dict[str, graphprune.PruneResult]) -> None:
    result = results["channel"]
    content = content_of(result.analysis, result.plan)
    by_tensor = {m["tensor"]: g for g in content["groups"] for m in g["members"] if m["axis"] == 0}
    for name, axes in result.plan.removed.items():
        if "0" in axes:
            assert by_tensor[name]["removed"] == len(axes["0"]), name


def test_removed_branches_are_marked(results: dict[str, graphprune.PruneResult]) -> None:
    result = results["branch"]
    content = content_of(result.analysis, result.plan)
    gone = {n["name"] for n in content["graph"]["nodes"] if n["gone"]}
    kept = {n.name for n in result.model.to_onnx().graph.node}
    assert gone
    assert not gone & {n for n in kept if "Conv" in n}


@pytest.mark.parametrize("way", STRUCTURES)
def test_the_page_is_whole_and_needs_nothing_else(
    results: dict[str, graphprune.PruneResult], way: str
) -> None:
    result = results[way]
    html = result.to_html()
    assert html == result.to_html()
    found = Page(html)
    assert found.problems == []
    assert len(found.ids) == len(set(found.ids))
    outside = [
        value
        for tag, attributes in found.tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "data") and not str(value).startswith("#")
    ]
    assert outside == []
    policy = next(a["content"] for tag, a in found.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert str(policy).startswith("default-src 'none';")
    assert "http" not in str(policy)
    style = "".join(found.all_in("style"))
    assert "url(" not in style
    assert "@import" not in style
    links = {str(a["href"])[1:] for tag, a in found.tags if tag == "a"}
    assert links <= set(found.ids)
    assert next(a for tag, a in found.tags if tag == "html")["lang"] == "en"
    assert all(a.get("scope") in ("col", "row") for tag, a in found.tags if tag == "th")


def test_names_of_a_model_stay_text() -> None:
    result = graphprune.prune(hostile_network(), sparsity=0.5)
    html = result.to_html()
    assert HOSTILE not in html
    found = Page(html)
    assert found.problems == []
    assert not [tag for tag, _ in found.tags if tag == "img"]
    assert HOSTILE in found.all_in("button")
    assert HOSTILE in {node["name"] for node in found.data["graph"]["nodes"]}
    assert HOSTILE + "w" in {m["tensor"] for group in found.data["groups"] for m in group["members"]}
    alone = Page(page(content_of_plan(result.plan, HOSTILE, Extras(recipe=HOSTILE, notes=(HOSTILE,)))))
    assert alone.problems == []
    assert not [tag for tag, _ in alone.tags if tag == "img"]
    for tag in ("h1", "pre", "p"):
        assert HOSTILE in alone.all_in(tag)


def test_the_graph_says_what_is_coupled_and_why_the_rest_stays() -> None:
    analysis = graphprune.analyze(small_network(layer_norm=True))
    graph = content_of(analysis)["graph"]
    nodes = {node["name"]: node for node in graph["nodes"]}
    groups = {g.name: g.id for g in analysis.groups}
    assert nodes["relu1"]["groups"] == [groups["conv1"]]
    assert nodes["conv2"]["groups"] == [groups["conv2"]]
    assert nodes["conv2"]["reads"] == [groups["conv1"]]
    assert "output" in nodes["fc"]["reason"]
    assert nodes["norm"]["reason"]
    position = {name: i for i, name in enumerate(nodes)}
    pairs = {(a, b) for a, b, _ in graph["edges"]}
    chain = ["x", "conv1", "relu1", "conv2", "relu2", "mean", "flatten", "norm", "fc", "y"]
    assert pairs == {(position[a], position[b]) for a, b in pairwise(chain)}


def test_a_large_model_is_drawn_by_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphprune.reporting.graph.MAX_OPERATORS", 5)
    analysis = graphprune.analyze(small_network())
    graph = content_of(analysis)["graph"]
    assert graph["level"] == "groups"
    assert [n["groups"] for n in graph["nodes"]] == [[g.id] for g in analysis.groups]
    assert [(a, b) for a, b, _ in graph["edges"]] == [(0, 1), (1, 2)]
    assert Page(page(content_of(analysis))).problems == []


# -- layout ---------------------------------------------------------------------------------------------


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]]]:
    """Numbered nodes and edges from lower to higher numbers."""
    size = draw(st.integers(0, 24))
    pairs = st.tuples(st.integers(0, max(size - 1, 0)), st.integers(0, max(size - 1, 0)))
    edges = draw(st.lists(pairs, max_size=40, unique=True)) if size else []
    return size, sorted({(a, b) for a, b in edges if a < b})


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_layout(drawn: tuple[int, list[tuple[int, int]]]) -> None:
    size, edges = drawn
    found = layered(size, edges)
    assert found == layered(size, edges)
    assert len(found.points) == size
    rows: dict[float, list[float]] = {}
    for x, y in found.points:
        assert x == int(x) >= 0
        rows.setdefault(x, []).append(y)
    for row in rows.values():
        assert all(b - a >= 0.98 for a, b in pairwise(sorted(row)))  # places are rounded to 0.01
    for (a, b), route in zip(edges, found.routes, strict=True):
        line = [found.points[a][0], *(x for x, _ in route), found.points[b][0]]
        assert line == sorted(set(line)), "an edge goes from layer to later layer"


def test_a_chain_is_a_straight_line() -> None:
    found = layered(5, [(0, 1), (1, 2), (2, 3), (3, 4)])
    assert found.points == [(float(i), 0.0) for i in range(5)]


def test_a_shortcut_passes_beside_what_it_skips() -> None:
    found = layered(4, [(0, 1), (1, 2), (2, 3), (0, 3)])
    (route,) = found.routes[3:]
    assert route
    for x, y in route:
        assert all(abs(y - other) > 0.5 for at, other in found.points if at == x)


def test_layout_refuses_edges_backwards() -> None:
    with pytest.raises(ValueError, match="higher number"):
        layered(3, [(2, 1)])


# -- the commands ---------------------------------------------------------------------------------------


def test_prune_and_report_write_the_same_page(run: Run, model_file: Path) -> None:
    folder = model_file.parent
    small, html = folder / "small.onnx", folder / "direct.html"
    code, _, _ = run("prune", model_file, "--sparsity", 0.5, "-o", small, "--html", html)
    assert code == 0
    code, out, _ = run("report", folder / "small.plan.json", "--original", model_file)
    assert (code, out) == (0, f"written   {folder / 'small.html'}\n")
    direct, later = (p.read_text(encoding="utf-8") for p in (html, folder / "small.html"))
    assert later == direct
    assert graphprune.report(folder / "small.plan.json", model_file) == direct
    cards = "".join(Page(direct).all_in("strong", "h3"))
    assert count(small.stat().st_size) in cards


def test_without_the_original_the_report_says_what_is_missing(run: Run, model_file: Path) -> None:
    folder = model_file.parent
    assert run("prune", model_file, "--sparsity", 0.5, "-o", folder / "small.onnx")[0] == 0
    code, _, err = run("report", folder / "small.plan.json")
    assert code == 0
    assert "--original" in err
    found = Page((folder / "small.html").read_text(encoding="utf-8"))
    assert any("--original" in text for text in found.all_in("p"))
    plan = json.loads((folder / "small.plan.json").read_text(encoding="utf-8"))
    assert set(plan["removed"]) <= set(found.all_in("th"))
    assert "graph" not in found.ids
    assert "holds" in found.all_in("p")


def test_reports_are_not_written_over_other_files(run: Run, model_file: Path) -> None:
    folder = model_file.parent
    report = folder / "report.html"
    report.write_text("mine", encoding="utf-8")
    plan = folder / "small.plan.json"
    assert run("prune", model_file, "--sparsity", 0.5, "-o", folder / "small.onnx")[0] == 0
    for command in (
        ("analyze", model_file, "--html", report),
        ("report", plan, "-o", report),
        ("prune", model_file, "--sparsity", 0.5, "-o", folder / "b.onnx", "--html", report),
        ("prune", model_file, "--sparsity", 0.5, "-o", folder / "b.onnx", "--html", folder / "b.onnx"),
        ("analyze", model_file, "--html", model_file, "--force"),
        ("report", plan, "-o", plan, "--force"),
    ):
        code, out, err = run(*command)
        assert (code, out) == (2, ""), command
        assert err.count("\n") == 1
    assert report.read_text(encoding="utf-8") == "mine"
    assert not (folder / "b.onnx").exists()
    assert run("analyze", model_file, "--html", report, "--force")[0] == 0
    assert Page(report.read_text(encoding="utf-8")).problems == []


def test_a_plan_of_another_model_is_refused(run: Run, model_file: Path) -> None:
    folder = model_file.parent
    assert run("prune", model_file, "--sparsity", 0.5, "-o", folder / "small.onnx")[0] == 0
    onnx.save(small_network(seed=1), folder / "other.onnx")
    code, _, err = run("report", folder / "small.plan.json", "--original", folder / "other.onnx")
    assert code == 2
    assert "was not made from" in err
    assert not (folder / "small.html").exists()


# -- history --------------------------------------------------------------------------------------------


def test_a_training_leaves_its_curves(run: Run, model_file: Path) -> None:
    pytest.importorskip("torch")
    folder = model_file.parent
    rng = np.random.default_rng(0)
    data = folder / "data.npz"
    np.savez(data, x=rng.standard_normal((32, 3, 8, 8), np.float32), labels=rng.integers(0, 5, 32))
    train = ["prune", model_file, "--method", "smart", "--sparsity", 0.5, "--multiple-of", 1, "--data", data]
    train += ["--batch-size", 8, "--search-epochs", 3, "--finetune-epochs", 1, "--eval-data", data]
    code, _, err = run(*train, "-o", folder / "small.onnx", "--html", folder / "direct.html")
    assert code == 0, err
    plan = folder / "small.plan.json"
    history = load_history(plan)
    steps = history.training["step"]
    assert set(history.training) == set(COLUMNS)
    assert {len(values) for values in history.training.values()} == {len(steps)}
    assert steps == sorted(set(steps))
    assert steps[-1] == 16
    achieved = json.loads(plan.read_text(encoding="utf-8"))["budget"]["achieved"]
    assert history.training["kept"][-1] == pytest.approx(1 - achieved, abs=1e-6)
    assert history.training["target"][-1] == pytest.approx(0.5)
    assert history.training["target"] == sorted(history.training["target"], reverse=True)
    assert list(dict.fromkeys(history.training["phase"])) == ["search", "fine-tune"]
    assert list(history.metrics) == ["before", "after hardening", "after fine-tuning"]
    assert run("report", plan, "--original", model_file)[0] == 0
    direct, later = (folder / name for name in ("direct.html", "small.html"))
    assert later.read_bytes() == direct.read_bytes()
    found = Page(direct.read_text(encoding="utf-8"))
    assert {"loss-chart", "masks-chart", "temperature-chart"} <= set(found.ids)
    assert found.data["history"]["step"] == steps
    assert "search-epochs" in "".join(found.all_in("pre"))


def test_curves_go_on_over_a_resumption() -> None:
    whole, first, second = Recording(1000), Recording(1000), Recording(1000)
    for step in range(1, 1001):
        progress = Progress(step, 1000, "search", 0.0, 1 / step, 0.5, 0.25, 0.75)
        whole.add(progress, 0.7)
        if step == 333:
            second.load(copy.deepcopy(first.state))
        (first if step < 333 else second).add(progress, 0.7)
    assert second.state == whole.state
    assert len(whole.state["rows"]["step"]) == LOOKS + 1
    assert whole.state["rows"]["loss"][1] == pytest.approx(sum(1 / s for s in (2, 3, 4, 5)) / 4)


def test_a_history_belongs_to_one_plan(tmp_path: Path) -> None:
    result = graphprune.prune(small_network(), sparsity=0.5)
    result.metrics["before"], result.curves = 0.5, {"density": [1.0, float("inf")]}
    result.save(tmp_path / "small.onnx")
    plan = tmp_path / "small.plan.json"
    assert load_history(plan) == result.history == History({"before": 0.5}, {}, {"density": [1.0, None]})
    assert Page(result.to_html()).data["curves"] == {"density": [1.0, None]}
    graphprune.prune(small_network(), sparsity=0.25).save(tmp_path / "small.onnx", force=True)
    assert load_history(plan) == History()


@pytest.mark.parametrize("text", ["[]", "{", '{"version": 1}', "[" * 100_000, "\0"])
def test_an_unreadable_history_is_one_sentence(tmp_path: Path, text: str) -> None:
    graphprune.prune(small_network(), sparsity=0.5).save(tmp_path / "small.onnx")
    (tmp_path / "small.history.json").write_text(text, encoding="utf-8")
    with pytest.raises(PlanError, match=r"small\.history\.json is not a readable history: remove it"):
        load_history(tmp_path / "small.plan.json")


# -- parts ----------------------------------------------------------------------------------------------


def test_sensitivity_is_drawn() -> None:
    content = content_of(graphprune.analyze(small_network()))
    content["sensitivity"] = {
        "ratios": [0.1, 0.5],
        "metric": "accuracy",
        "groups": [
            {"group": 0, "name": "conv1", "values": [0.9, 0.2]},
            {"group": 1, "name": HOSTILE, "values": [0.8, None]},
        ],
    }
    found = Page(page(content))
    assert found.problems == []
    tints = re.findall(r"--tint:(\d+)%", str([a.get("style") for _, a in found.tags]))
    assert tints == ["0", "100", "14"], "the most is lost where accuracy is lowest"
    assert found.data["sensitivity"]["groups"][1]["name"] == HOSTILE


def test_figures() -> None:
    assert count(274042) == "274,042"
    assert (share(1, 4), share(0, 0)) == ("25.0 %", "-")
    assert (shape([1, 3, 8]), shape([]), shape(None)) == ("1x3x8", "scalar", "-")
