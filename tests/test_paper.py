"""The harness of the paper's tables: rows, claims, tuning, verdicts, and that README says what the rows say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import graphprune
from tests.benchmarks.paper import camvid, cells, experiments, store, tables, tuning
from tests.benchmarks.paper.experiments import PUBLISHED, SEEDS, tuned
from tests.benchmarks.paper.keys import ONE_SHOT, Key
from tests.benchmarks.paper.networks import NETWORKS
from tests.benchmarks.paper.producer_gates import producer_gates
from tests.benchmarks.paper.running import kept_by_layer, recipe_of
from tests.benchmarks.trained import SHARED

RESNET20 = NETWORKS["resnet20"].path
KEY = Key("resnet20", "channel", 0.5, "smart", seed=1, steps=20, settings=("lr=0.001", "search-share=0.25"))


def filled(folder: Path, final: dict[str, list[float]]) -> store.Rows:
    """Rows of all trials, the second learning rate and the first own value being best, and of channels at 50 %."""
    rows = store.Rows(folder)

    def add(key: Key, value: float) -> None:
        row = {"before": 0.9, "after hardening": value / 2, cells.FINAL: value, "layers": {}, "seconds": 60}
        rest = {"machine": "x", "date": "2026-11-21", "proof": 1e-7}
        rows.add(key, {**key.plain(), **row, **rest})

    for method in final:
        for i, key in enumerate(tuning.rates(tuning.HOME, method, rows)):
            add(key, 0.7 if i == 1 else 0.6)
        for i, key in enumerate(tuning.own(tuning.HOME, method, rows)):
            add(key, 0.8 if i == 0 else 0.5)
    for method, values in final.items():
        for seed, value in zip(SEEDS, values, strict=False):
            for key in tuned(rows, "resnet20", "channel", 0.5, method, seed):
                add(key, value)
    return rows


def test_a_key_comes_back_from_json_and_from_its_command() -> None:
    assert Key.of(json.loads(json.dumps(KEY.plain() | {"seconds": 3}))) == KEY
    assert KEY.command.endswith("--steps 20 --split test --set lr=0.001 search-share=0.25")


def test_rows_are_kept_by_their_key(tmp_path: Path) -> None:
    store.Rows(tmp_path).add(KEY, {**KEY.plain(), "seconds": 3})
    assert store.Rows(tmp_path).by_key[KEY]["seconds"] == 3
    assert [p.name for p in tmp_path.iterdir()] == ["rows_resnet20.jsonl"]


def test_a_claim_is_held_by_one_and_freed_by_the_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "CACHE", tmp_path)
    with store.claim("row") as first, store.claim("row") as second:
        assert (first, second) == (True, False)
        (held,) = (tmp_path / "claims").iterdir()
    assert not held.exists()
    held.write_text("999999999")  # no process has this number
    with store.claim("row") as again:
        assert again


def test_every_method_gets_as_many_trials(tmp_path: Path) -> None:
    rows = filled(tmp_path, {m: [] for m in tuning.METHODS})
    for method in tuning.METHODS:
        trials = tuning.trials(tuning.HOME, method, rows)
        assert len(set(trials)) == 5
        assert {t.split for t in trials} == {"validation"}
        best = max(trials, key=lambda k: rows.by_key[k][cells.FINAL])
        assert tuning.chosen(method, rows) == best.settings


def test_nothing_is_chosen_before_all_trials_are_there(tmp_path: Path) -> None:
    rows = store.Rows(tmp_path)
    assert tuning.own(tuning.HOME, "smart", rows) == []
    assert tuning.chosen("smart", rows) is None
    assert list(experiments.resnet20(rows)) == []


def test_other_tasks_wait_for_their_own_trials_and_other_networks_have_resnet20s_settings(
    tmp_path: Path,
) -> None:
    rows = filled(tmp_path, {"smart": []})
    home = tuning.chosen("smart", rows)
    assert tuning.chosen("smart", rows, "googlenet") == home
    trials = tuning.rates(tuning.PLACES["bisenet"], "smart", rows)
    for value, key in enumerate(trials):
        assert tuning.chosen("smart", rows, "bisenet") is None
        rows.add(key, {**key.plain(), cells.FINAL: value / 10})
    assert tuning.chosen("smart", rows, "bisenet") == trials[-1].settings
    assert tuning.chosen("smart", rows, "swin") is None
    assert "mask-lr=0.03" in trials[-1].settings


def test_swin_begins_with_vits_settings_and_tries_others_of_every_methods_own(tmp_path: Path) -> None:
    rows, swin = filled(tmp_path, {"pdp": []}), tuning.PLACES["swin"]
    assert tuning.trials(swin, "pdp", rows) == []
    for value, key in enumerate(tuning.trials(tuning.PLACES["vit"], "pdp", rows)):
        rows.add(key, {**key.plain(), cells.FINAL: value / 10})
    (first,) = tuning.trials(swin, "pdp", rows)
    assert first.settings == tuning.chosen("pdp", rows, "vit")
    rows.add(first, {**first.plain(), cells.FINAL: 0.5})
    assert tuning.chosen("pdp", rows, "swin") is None
    _, warm, hot = tuning.trials(swin, "pdp", rows)
    assert hot.settings == ("final-temp=0.005", "init-temp=0.005", *first.settings[2:])
    for key, value in ((warm, 0.4), (hot, 0.6)):
        rows.add(key, {**key.plain(), cells.FINAL: value})
    assert tuning.chosen("pdp", rows, "swin") == hot.settings


def test_published_settings_replace_tuned_ones(tmp_path: Path) -> None:
    rows = filled(tmp_path, {"gmp": []})
    (plain,) = tuned(rows, "resnet20", "channel", 0.5, "gmp", 0)
    (changed,) = tuned(rows, "resnet20", "channel", 0.5, "gmp", 0, PUBLISHED)
    assert "budget-anneal=0.25" in plain.settings
    assert changed.settings == ("budget-anneal=0", "lr=0.0045", "snap=0")


@pytest.mark.parametrize(
    ("smart", "other", "said"),
    [
        ([0.80, 0.81, 0.82], [0.70, 0.71, 0.73], "win, +9.67 ± 0.33"),
        ([0.70, 0.71, 0.73], [0.80, 0.81, 0.82], "loss, -9.67 ± 0.33"),
        ([0.80, 0.70, 0.75], [0.75, 0.72, 0.74], "tie, +1.33 ± 2.03"),
        ([0.80, 0.81, 0.83], [0.79, 0.79, 0.80], "tie, +2.00 ± 0.58"),  # 4.3 standard errors are asked for
        ([0.8], [0.7], "+10.00 (one seed)"),
        ([0.8], [], ""),
    ],
)
def test_verdicts_are_paired(smart: list[float], other: list[float], said: str) -> None:
    one, two = (cells.Cell({i: {cells.FINAL: v} for i, v in enumerate(x)}) for x in (smart, other))
    assert cells.verdict(one, two) == said


def test_a_network_that_was_cut_through_says_so() -> None:
    rows = {i: {cells.FINAL: 0.1, "vacuous": i == 1} for i in range(2)}
    assert cells.Cell(rows).text() == "10.00 ± 0.00 (2) cut"
    assert cells.Cell({0: rows[0]}).text() == "10.00"


def test_tables_show_means_and_the_best(tmp_path: Path) -> None:
    rows = filled(tmp_path, {"smart": [0.80, 0.81, 0.82], "acdc": [0.70, 0.72, 0.71], "pas": [0.75]})
    (line,) = (x for x in tables.table3(rows) if x.startswith("| ResNet-20"))
    head = [x.strip() for x in tables.table3(rows)[0].split("|")]
    found = dict(zip(head, [x.strip() for x in line.split("|")], strict=True))
    assert found["network (dense), sparsity"] == "ResNet-20 (90.0), 50 %"
    assert found["smart"] == "**81.00 ± 1.00 (3)**"
    assert found["acdc"] == "71.00 ± 1.00 (3)"
    assert found["pas"] == "75.00"
    assert found["smart against the best other"] == "+5.00 (one seed)"
    assert found["pdp"] == ""


def test_a_suspect_differs_from_smart_in_what_it_names() -> None:
    rows = store.Rows()
    for suspect in experiments.SUSPECTS:
        (plain,), (changed,) = (list(suspect.keys(rows, 2, more)) for more in ((), suspect.more))
        assert set(changed.settings) - set(plain.settings) == set(suspect.more)
        assert replace(changed, settings=plain.settings) == plain
        assert plain.steps == (tuning.STEPS if suspect.split == "validation" else 390)


def test_readme_has_what_the_rows_say() -> None:
    rows = store.Rows()
    for document, places in tables.TABLES.items():
        text = document.read_text()
        for name, table in places.items():
            written = text.split(f"<!-- {name} -->\n")[1].split("\n<!-- end -->")[0]
            assert written.splitlines() == table(rows), (
                f"run python -m tests.benchmarks.paper tables ({name})"
            )


def test_every_row_can_be_traced() -> None:
    rows = store.Rows()
    if not rows.by_key:
        pytest.skip("no row yet")
    for key, row in rows.by_key.items():
        assert row["command"] == key.command
        assert row["commit"]
        assert row["machine"]
        assert row["date"]
        assert row["proof"] <= 1e-4
        assert abs(row["achieved"] - (1 - 2 / 4 if ":" in key.structure else key.sparsity)) < 0.02


@pytest.mark.parametrize("method", ["smart", *ONE_SHOT])
def test_methods_without_a_search_fine_tune_all_the_way(method: str) -> None:
    recipe = recipe_of(Key("resnet20", "channel", 0.5, method, 3, 40, settings=KEY.settings))
    share = recipe.search_epochs / recipe.total_epochs
    assert share == pytest.approx(0.25 if method == "smart" else 0.0)
    assert (recipe.max_steps, recipe.lr, recipe.seed) == (40, 0.001, 3)


def test_what_layers_keep_is_counted_against_the_original() -> None:
    result = graphprune.prune(RESNET20, sparsity=0.5, multiple_of=1)
    kept = kept_by_layer(graphprune.load(RESNET20).to_onnx(), result.model.to_onnx())
    assert len(kept) == 22
    assert kept["stem.0.0.weight"] == pytest.approx(0.5)
    assert kept["stages.1.1.body.0.0.weight"] == pytest.approx(0.25)


def test_batchnorm_undoes_masks_at_producers() -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 3, 32, 32)

    def changes() -> float:
        search = graphprune.Search(
            RESNET20, structure="channel", method="smart", sparsity=0.5, max_steps=10, budget_anneal=0.0
        )
        search.module.train()
        search.original.train()
        with torch.no_grad():
            plain, masked = search.original(x), search.module(x)
        return float((masked - plain).norm() / plain.norm())

    with producer_gates():
        at_producers = changes()
    assert at_producers < 0.05 < changes()


def test_dense_training_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.benchmarks.paper import dense, tasks

    for module in (dense, tasks):
        monkeypatch.setattr(module, "CACHE", tmp_path)

    def write(folder: Path) -> None:
        draw = np.random.default_rng(0)
        scale = {"mean": np.zeros(3, np.float32), "std": np.ones(3, np.float32)}
        for split in tasks.SPLITS:
            images = draw.integers(0, 256, (8, 3, 32, 32), np.uint8)
            np.savez(folder / f"{split}.npz", input=images, labels=np.arange(8), **scale)

    task = tasks.Task(
        "tiny", write, (3, 32, 32), "accuracy", "", {**tasks.TASKS["cifar10"].recipe, "batch_size": 4}
    )
    network = replace(NETWORKS["resnet20"], task=task, epochs=2)

    whole = dense.Run(network, seed=0)
    first = whole.one_epoch()
    whole.save(seconds=7.0)
    again = dense.Run(network, seed=0)
    assert (again.epoch, again.earlier) == (1, 7.0)
    assert again.one_epoch() == whole.one_epoch() != first
    for one, other in zip(again.module.parameters(), whole.module.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_camvid_is_cut_to_sizes_that_halve_five_times(tmp_path: Path) -> None:
    if not (SHARED / "data").exists():
        pytest.skip("the shared data folder is not here")
    camvid.write(tmp_path)
    for name, count in (("train", 367), ("validation", 101), ("test", 233)):
        with np.load(tmp_path / f"{name}.npz") as found:
            assert found["input"].shape == (count, *camvid.SHAPE)
            assert found["labels"].shape == (count, *camvid.SHAPE[1:])
            assert found["labels"].max() == camvid.VOID
            assert [s % 32 for s in camvid.SHAPE[1:]] == [0, 0]
