"""Accuracy of one-shot pruning by method, allocation and alignment: ``python -m tests.benchmarks.one_shot``.

ResNet-20 of this repository and, where ../shared/models is there, a third-party CNN, both trained on
CIFAR-10. Measured on the first 2,000 *training* images, because defaults are chosen by it.
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime as ort
from rich.console import Console
from rich.table import Table

import graphprune

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
SHARES = (0.1, 0.2, 0.3, 0.5)
IMAGES = 2000


def datasets() -> ModuleType:
    """The readers that lie beside the data."""
    path = SHARED / "data" / "datasets.py"
    spec = importlib.util.spec_from_file_location("datasets", path)
    if spec is None or spec.loader is None or not path.exists():
        sys.exit(f"{path} is missing: this benchmark needs CIFAR-10 beside the repository")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def networks(images: np.ndarray) -> Iterator[tuple[str, Path, np.ndarray]]:
    """Name, file and normalised images ``[n, 3, 32, 32]``."""
    with np.load(ROOT / "sample_models" / "cifar10_eval.npz") as stored:
        mean, std = stored["mean"].reshape(-1), stored["std"].reshape(-1)
    yield "ResNet-20", ROOT / "sample_models" / "resnet20_cifar10.onnx", (images - mean) / std
    path = SHARED / "models" / "microsoft__cifar10_tutorial_cnn.onnx"
    if path.exists():
        yield "tutorial CNN", path, (images - 0.5) / 0.5


def accuracy(model: onnx.ModelProto, images: np.ndarray, labels: np.ndarray) -> float:
    """Percent of ``images`` [n, h, w, c] classified right."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    hits = 0
    for start in range(0, len(images), 200):
        batch = images[start : start + 200].transpose(0, 3, 1, 2).astype(np.float32)
        (logits,) = session.run(None, {name: batch})
        hits += int((np.asarray(logits).argmax(1) == labels[start : start + 200]).sum())
    return 100 * hits / len(images)


def main() -> None:
    (pixels, labels), _ = datasets().cifar10(n_train=IMAGES, n_test=1)
    table = Table("network", "method", "allocation", "multiple of", *(f"{s:.0%}" for s in SHARES))
    for name, path, images in networks(pixels / 255):
        table.add_row(name, "(unpruned)", "", "", f"{accuracy(onnx.load(path), images, labels):.1f}")
        for method, allocation, multiple in itertools.product(
            ("magnitude", "magnitude-l1", "bn-scale", "random"), ("uniform", "global"), (None, 1)
        ):
            row = []
            for share in SHARES:
                try:
                    result = graphprune.prune(
                        path, sparsity=share, method=method, allocation=allocation, multiple_of=multiple
                    )
                    row.append(f"{accuracy(result.model.to_onnx(), images, labels):.1f}")
                except graphprune.OptionError:
                    row.append("-")  # no BatchNormalization to read
            table.add_row(name, method, allocation, str(multiple or "auto"), *row)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
