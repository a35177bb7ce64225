"""A whole training: data -> search -> fine-tuning -> file; resumed, interrupted, in parallel, and gone wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

pytest.importorskip("torch", reason="trained masks need torch")

from conftest import Run

from graphprune import Plan, TrainingOptions, prune, verify
from graphprune.errors import DataError, Interrupted, OptionError, TrainingError
from graphprune.recipes.recipe import Recipe
from graphprune.recipes.training import Progress
from graphprune.training.phases import phases_of
from tests.marks import slow

ROOT = Path(__file__).resolve().parents[1]
QUICK = Recipe(search_epochs=2, finetune_epochs=1, batch_size=16, device="cpu", threads=1)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "images.npz"
    np.savez(path, x=rng.standard_normal((96, 3, 8, 8)).astype(np.float32), labels=rng.integers(0, 5, 96))
    return path


class Watch:
    """Remembers what it is told; may raise at a step."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.steps: list[Progress] = []
        self.metrics: list[tuple[str, str, float]] = []
        self.notes: list[str] = []
        self.stop_at = stop_at

    def step(self, progress: Progress) -> None:
        self.steps.append(progress)
        if progress.step == self.stop_at:
            raise KeyboardInterrupt

    def metric(self, when: str, name: str, value: float) -> None:
        self.metrics.append((when, name, value))

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


def tensors(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}


def test_the_phases_and_what_is_shown(model_file: Path, images: Path) -> None:
    watch = Watch()
    options = TrainingOptions(str(images), QUICK, eval_data=str(images), watcher=watch)
    result = prune(model_file, method="smart", sparsity=0.5, multiple_of=1, training=options)
    assert [p.phase for p in watch.steps] == ["search"] * 12 + ["fine-tune"] * 6
    assert watch.steps[0].temperature > 1 > watch.steps[11].temperature
    assert watch.steps[-1].kept == pytest.approx(0.5, abs=0.02)
    assert [(w, n) for w, n, _ in watch.metrics] == [
        ("before", "accuracy"),
        ("after hardening", "accuracy"),
        ("after fine-tuning", "accuracy"),
    ]
    assert result.metrics == {w: v for w, _, v in watch.metrics}
    assert result.plan.method == "smart"
    assert result.plan.weights == "trained"
    assert result.plan.fidelity["module"] <= 1e-4


def test_the_metric_is_that_of_the_written_file(model_file: Path, images: Path, tmp_path: Path) -> None:
    options = TrainingOptions(str(images), QUICK, eval_data=str(images))
    result = prune(model_file, method="smart", sparsity=0.5, training=options)
    path = result.save(tmp_path / "small.onnx")
    data = np.load(images)
    (logits,) = ort.InferenceSession(path).run(None, {"x": data["x"]})
    assert (logits.argmax(1) == data["labels"]).mean() == result.metrics["after fine-tuning"]
    assert verify(model_file, path).holds
    assert onnx.load(path).graph.node[0].name == "conv1"  # the original graph, sliced; not an export


def test_a_run_is_the_same_twice_and_another_with_another_seed(model_file: Path, images: Path) -> None:
    def run(seed: int) -> dict[str, np.ndarray]:
        options = TrainingOptions(str(images), QUICK)
        return tensors(
            prune(model_file, method="smart", sparsity=0.5, training=options, seed=seed).model.to_onnx()
        )

    first, again, other = run(0), run(0), run(1)
    assert all(np.array_equal(first[n], again[n]) for n in first)
    assert any(not np.array_equal(first[n], other[n]) for n in first if first[n].shape == other[n].shape)


