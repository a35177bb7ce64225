"""``make demo``, first part: prune a ResNet-20 that was trained on CIFAR-10, and look at size, accuracy and proof.

    python -m sample_models.demo

One-shot pruning without any training after it costs accuracy, and the table says how much.
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from rich import box
from rich.console import Console
from rich.table import Table

import graphprune

HERE = Path(__file__).resolve().parent
MODEL = HERE / "resnet20_cifar10.onnx"
IMAGES = HERE / "cifar10_eval.npz"
SHARES = (0.1, 0.3, 0.5)
BATCH = 100


@dataclass(frozen=True)
class Row:
    """One line of the table. ``figure`` is the proof's, None for the original."""

    what: str
    params: int
    macs: int
    accuracy: float
    figure: float | None


def evaluation_slice(path: Path) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Normalised images ``[n, 3, 32, 32]`` and their labels ``[n]``."""
    with np.load(path) as stored:
        images = stored["input_u8"].astype(np.float32) / 255
        images = (images - stored["mean"]) / stored["std"]
        return images.astype(np.float32), stored["labels"]


def accuracy(path: Path, images: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> float:
    """Top-1 accuracy of an ONNX file in onnxruntime."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    hits = 0
    for begin in range(0, len(labels), BATCH):
        (logits,) = session.run(["logits"], {"input": images[begin : begin + BATCH]})
        hits += int((np.asarray(logits).argmax(1) == labels[begin : begin + BATCH]).sum())
    return hits / len(labels)


def prune_to(
    share: float, folder: Path, images: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
) -> Row:
    """Remove ``share`` of the channels, write the file, and measure what was written."""
    result = graphprune.prune(MODEL, sparsity=share, multiple_of=1)
    path = result.save(folder / f"resnet20_{share:.0%}.onnx")
    plan = result.plan
    return Row(
        f"{share:.0%} of channels removed",
        plan.params["after"],
        plan.macs["after"],
        accuracy(path, images, labels),
        result.fidelity.max_rel_diff,
    )


def main() -> None:
    """Print the table."""
    start = time.perf_counter()
    console = Console(highlight=False)
    images, labels = evaluation_slice(IMAGES)
    analysis = graphprune.analyze(MODEL)
    cost = analysis.cost
    rows = [Row("original", cost.total_params, cost.total_macs, accuracy(MODEL, images, labels), None)]
    with tempfile.TemporaryDirectory(prefix="graphprune-demo-") as folder:
        rows += [prune_to(share, Path(folder), images, labels) for share in SHARES]
    title = f"ResNet-20 on CIFAR-10, pruned in one shot ({len(labels)} test images)"
    console.print(render(rows, title))
    first, last = rows[0], rows[-1]
    console.print(
        "masked vs pruned: the largest relative difference between the original with those channels masked\n"
        "and the smaller file, on random inputs. It proves the surgery and says nothing about accuracy:\n"
        "from weight magnitudes alone, with the same share in every group and no training afterwards,\n"
        f"{last.what} takes accuracy from {first.accuracy:.1%} to {last.accuracy:.1%}. "
        "Train the smaller network\nagain to get it back.",
        soft_wrap=True,
    )
    console.print(f"{time.perf_counter() - start:.1f} s; the files were temporary")


def render(rows: list[Row], title: str) -> Table:
    """The rows as a table."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("")
    for name in ("parameters", "MACs", "accuracy", "masked vs pruned"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row.what,
            f"{row.params:,}",
            f"{row.macs / 1e6:.1f} M",
            f"{row.accuracy:.1%}",
            "" if row.figure is None else f"{row.figure:.0e}",
        )
    return table


if __name__ == "__main__":
    main()
