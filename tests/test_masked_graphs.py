"""Random networks, random masks: the module under hard masks equals the file that is written from it."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="trained masks need torch")

import torch

import sample_models
from graphprune.errors import BudgetError, ConversionError, FidelityError, GraphpruneError
from graphprune.feeds import draw
from graphprune.search.search import Search
from tests.fx_oracle import TOLERANCE, apart, nudged
from tests.marks import slow
from tests.oracle import session
from tests.random_graphs import Recipe, build, random_recipe, recipes
from tests.real_models import light_model, shared_models

EXAMPLES = int(os.environ.get("GRAPHPRUNE_EXAMPLES", "0"))
"""Set it for a long random search; otherwise the same few dozen examples run every time."""

REFUSED = "refused"
BLOCKS = (
    "16x8x1x1", "-1x1x1x1", "1x-1", "-1x-1", "2x2", "3x2x2x2", "1x1x1x1", "4x1x-1x-1", "1x4x3x3", "5x3",
    "2x2x3x3x3",
)  # fmt: skip


# -- what is drawn ----------------------------------------------------------------------------------


def draw_words(rng: np.random.Generator, structure: str | None = None) -> dict[str, Any]:
    """Keyword arguments of a Search."""

    def pick(*options: Any) -> Any:
        return options[int(rng.integers(len(options)))]

    structure = structure or pick(*["channel"] * 5, *["block"] * 3, *["nm"] * 2)
    words = {
        "structure": structure,
        "max_steps": pick(1, 1, 3, 6),
        "deferred": pick(False, False, True),
        "mask_init": pick("weight", "weight", "constant", "activation", "weight-activation", "taylor"),
        "temp_unit": pick("std", "std", "raw"),
        "budget_anneal": pick(0.0, 0.5),
    }
    if structure == "channel":
        words |= {
            pick("sparsity", "sparsity", "params", "macs"): pick(0.1, 0.3, 0.5, 0.7),
            "multiple_of": pick(1, 1, None),
            "min_channels": pick(1, 1, 2),
            "allocation": pick("global", "global", "uniform"),
            "attention": pick("heads", "width", "both"),
            "allow_inexact": pick(False, False, True),
            "ratios": pick({}, {}, {}, {"node_*[02468]": 0.25}),
            "exclude": pick((), (), (), ("node_*[13579]",)),
        }
    elif structure == "block":
        words |= {"sparsity": pick(0.2, 0.5, 0.8), "block": pick(*BLOCKS)}
        words["max_layer_sparsity"] = pick(0.98, 0.9)
    else:
        words["nm"] = pick("1:2", "2:4", "1:4", "3:5", "7:8")
    return words


def inputs(search: Search, seed: int) -> tuple[torch.Tensor, ...]:
    """Random inputs of the analysed sizes, two samples where the file has a batch of one."""
    feed = draw(search.imported.specs, "normal", [seed])
    tensors = {n: torch.from_numpy(a) for n, a in feed.items()}
    axes = search.imported.batch.axes
    if search.imported.batch.fixed == 1:  # BatchNorm has no statistics of one vector
        tensors = {n: torch.cat((t, t + 1), axes[n]) if n in axes else t for n, t in tensors.items()}
    return tuple(tensors.values())


def train(search: Search, steps: int, rng: np.random.Generator, rate: float = 1e-3) -> None:
    """A few optimiser steps towards smaller outputs, in train mode more often than not."""
    optimizer = torch.optim.Adam(search.parameters(), lr=rate)
    search.module.train(bool(rng.random() < 0.7))
    for _ in range(steps):
        outputs = search.module(*inputs(search, int(rng.integers(2**30))))
        tensors = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
        loss = sum(t.square().mean().clamp(max=1e3) for t in tensors if t.is_floating_point())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        search.step()


def randomise(search: Search, rng: np.random.Generator) -> None:
    """Random mask logits."""
    for logits in search.masking.parameters():
        with torch.no_grad():
            logits.copy_(torch.from_numpy(rng.standard_normal(logits.shape).astype(np.float32)))


def searched(source: Any, words: dict[str, Any], rng: np.random.Generator) -> Search:
    """A search with random masks over weights that were trained a little, hardened."""
    data = words["mask_init"] in ("activation", "weight-activation", "taylor")
    words = words | {"deferred": words["deferred"] or data}
    search = Search(source, **words)
    if words["deferred"]:
        train(search, int(rng.integers(0, 3)), rng)
        search.begin([inputs(search, 0)] if data else ())
    if rng.random() < 0.7:
        randomise(search, rng)
    train(search, int(rng.integers(0, words["max_steps"] + 1)), rng, 10.0 ** rng.uniform(-4, -2))
    search.harden()
    return search


# -- what must hold -----------------------------------------------------------------------------------


def check_masks(search: Search) -> None:
    """Nothing lies between 0 and 1."""
    if search.masking.parameters():
        assert set(search.module.masks().unique().tolist()) <= {0.0, 1.0}
    else:
        assert all(row.hard.dtype == torch.bool for row in search.masking.rows.values())


def check_result(search: Search) -> onnx.ModelProto:
    """The written file equals the masked module, by the search's own account."""
    result = search.result()
    fidelity = result.plan.fidelity
    assert fidelity["holds"]
    assert fidelity["module"] <= fidelity["tolerance"]
    onnx.checker.check_model(result.model.to_onnx())
    return result.model.to_onnx()


