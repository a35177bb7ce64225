"""One row: prune and train as its key says, and what came of it."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np

import graphprune
from graphprune import Recipe, TrainingOptions
from tests.benchmarks.paper.keys import ONE_SHOT, OTHERS, WORDS, Key
from tests.benchmarks.paper.networks import NETWORKS
from tests.benchmarks.paper.producer_gates import PRODUCER, producer_gates
from tests.benchmarks.trained import Watch, machine, short_commit

SEARCH_SHARE = 0.5


def run(key: Key) -> dict[str, Any]:
    """The row of ``key``. Raises what ``graphprune.prune`` raises."""
    import torch

    network = NETWORKS[key.network]
    files = network.task.files()
    start = time.perf_counter()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    recipe = replace(recipe_of(key), device=device)
    options = TrainingOptions(
        str(files["train"]),
        recipe,
        eval_data=str(files[key.split]),
        eval=network.task.metric,
        watcher=Watch(said(key)),
    )
    model = graphprune.load(network.path)
    with producer_gates() if PRODUCER in key.settings else nullcontext():
        result = graphprune.prune(model, method=key.method, seed=key.seed, training=options, **key.words)
    return {
        **key.plain(),
        **{when: round(value, 5) for when, value in result.metrics.items()},
        "achieved": round(result.plan.budget["achieved"], 5),
        "proof": result.fidelity.max_rel_diff,
        "vacuous": result.fidelity.vacuous,
        "amp": recipe.amp,
        "seconds": round(time.perf_counter() - start),
        "layers": kept_by_layer(model.to_onnx(), result.model.to_onnx()),
        "commit": short_commit(),
        "machine": f"{machine()} {device}" if device == "cpu" else torch.cuda.get_device_name(),
        "date": date.today().isoformat(),
        "command": key.command,
    }


def recipe_of(key: Key) -> Recipe:
    """The task's recipe with the key's settings."""
    network = NETWORKS[key.network]
    share = 0.0 if key.method in ONE_SHOT else float(key.flags.get("search-share", SEARCH_SHARE))
    settings = {k: v for k, v in key.flags.items() if k not in (*WORDS, *OTHERS)}
    values = {flag.replace("-", "_"): _value(text) for flag, text in settings.items()}
    return Recipe(
        **{**network.task.recipe, "amp": network.precision, **values},
        search_epochs=1e6 * share,  # more than enough: max_steps shrinks them in proportion
        finetune_epochs=1e6 * (1 - share),
        max_steps=key.steps,
        seed=key.seed,
    )


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def kept_by_layer(before: Any, after: Any) -> dict[str, float]:
    """Weights of convolutions and matrices that are not zero after pruning, as a share of those before, by name."""
    from onnx import numpy_helper

    def arrays(model: Any) -> dict[str, np.ndarray]:
        used = {i for n in model.graph.node if n.op_type in ("Conv", "Gemm", "MatMul") for i in n.input[1:2]}
        return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if t.name in used}

    old, new = arrays(before), arrays(after)
    return {
        name: round(float(np.count_nonzero(new[name]) / old[name].size), 4) for name in old if name in new
    }


def said(key: Key) -> dict[str, Any]:
    """What a line about a running row begins with."""
    what = {"model": f"{key.network} {key.structure}", "recipe": " ".join((key.method, *key.settings))}
    return {**what, "sparsity": key.sparsity, "seed": key.seed}