@pytest.mark.parametrize("stop_at", [3, 11, 15])
@pytest.mark.parametrize(
    "changes",
    [{}, {"augment": "light", "ema": 0.9, "optimizer": "muon", "mask_every": 2, "pretrain_epochs": 0.5}],
    ids=["plain", "everything"],
)
def test_resume_continues_bit_for_bit(
    stop_at: int, changes: dict, model_file: Path, images: Path, tmp_path: Path
) -> None:
    recipe = replace(QUICK, **changes)

    def run(**more) -> dict[str, np.ndarray]:
        options = TrainingOptions(str(images), recipe, eval_data=str(images), **more)
        result = prune(model_file, method="smart", sparsity=0.5, training=options)
        curves = {f"curve {name}": np.array(values) for name, values in result.training.items()}
        return tensors(result.model.to_onnx()) | curves

    whole = run()
    checkpoint = tmp_path / "run.checkpoint"
    with pytest.raises(Interrupted, match=f"at step {stop_at} of .*--resume") as caught:
        run(checkpoint=checkpoint, watcher=Watch(stop_at))
    assert caught.value.exit_code == 130
    watch = Watch()
    resumed = run(checkpoint=checkpoint, resume=True, watcher=watch)
    assert watch.steps[0].step == stop_at + 1
    assert whole.keys() == resumed.keys()
    assert all(np.array_equal(whole[n], resumed[n]) for n in whole)
    assert [m[0] for m in watch.metrics] == ["before", "after hardening", "after fine-tuning"]


@pytest.mark.parametrize("structure", ["channel", "block", "nm"])
@pytest.mark.parametrize("method", ["pdp", "pas", "awg", "acdc", "gmp", "magnitude", "snip"])
def test_every_method_resumes_bit_for_bit(
    method: str, structure: str, model_file: Path, images: Path, tmp_path: Path
) -> None:
    """Stopped within the search, among masks that are held, multipliers and running means."""
    words: dict = {"channel": {"sparsity": 0.5}, "block": {"sparsity": 0.5, "block": "4x4"}, "nm": {}}[
        structure
    ]
    recipe = replace(QUICK, search_epochs=2, rounds=2, amp="none")

    def run(**more) -> dict[str, np.ndarray]:
        options = TrainingOptions(str(images), recipe, **more)
        found = prune(model_file, method=method, structure=structure, training=options, **words)
        return tensors(found.model.to_onnx())

    whole = run()
    checkpoint = tmp_path / "run.checkpoint"
    with pytest.raises(Interrupted):
        run(checkpoint=checkpoint, watcher=Watch(3))
    resumed = run(checkpoint=checkpoint, resume=True)
    assert whole.keys() == resumed.keys()
    assert all(np.array_equal(whole[n], resumed[n]) for n in whole)