def check_equal(search: Search, written: onnx.ModelProto, *, wanted: int = 2) -> None:
    """The same seen from outside, on inputs whose rounding the file does not amplify."""
    runtime = session(written)
    search.module.eval()
    for seed in range(12):
        feed = draw(search.imported.specs, ("normal", "unit")[seed % 2], [seed])
        expected = runtime.run(None, feed)
        if apart(runtime.run(None, nudged(feed)), expected, floor=1e-2) > TOLERANCE / 10:
            continue
        with torch.no_grad():
            outputs = search.module(*(torch.from_numpy(a) for a in feed.values()))
        found = [outputs] if isinstance(outputs, torch.Tensor) else outputs
        assert apart([t.numpy() for t in found], expected, floor=1e-2) <= TOLERANCE
        wanted -= 1
        if not wanted:
            return
    raise AssertionError("the network amplifies rounding on nearly every input")


def check_refusal(error: GraphpruneError) -> None:
    """One clear sentence, and no bug of ours."""
    assert not isinstance(error, FidelityError), error
    assert str(error)
    assert "\n" not in str(error)


def check(recipe: Recipe, seed: int, words: dict[str, Any] | None = None) -> str:
    """Every property; returns the structure, or REFUSED."""
    rng = np.random.default_rng(seed)
    words = draw_words(rng) | (words or {})
    try:
        search = searched(build(recipe), words, rng)
        check_masks(search)
        check_equal(search, check_result(search))
        train(search, 1, rng)  # under hard masks
        check_masks(search)
        check_result(search)
    except GraphpruneError as error:
        check_refusal(error)
        return REFUSED
    return str(words["structure"])


# -- random networks ----------------------------------------------------------------------------------


@settings(
    max_examples=EXAMPLES or 60,
    derandomize=not EXAMPLES,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
@given(recipes(), st.integers(0, 2**20))
def test_any_network(recipe: Recipe, seed: int) -> None:
    check(recipe, seed)


def test_networks_are_really_trained() -> None:
    outcomes = Counter(check(random_recipe(seed), seed) for seed in range(40))
    assert outcomes[REFUSED] <= 10
    assert all(outcomes[structure] >= 5 for structure in ("channel", "block", "nm"))


# -- real networks ------------------------------------------------------------------------------------

SIZES = {
    "Kahsolt__ch_PP-OCRv3_det_infer": {"x": (2, 3, 64, 64)},
    "Kahsolt__ch_ppocr_mobile_v2.0_cls_infer": {"x": (2, 3, 48, 96)},
    "NVIDIA__attention_head": {"input": (100, 100, 100)},
    "NVIDIA__residual_block": {"gpu_0/data_0": (1, 3, 224, 224)},
    "ShiqiYu__yunet_n_dynamic": {"input": (2, 3, 64, 64)},
    "jkflying__xfeat": {"input": (2, 3, 64, 64)},
    "xboot__super_resolution_10": {"input": (1, 1, 224, 224)},
}
"""Small sizes for what is dynamic, or the only ones that fit."""

UNCONVERTED = {
    "Rehan000__xfeat_vga": "operator SequenceEmpty",
    "microsoft__fns_candy": "operator ImageScaler",
    "udaypartha__yolov8n-seg_int8": "operator DynamicQuantizeLinear",
}

LARGE = ("Kazuhito00__PAN", "Kazuhito00__yolox", "xboot__super_resolution", "NVIDIA__residual_block")
"""One sparsity is enough for the time they take."""


def check_real(source: Any, sparsity: float, sizes: dict[str, tuple[int, ...]] | None = None) -> None:
    """Random masks at a sparsity, and one training step."""
    rng = np.random.default_rng(0)
    search = Search(source, sparsity=sparsity, max_steps=2, input_shapes=sizes or {})
    randomise(search, rng)
    train(search, 1, rng)
    plan, _ = search.finish()
    check_masks(search)
    assert plan.weights == "trained"
    assert plan.budget["achieved"] == pytest.approx(sparsity, abs=0.06)
    check_result(search)


@pytest.mark.parametrize("sparsity", slow([0.3, 0.5], {0.3}))
@pytest.mark.parametrize("path", shared_models(), ids=lambda p: p.stem)
def test_third_party_files(path: Path, sparsity: float) -> None:
    sizes = SIZES.get(path.stem)
    if path.stem in UNCONVERTED:
        with pytest.raises(ConversionError, match=UNCONVERTED[path.stem]):
            Search(path, sparsity=sparsity)
    elif path.stem == "NVIDIA__attention_head":
        with pytest.raises(BudgetError, match="nothing in this model can be pruned by whole channels"):
            Search(path, sparsity=sparsity, input_shapes=sizes)
    elif path.stem.startswith(LARGE) and sparsity == 0.3:
        pytest.skip("a large image: one sparsity is enough")
    else:
        check_real(path, sparsity, sizes)


@pytest.mark.skipif(bool(shared_models()), reason="the folder of third-party models is present")
def test_third_party_files_are_absent() -> None:
    pytest.skip("no ../shared/models beside the repository: third-party files are not tested")


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet"])
def test_networks_of_the_onnx_package(name: str) -> None:
    check_real(light_model(name), 0.5)


@pytest.mark.parametrize("name", ["swin", "yolov5_raw"])
def test_samples(name: str, tmp_path: Path) -> None:
    check_real(sample_models.export(name, tmp_path / f"{name}.onnx"), 0.3)
