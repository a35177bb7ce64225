"""File formats side by side on ResNet-50 in blocks of 16 x 8: bytes, zipped bytes, and seconds until it can run."""

from __future__ import annotations

import math
import time
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

import graphprune
from graphprune.formats import emit
from graphprune.layouts import BlockLayout, Layout
from graphprune.writeback import stored_arrays, with_tensors
from tests.real_models import light_model

FORMATS = ("dense-zeros", "compact", "sparse-initializer")
BLOCK = (16, 8, 1, 1)
MEGABYTE = 1_000_000


def masked(share: float) -> tuple[ir.Model, dict[str, Layout]]:
    """ResNet-50 without a random ``share`` of the blocks of every convolution and of the last layer."""
    model = graphprune.load(light_model("resnet50")).ir
    rng = np.random.default_rng(0)
    names = [n for n, v in model.graph.initializers.items() if v.shape is not None and len(v.shape) in (2, 4)]
    layouts: dict[str, Layout] = {}
    arrays = {}
    for name, array in stored_arrays(model, names).items():
        block = BLOCK[: array.ndim]
        grid = tuple(math.ceil(n / b) for n, b in zip(array.shape, block, strict=True))
        kept = np.ones(math.prod(grid), bool)
        kept[rng.permutation(kept.size)[: round(share * kept.size)]] = False
        layouts[name] = BlockLayout(name, array.shape, block, kept.reshape(grid))
        mask = kept.reshape(grid)
        for axis, size in enumerate(block):
            mask = np.repeat(mask, size, axis=axis)
        arrays[name] = array * mask[tuple(slice(0, n) for n in array.shape)]
    return with_tensors(model, arrays), layouts


def load_seconds(paths: Iterable[Path], rounds: int = 12) -> list[float]:
    """Until onnxruntime has read, optimised and prepared each model: the best of several rounds, one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    best = dict.fromkeys(paths, math.inf)
    for _ in range(rounds):
        for path in best:
            start = time.perf_counter()
            ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            best[path] = min(best[path], time.perf_counter() - start)
    return list(best.values())


def zipped_bytes(path: Path) -> int:
    target = path.with_suffix(".zip")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path, path.name)
    return target.stat().st_size


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9])
def test_format_sizes(share: float, tmp_path: Path) -> None:
    model, layouts = masked(share)
    paths = {name: emit(model, layouts, name).save(tmp_path / f"{name}.onnx") for name in FORMATS}
    sizes = {name: path.stat().st_size for name, path in paths.items()}
    print(f"\nResNet-50, blocks 16x8, {share:.0%} of them zero")
    print(f"{'format':<20}{'file MB':>10}{'zipped MB':>12}{'load s':>9}")
    for (name, path), seconds in zip(paths.items(), load_seconds(paths.values()), strict=True):
        zipped = zipped_bytes(path)
        print(f"{name:<20}{sizes[name] / MEGABYTE:>10.1f}{zipped / MEGABYTE:>12.1f}{seconds:>9.2f}")
    sidecar = (tmp_path / "compact.blocks.npz").stat().st_size
    print(f"{'sidecar (.npz)':<20}{sidecar / MEGABYTE:>10.1f}")
    assert sizes["compact"] < (1 - share + 0.05) * sizes["dense-zeros"]
    assert sizes["compact"] < sizes["sparse-initializer"]