def test_a_checkpoint_of_another_run_is_refused(model_file: Path, images: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.checkpoint"
    options = TrainingOptions(str(images), QUICK, checkpoint=checkpoint, watcher=Watch(2))
    with pytest.raises(Interrupted):
        prune(model_file, method="smart", sparsity=0.5, training=options)
    again = replace(options, resume=True, watcher=None, recipe=replace(QUICK, lr=0.5))
    with pytest.raises(OptionError, match=r"other --lr\)"):
        prune(model_file, method="smart", sparsity=0.5, training=again)
    with pytest.raises(OptionError, match=r"other budget\)"):
        prune(model_file, method="smart", sparsity=0.6, training=replace(again, recipe=QUICK))
    checkpoint.write_bytes(b"not a checkpoint")
    with pytest.raises(OptionError, match="not a readable checkpoint"):
        prune(model_file, method="smart", sparsity=0.5, training=replace(again, recipe=QUICK))
    checkpoint.unlink()
    with pytest.raises(OptionError, match="no such checkpoint"):
        prune(model_file, method="smart", sparsity=0.5, training=replace(again, recipe=QUICK))


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(
    model_file: Path, images: Path, tmp_path: Path
) -> None:
    data = dict(np.load(images))
    data["x"][40:] = np.nan
    np.savez(images, **data)
    checkpoint = tmp_path / "run.checkpoint"
    options = TrainingOptions(
        str(images), replace(QUICK, checkpoint_minutes=0, seed=3, batch_size=4), checkpoint=checkpoint
    )
    with pytest.raises(TrainingError, match=r"the loss is nan at step \d+ of 72 \(search\): lower --lr"):
        prune(model_file, method="smart", sparsity=0.5, training=options, seed=3)


def test_a_full_disk_keeps_the_earlier_checkpoint(
    model_file: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOSPC in the middle of a write: /dev/full stands for the disk."""
    from graphprune.training import checkpoint as module

    path = tmp_path / "run.checkpoint"
    module.save_checkpoint(path, {"position": (1, 0, 1)})

    def full(state: object, file: object) -> None:
        with open("/dev/full", "wb", buffering=0) as disk:
            disk.write(b"x")

    monkeypatch.setattr(module.torch, "save", full)
    with pytest.raises(TrainingError, match=r"cannot write the checkpoint .*No space left.*still there"):
        module.save_checkpoint(path, {"position": (2, 0, 2)})
    monkeypatch.undo()
    assert module.load_checkpoint(path)["position"] == (1, 0, 1)
    assert [p.name for p in tmp_path.glob(".run*")] == []


def test_bad_input_is_one_sentence(model_file: Path, images: Path, tmp_path: Path) -> None:
    def attempt(**changes) -> None:
        options = {"data": str(images), "recipe": QUICK} | changes
        prune(model_file, method="smart", sparsity=0.5, training=TrainingOptions(**options))

    wrong = tmp_path / "wrong.npz"
    np.savez(wrong, x=np.zeros((20, 3, 9, 9), np.float32))
    with pytest.raises(DataError, match=r"9.*8"):
        attempt(data=str(wrong))
    np.savez(wrong, x=np.zeros((20, 3, 8, 8), np.float32), labels=np.full(20, 7))
    with pytest.raises(DataError, match="label 7 is out of range: the model has 5 classes"):
        attempt(data=str(wrong), recipe=replace(QUICK, loss="cross-entropy"))
    with pytest.raises(DataError, match="label 7 is out of range"):
        attempt(eval_data=str(wrong))
    np.savez(wrong, x=np.zeros((20, 3, 8, 8), np.float32))
    with pytest.raises(DataError, match="needs labels"):
        attempt(data=str(wrong), recipe=replace(QUICK, loss="cross-entropy"))
    with pytest.raises(DataError, match="no labels"):
        attempt(eval_data=str(wrong))
    with pytest.raises(OptionError, match="--eval needs --eval-data"):
        attempt(eval="accuracy")
    with pytest.raises(OptionError, match="needs inputs: give it --data"):
        prune(model_file, method="smart", sparsity=0.5)
    with pytest.raises(OptionError, match="--device cuda:77"):
        attempt(recipe=replace(QUICK, device="cuda:77"))


def test_labels_and_functions_of_ones_own(
    model_file: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.py").write_text(
        "import torch\n"
        "def loss(outputs, labels):\n"
        "    return torch.nn.functional.cross_entropy(outputs[0], labels.long())\n"
        "def metric(outputs, labels):\n"
        "    return float((outputs.argmax(1) == labels).mean())\n"
    )
    monkeypatch.chdir(tmp_path)
    found = {}
    for loss, metric in (("cross-entropy", "accuracy"), ("python:own:loss", "python:own:metric")):
        options = TrainingOptions(str(images), replace(QUICK, loss=loss), eval_data=str(images), eval=metric)
        result = prune(model_file, method="smart", sparsity=0.5, training=options)
        found[loss] = (result.metrics, tensors(result.model.to_onnx()))
    (first, a), (second, b) = found.values()
    assert first == second
    assert all(a[n] == pytest.approx(b[n], rel=1e-5, abs=1e-6) for n in a)  # sums in another order


def test_phases() -> None:
    recipe = Recipe(pretrain_epochs=1, search_epochs=2, finetune_epochs=1)
    phases = phases_of(recipe, 100)
    assert (phases.pretrain, phases.search, phases.finetune) == (100, 200, 100)
    assert [phases.at(s) for s in (0, 99, 100, 299, 300)] == ["pretrain"] * 2 + ["search"] * 2 + ["fine-tune"]
    short = phases_of(replace(recipe, max_steps=40), 100)
    assert (short.pretrain, short.search, short.finetune) == (10, 20, 10)
    assert phases_of(replace(recipe, max_steps=40), None).total == 40
    with pytest.raises(OptionError, match="--max-steps"):
        phases_of(recipe, None)
    fractions = phases_of(Recipe(search_epochs=0.25, finetune_epochs=0), 10)
    assert (fractions.search, fractions.finetune) == (2, 0)


def test_statistics_are_renewed_where_no_finetuning_follows(tmp_path: Path) -> None:
    """BatchNorm of a network with half its channels masked needs the masked network's statistics."""
    rng = np.random.default_rng(0)
    images = tmp_path / "images.npz"
    np.savez(images, input=rng.standard_normal((64, 3, 32, 32)).astype(np.float32))
    recipe = replace(QUICK, search_epochs=1, finetune_epochs=0, lr=0)
    model = ROOT / "sample_models" / "resnet20_cifar10.onnx"
    result = prune(model, method="smart", sparsity=0.5, training=TrainingOptions(str(images), recipe))
    assert result.plan.fidelity["holds"]
    before, after = tensors(onnx.load(model)), tensors(result.model.to_onnx())
    last = [n for n in before if n.endswith("running_var")][-1]
    assert before[last].shape == after[last].shape or before[last].mean() != after[last].mean()


@pytest.mark.parametrize("structure", slow(["channel", "nm"], {"nm"}))
def test_two_processes_train_as_one(structure: str, model_file: Path, images: Path, tmp_path: Path) -> None:
    """torchrun with gloo: the same masks, and the same weights within rounding."""
    command = [
        "-m", "graphprune", "prune", str(model_file), "--method", "smart", "--data", str(images),
        "--structure", structure, "--search-epochs", "2", "--finetune-epochs", "1", "--batch-size", "16",
        "--device", "cpu", "--threads", "1", "--multiple-of", "1", "--eval-data", str(images),
    ]  # fmt: skip
    command += [] if structure == "nm" else ["--sparsity", "0.5"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    one, two = tmp_path / "one.onnx", tmp_path / "two.onnx"
    subprocess.run([sys.executable, *command, "-o", one], cwd=ROOT, env=env, check=True, capture_output=True)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, *command, "-o", two],
        cwd=ROOT,
        env=env,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("masked vs pruned") <= 1
    plans = [Plan.load(p.with_suffix(".plan.json")) for p in (one, two)]
    assert plans[0].removed == plans[1].removed
    first, second = tensors(onnx.load(one)), tensors(onnx.load(two))
    for name in first:
        scale = np.abs(first[name]).max()
        assert np.abs(first[name] - second[name]).max() <= 2e-3 * scale, name


def test_the_command(run: Run, model_file: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    base = ["prune", model_file, "--sparsity", "0.5", "--method", "smart", "--data", images, "-o", out]
    quick = ["--search-epochs", "1", "--finetune-epochs", "0.5", "--batch-size", "16", "--threads", "1"]
    code, stdout, stderr = run(*base, *quick, "--eval-data", images)
    assert code == 0, stderr
    assert "after fine-tuning" in stdout
    assert "accuracy before" in stderr
    assert "temperature" in stderr
    written = tmp_path / "small.recipe.toml"
    assert out.exists()
    assert out.with_suffix(".plan.json").exists()
    assert not out.with_suffix(".checkpoint").exists()
    first = out.read_bytes()
    code, _, stderr = run("prune", model_file, "-o", out, "--recipe", written, "--force")
    assert code == 0, stderr
    assert out.read_bytes() == first
    code, _, stderr = run(*base, *quick, "--force", "--recipe", "smart-pls")
    assert (code, "smart-plus" in stderr) == (2, True)
    code, _, stderr = run(*base, *quick, "--force", "--lr", "-1")
    assert (code, "--lr" in stderr) == (2, True)
    (tmp_path / "mine.toml").write_text("serch-epochs = 1\n")
    code, _, stderr = run(*base, "--force", "--recipe", tmp_path / "mine.toml")
    assert (code, "search-epochs" in stderr) == (2, True)
    code, _, stderr = run("prune", model_file, "--sparsity", "0.5", "--resume")
    assert (code, "--data" in stderr) == (2, True)
