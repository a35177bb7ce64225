"""Whatever stops it, what lies on the disk belongs together: killed at every step, full disks, signals, odd places."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
import onnx
import pytest
from conftest import Run, small_network
from forked_commands import Command, Server

import graphprune
from graphprune import placing, writing
from graphprune.errors import OptionError

RESNET = Path(__file__).resolve().parents[1] / "sample_models" / "resnet20_cifar10.onnx"

Files = dict[str, bytes]
Save = Callable[[Path, bool], None]


def visible(folder: Path) -> Files:
    """What a user sees: names and contents, without working folders."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(placing.PREFIX)}


def leftovers(folder: Path) -> list[Path]:
    return list(folder.glob(f"{placing.PREFIX}*"))


def external_network(folder: Path, seed: int = 0) -> Path:
    """The small network with its weights in ``model.onnx.data``."""
    path = folder / "model.onnx"
    onnx.save(
        small_network(seed),
        path,
        save_as_external_data=True,
        location="model.onnx.data",
        size_threshold=64,
    )
    return path


# -- a set of files, killed at every step of its writing ----------------------------------------------------


@cache
def results(kind: str, folder: str) -> list[graphprune.PruneResult]:
    """An older and a newer result."""
    words = {"structure": "block", "block": "4x4"} if "block" in kind else {"only": ["conv1"]}
    found = []
    for share in (0.2, 0.35):
        source = external_network(Path(folder)) if "external" in kind else small_network()
        found.append(graphprune.prune(source, sparsity=share, **words))
    return found


def savers(kind: str, folder: Path) -> tuple[Save, Save]:
    older, newer = results(kind, str(folder))
    if kind == "from-block":  # the newer one has no sidecar
        newer = results("channel", str(folder))[1]
    if kind == "program":
        for number, result in enumerate((older, newer)):
            result.program = lambda number=number: b"program %d" % number

    def saver(result: graphprune.PruneResult, recipe: str | None) -> Save:
        ending = "m.pt2" if kind == "program" else "m.onnx"
        return lambda target, force: result.save(target / ending, force=force, recipe=recipe) and None

    return saver(older, "a = 1\n"), saver(newer, "a = 2\n")


KINDS = ["channel", "block", "from-block", "external", "external-block", "program"]


class Death(BaseException):
    """The process is gone: nothing that it would do afterwards happens."""


class Steps:
    """Counts what a process does to a disk. At step ``at`` it dies, for good or once (as an exception does)."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int, *, once: bool) -> None:
        self.done, self.at, self.once = 0, at, once
        for place, name in (
            *((os, n) for n in ("replace", "mkdir", "fsync")),
            *((Path, n) for n in ("write_bytes", "write_text")),
            (shutil, "rmtree"),
            (Path, "unlink"),
            (Path, "rmdir"),
        ):
            patch.setattr(place, name, self._counted(getattr(place, name), name == "fsync"))

    def _counted(self, real: Callable[..., object], quick: bool) -> Callable[..., object]:
        def step(*args: object, **words: object) -> object:
            self.done += 1
            if self.done == self.at or (self.done > self.at and not self.once):
                raise Death
            return None if quick else real(*args, **words)

        return step


def deaths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: Save | None, save: Save, *, once: bool
) -> Iterator[Path]:
    """The folder after each death, then once after none."""
    start = tmp_path / "start"
    start.mkdir()
    if before is not None:
        before(start, False)
    for at in range(1, 200):
        folder = tmp_path / f"dead{at}"
        shutil.copytree(start, folder)
        with monkeypatch.context() as patch:
            steps = Steps(patch, at, once=once)
            with suppress(Death):
                save(folder, before is not None)
        yield folder
        if steps.done < at:
            assert at > 8, "too few steps were seen"
            return
        shutil.rmtree(folder)
    raise AssertionError("the writing does not end")


def check_belong_together(found: Files, older: Files, newer: Files, main: str) -> None:
    """All files are of one set, and a model has the weights that it reads."""
    sets = [s for s in (older, newer) if all(s.get(name) == data for name, data in found.items())]
    assert sets, {n: [n in s and s[n] == d for s in (older, newer)] for n, d in found.items()}
    if main in found:
        weights = f"{main}.data"
        assert any(found.get(weights) == s.get(weights) for s in sets)


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_every_step(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over an older result: never a mixture; the next write into the folder makes it whole."""
    save_older, save_newer = savers(kind, tmp_path)
    complete = []
    for number, save in enumerate((save_older, save_newer)):
        (tmp_path / f"{number}").mkdir()
        save(tmp_path / f"{number}", False)
        complete.append(visible(tmp_path / f"{number}"))
    older, newer = complete
    main = next(iter(set(older) & {"m.onnx", "m.pt2"}))
    seen = []
    for folder in deaths(tmp_path, monkeypatch, save_older, save_newer, once=False):
        found = visible(folder)
        check_belong_together(found, older, newer, main)
        if "external" not in kind:
            assert main in found
        placing.settle(folder)
        assert leftovers(folder) == []
        seen.append(visible(folder))
        assert seen[-1] in (older, newer)
    assert seen[0] == older
    assert seen[-1] == newer
    assert seen == sorted(seen, key=lambda files: files == newer), (
        "the newer set, and then the older one again"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_every_step_of_the_first_writing(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = savers(kind, tmp_path)[1]
    (tmp_path / "whole").mkdir()
    save(tmp_path / "whole", False)
    complete = visible(tmp_path / "whole")
    for folder in deaths(tmp_path, monkeypatch, None, save, once=False):
        found = visible(folder)
        assert found.items() <= complete.items()
        if found.keys() & {"m.onnx", "m.pt2"}:
            assert found == complete
        placing.settle(folder)
        assert visible(folder) in ({}, complete)
        assert leftovers(folder) == []
    assert visible(folder) == complete


@pytest.mark.parametrize("kind", ["channel", "from-block", "external-block"])
def test_an_exception_at_every_step(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C, say: the older set or the newer one is there at once."""
    save_older, save_newer = savers(kind, tmp_path)
    complete = []
    for number, save in enumerate((save_older, save_newer)):
        (tmp_path / f"{number}").mkdir()
        save(tmp_path / f"{number}", False)
        complete.append(visible(tmp_path / f"{number}"))
    for folder in deaths(tmp_path, monkeypatch, save_older, save_newer, once=True):
        assert visible(folder) in complete
        placing.settle(folder)  # of a step that was itself the tidying up
        assert visible(folder) in complete
        assert leftovers(folder) == []


def test_settling_can_be_killed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_older, save_newer = savers("external-block", tmp_path)
    (tmp_path / "older").mkdir()
    save_older(tmp_path / "older", False)
    (tmp_path / "newer").mkdir()
    save_newer(tmp_path / "newer", False)
    complete = [visible(tmp_path / "older"), visible(tmp_path / "newer")]
    tried = 0
    for folder in deaths(tmp_path, monkeypatch, save_older, save_newer, once=False):
        if visible(folder) in complete:
            continue
        for at in range(1, 30):
            again = tmp_path / "again"
            shutil.copytree(folder, again)
            with monkeypatch.context() as patch:
                steps = Steps(patch, at, once=False)
                with suppress(Death):
                    placing.settle(again)
            check_belong_together(visible(again), *complete, "m.onnx")
            placing.settle(again)
            assert visible(again) in complete
            assert leftovers(again) == []
            shutil.rmtree(again)
            tried += 1
            if steps.done < at:
                break
    assert tried > 20


@pytest.mark.parametrize("kind", ["channel", "external-block"])
def test_what_somebody_put_there_meanwhile_stays(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_older, save_newer = savers(kind, tmp_path)
    tried = 0
    for folder in deaths(tmp_path, monkeypatch, save_older, save_newer, once=False):
        if not leftovers(folder):
            continue
        (folder / "m.onnx").unlink(missing_ok=True)
        (folder / "m.onnx").write_bytes(b"mine")
        found = visible(folder)
        placing.settle(folder)
        assert (folder / "m.onnx").read_bytes() == b"mine"
        older = visible(tmp_path / "start")
        for name, data in visible(folder).items():  # nothing of the newer set comes beside it
            assert found.get(name) == data or older[name] == data
        tried += 1
    assert tried > 8


def test_working_folders_of_the_living_stay(tmp_path: Path) -> None:
    work, lock = placing._locked_folder(tmp_path)
    other = tmp_path / f"{placing.PREFIX}other"
    (other / "new").mkdir(parents=True)  # no lock: not one of ours
    (tmp_path / f"{placing.PREFIX}empty").mkdir()  # killed before it had a lock
    writing.write_text(tmp_path / "a.txt", "a")
    assert set(leftovers(tmp_path)) == {work, other}
    os.close(lock)
    writing.write_text(tmp_path / "b.txt", "b")
    assert leftovers(tmp_path) == [other]


def test_files_reach_the_disk_before_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what a power cut leaves: every file is flushed before its rename, the folder after it."""
    log: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(handle: int) -> None:
        log.append(f"flush {Path(os.readlink(f'/proc/self/fd/{handle}')).name}")
        real_fsync(handle)

    def replace(source: Path, target: Path) -> None:
        if Path(target).parent == out:
            log.append(f"rename {Path(target).name}")
        real_replace(source, target)

    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    savers("external-block", tmp_path)[0](out, False)
    names = ["m.onnx", "m.onnx.data", "m.plan.json", "m.blocks.npz", "m.recipe.toml"]
    for name in names:
        assert log.index(f"flush {name}") < log.index(f"rename {name}")
    others = max(log.index(f"rename {n}") for n in names[1:])
    main = log.index("rename m.onnx")
    assert "flush out" in log[others:main]
    assert "flush out" in log[main:]


# -- real processes that are killed -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "images.npz"
    np.savez(path, x=rng.standard_normal((96, 3, 8, 8)).astype(np.float32), labels=rng.integers(0, 5, 96))
    return path


@pytest.mark.parametrize(
    "words",
    [(), ("--structure", "block", "--block", "4x4", "--format", "compact")],
    ids=["channels", "blocks"],
)
@pytest.mark.parametrize("external", [False, True], ids=["one file", "external data"])
def test_prune_killed_at_random(
    words: tuple[str, ...], external: bool, server: Server, tmp_path: Path
) -> None:
    source = external_network(tmp_path) if external else tmp_path / "model.onnx"
    if not external:
        onnx.save(small_network(), source)
    folder = tmp_path / "out"
    folder.mkdir()

    words = words or ("--only", "conv1")  # the other weights stay where they are

    def begin(share: str) -> Command:
        arguments = ["prune", source, "--sparsity", share, "-o", folder / "m.onnx", "--force", *words]
        return server.start(arguments, tmp_path / "log")

    complete = []
    for share in ("0.1", "0.3"):
        began = time.monotonic()
        command = begin(share)
        assert command.wait() == 0, command.said()
        took = time.monotonic() - began
        complete.append(visible(folder))
    rng = Random(0)
    killed = 0
    for _ in range(6):
        command = begin(rng.choice(["0.1", "0.3"]))
        time.sleep(rng.uniform(0.4, 1.0) * took)
        with suppress(ProcessLookupError):
            command.send(signal.SIGKILL)
        killed += command.wait() == -signal.SIGKILL
        check_belong_together(visible(folder), *complete, "m.onnx")
    assert killed
    assert begin("0.1").wait() == 0
    assert visible(folder) == complete[0]
    assert leftovers(folder) == []


def training(source: Path, images: Path, out: Path, *more: object) -> list[object]:
    return [
        *("prune", source, "--sparsity", "0.5", "--method", "smart", "--data", images, "-o", out),
        *("--search-epochs", "2", "--finetune-epochs", "1", "--batch-size", "16", "--threads", "1"),
        *("--device", "cpu", "--augment", "light", "--checkpoint-minutes", "0", *more),
    ]


def wait_for_checkpoints(path: Path, count: int, seconds: float = 60) -> None:
    """Until the file at ``path`` has been replaced so often."""
    seen: set[tuple[int, int]] = set()
    end = time.monotonic() + seconds
    while len(seen) < count:
        assert time.monotonic() < end
        with contextlib.suppress(FileNotFoundError):
            found = path.stat()
            seen.add((found.st_ino, found.st_mtime_ns))
        time.sleep(0.005)


def test_training_killed_and_resumed(server: Server, model_file: Path, images: Path, tmp_path: Path) -> None:
    """Twice at random, once in the middle of writing a checkpoint: the same bytes as without."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    whole.mkdir()
    out.mkdir()
    command = server.start(training(model_file, images, whole / "m.onnx"), tmp_path / "log")
    assert command.wait() == 0, command.said()
    rng = Random(1)
    resume: tuple[str, ...] = ()
    slowly = (
        "import time, torch\n"
        "real = torch.save\n"
        "def save(state, file):\n"
        "    time.sleep(0.05)\n"
        "    real(state, file)\n"
        "torch.save = save\n"
    )
    for _ in range(2):
        command = server.start(
            training(model_file, images, out / "m.onnx", *resume), tmp_path / "log", slowly
        )
        wait_for_checkpoints(out / "m.checkpoint", 4)
        time.sleep(rng.uniform(0, 0.05))
        command.send(signal.SIGKILL)
        assert command.wait() == -signal.SIGKILL, command.said()
        assert set(visible(out)) == {"m.checkpoint"}
        resume = ("--resume",)
    half = (
        "import os, torch\n"
        "real = torch.save\n"
        "def save(state, file):\n"
        "    if state['position'][0] >= 14:\n"
        "        file.write(b'half of it'); file.flush(); os.kill(os.getpid(), 9)\n"
        "    real(state, file)\n"
        "torch.save = save\n"
    )
    command = server.start(training(model_file, images, out / "m.onnx", *resume), tmp_path / "log", half)
    assert command.wait() == -signal.SIGKILL, command.said()
    assert leftovers(out)
    command = server.start(training(model_file, images, out / "m.onnx", "--resume"), tmp_path / "log")
    assert "step 14/" in command.wait_for("step 14/")
    assert command.wait() == 0, command.said()
    assert visible(out) == visible(whole)
    assert leftovers(out) == []


# -- signals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_a_checkpoint(
    number: signal.Signals, code: int, server: Server, model_file: Path, images: Path, tmp_path: Path
) -> None:
    """It comes in the middle of a step, which is finished first; --resume then gives the same file."""
    slow = (
        "import time, graphprune.training.loop as loop\n"
        "real = loop.Training._one_step\n"
        "def slowly(self, batch):\n"
        "    found = real(self, batch)\n"
        "    time.sleep(0.3 if self.step == 5 else 0)\n"
        "    return found\n"
        "loop.Training._one_step = slowly\n"
    )
    words = ("--checkpoint-minutes", "60")
    out = tmp_path / "m.onnx"
    command = server.start(training(model_file, images, out, *words), tmp_path / "log", slow)
    command.wait_for("step 4/")
    time.sleep(0.1)
    command.send(number)
    assert command.wait() == code, command.said()
    said = command.said()
    assert f"graphprune: stopped at step 5 of 18; --resume goes on from {tmp_path}/m.checkpoint" in said
    assert "stopping when this step is done" in said
    assert "Traceback" not in said
    assert not out.exists()
    command = server.start(training(model_file, images, out, *words, "--resume"), tmp_path / "log")
    assert command.wait() == 0, command.said()
    assert "step 5/" not in command.said()
    whole = tmp_path / "whole.onnx"
    command = server.start(training(model_file, images, whole, *words), tmp_path / "log")
    assert command.wait() == 0, command.said()
    assert out.read_bytes() == whole.read_bytes()


def test_a_second_ctrl_c_leaves_at_once(
    server: Server, model_file: Path, images: Path, tmp_path: Path
) -> None:
    slow = (
        "import time, graphprune.training.loop as loop\n"
        "real = loop.Training._one_step\n"
        "def slowly(self, batch):\n"
        "    time.sleep(60 if self.step == 4 else 0)\n"
        "    return real(self, batch)\n"
        "loop.Training._one_step = slowly\n"
    )
    command = server.start(training(model_file, images, tmp_path / "m.onnx"), tmp_path / "log", slow)
    command.wait_for("step 4/")
    time.sleep(0.1)
    command.send(signal.SIGINT)
    command.wait_for("Ctrl-C again stops at once")
    command.send(signal.SIGINT)  # a launcher that passes on what the terminal has sent already
    time.sleep(1.1)
    began = time.monotonic()
    command.send(signal.SIGINT)
    assert command.wait() == 130
    assert time.monotonic() - began < 5
    said = command.said()
    assert "stopped in step 5 of 18; --resume goes on from" in said
    assert "which is of an earlier step" in said
    assert "Traceback" not in said
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_and_after_the_steps_says_how_to_go_on(
    number: signal.Signals, code: int, server: Server, model_file: Path, images: Path, tmp_path: Path
) -> None:
    """While the result is written, and while a resumed run reads its data."""
    written = (
        "import time\nfrom pathlib import Path\nfrom graphprune import placing\n"
        "real = placing._exchange\n"
        "def slowly(work, names):\n"
        "    if names['others']:\n"
        "        print('writing', flush=True); time.sleep(60)\n"
        "    real(work, names)\n"
        "placing._exchange = slowly\n"
    )
    read = (
        "import time, graphprune.training.run as run\n"
        "real = run.open_data\n"
        "def slowly(*a, **w):\n"
        "    print('reading', flush=True); time.sleep(60)\n"
        "run.open_data = slowly\n"
    )
    out = tmp_path / "m.onnx"
    for setup, word, more in ((written, "writing", ()), (read, "reading", ("--resume",))):
        command = server.start(training(model_file, images, out, *more), tmp_path / "log", setup)
        command.wait_for(word)
        command.send(number)
        assert command.wait() == code, command.said()
        assert f"graphprune: interrupted; --resume goes on from {tmp_path}/m.checkpoint" in command.said()
        assert "Traceback" not in command.said()
        assert leftovers(tmp_path) == []
        assert not out.exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_one_shot_leaves_nothing(
    number: signal.Signals, code: int, server: Server, model_file: Path, tmp_path: Path
) -> None:
    slow = (
        "import time\nfrom graphprune import placing\n"
        "def slowly(work, names):\n"
        "    print('writing', flush=True); time.sleep(60)\n"
        "placing._exchange = slowly\n"
    )
    before = visible(tmp_path)
    command = server.start(["prune", model_file, "--sparsity", "0.5"], tmp_path / "log", slow)
    command.wait_for("writing")
    assert leftovers(tmp_path)
    command.send(number)
    assert command.wait() == code, command.said()
    assert command.said().strip().splitlines()[-1] == "graphprune: interrupted"
    assert "Traceback" not in command.said()
    assert visible(tmp_path).keys() - {"log"} == before.keys()
    assert leftovers(tmp_path) == []


def test_handlers_are_put_back(run: Run, model_file: Path, images: Path, tmp_path: Path) -> None:
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert run(*training(model_file, images, tmp_path / "m.onnx", "--max-steps", "3"))[0] == 0
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


# -- disks that are full or take no writes --------------------------------------------------------------------


@contextmanager
def disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own in memory."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leave no room."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    return filler


@pytest.mark.parametrize("external", [False, True], ids=["one file", "external data"])
def test_prune_on_a_full_disk(run: Run, external: bool, tmp_path: Path) -> None:
    source = external_network(tmp_path) if external else RESNET
    with disk(tmp_path / "disk", "2m") as folder:
        out = folder / "m.onnx"
        assert run("prune", source, "--sparsity", "0.3", "-o", out)[0] == 0
        older = visible(folder)
        fill(folder)
        for words in (["-o", out, "--force"], ["-o", folder / "other.onnx"]):
            code, _, err = run("prune", source, "--sparsity", "0.1", *words)
            assert code == 2
            assert "No space left on device" in err
            assert "Traceback" not in err
            assert {n: d for n, d in visible(folder).items() if n != "filler"} == older
            assert leftovers(folder) == []


def test_checkpoints_survive_a_full_disk(model_file: Path, images: Path, tmp_path: Path) -> None:
    from graphprune.errors import TrainingError
    from graphprune.recipes.recipe import Recipe
    from graphprune.recipes.training import Progress
    from graphprune.training.checkpoint import load_checkpoint

    recipe = Recipe(
        search_epochs=2, finetune_epochs=1, batch_size=16, device="cpu", threads=1, checkpoint_minutes=0
    )

    def train(**more: object) -> bytes:
        options = graphprune.TrainingOptions(str(images), recipe, **more)
        found = graphprune.prune(model_file, method="smart", sparsity=0.5, training=options)
        return found.model.to_onnx().SerializeToString(deterministic=True)

    class Filling:
        def step(self, progress: Progress) -> None:
            if progress.step == 5:
                fill(folder)

        def metric(self, when: str, name: str, value: float) -> None: ...
        def note(self, sentence: str) -> None: ...

    with disk(tmp_path / "disk", "2m") as folder:
        checkpoint = folder / "m.checkpoint"
        with pytest.raises(TrainingError, match="No space left on device;") as caught:
            train(checkpoint=checkpoint, watcher=Filling())
        assert caught.value.exit_code == 2
        assert "--resume goes on from" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert load_checkpoint(checkpoint)["position"] == (4, 0, 4)
        assert leftovers(folder) == []
        (folder / "filler").unlink()
        resumed = train(checkpoint=checkpoint, resume=True)
    assert resumed == train()


def test_a_result_without_room_is_written_later(
    run: Run, model_file: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up after the last checkpoint: nothing is trained again."""
    from graphprune.search.search import Search

    with disk(tmp_path / "disk", "2m") as folder:
        out = folder / "m.onnx"
        real = Search.result

        def filling(self: Search) -> graphprune.PruneResult:
            fill(folder)
            return real(self)

        monkeypatch.setattr(Search, "result", filling)
        code, _, err = run(*training(model_file, images, out))
        assert code == 2
        assert "No space left on device; --resume then goes on from" in err
        monkeypatch.undo()
        assert set(visible(folder)) == {"m.checkpoint", "filler"}
        (folder / "filler").unlink()
        code, _, err = run(*training(model_file, images, out, "--resume"))
        assert code == 0, err
        assert "step" not in err
        assert set(visible(folder)) == {"m.onnx", "m.plan.json", "m.recipe.toml", "m.history.json"}


def test_a_disk_that_takes_no_writes_is_known_at_once(run: Run, model_file: Path, tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "1m") as folder:
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        for command in (
            ["prune", "missing.onnx", "--sparsity", "0.3", "-o", folder / "m.onnx"],
            ["rewrite", "missing.onnx", "--rule", "fold-batchnorm", "-o", folder / "m.onnx"],
            ["analyze", "missing.onnx", "--json", folder / "m.json"],
        ):
            code, _, err = run(*command)
            assert code == 2
            assert f"{folder} takes no new files" in err
        with pytest.raises(OptionError, match="takes no new files"):
            graphprune.load(model_file).save(folder / "m.onnx")


# -- nothing is replaced without --force --------------------------------------------------------------------


def pruned_pair(folder: Path) -> Path:
    path = folder / "small.onnx"
    graphprune.prune(folder / "model.onnx", sparsity=0.1, only=["conv1"]).save(path)
    return path


BLOCKS = ("--structure", "block", "--block", "4x4", "--sparsity", "0.5")
TRAINED = ("--sparsity", "0.5", "--method", "smart", "--data", "{dir}/images.npz", "--max-steps", "3")
REPORT = ("--json", "{dir}/report.json")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("analyze", "{model}", *REPORT), "report.json"),
        (("check", "{model}", "--target", "npu-16x8", *REPORT), "report.json"),
        (("verify", "{model}", "{dir}/small.onnx", *REPORT), "report.json"),
        (("rewrite", "{model}", "--rule", "global-pool", *REPORT), "report.json"),
        (("rewrite", "{model}", "--rule", "global-pool"), "model.rewritten.onnx"),
        (("rewrite", "{ext}", "--rule", "global-pool"), "model.rewritten.onnx.data"),
        (("apply", "{model}", "{dir}/small.plan.json", *REPORT), "report.json"),
        (("apply", "{model}", "{dir}/small.plan.json"), "model.pruned.onnx"),
        (("apply", "{model}", "{dir}/small.plan.json"), "model.pruned.plan.json"),
        (("apply", "{model}", "{dir}/block.plan.json"), "model.pruned.blocks.npz"),
        (("apply", "{ext}", "{dir}/ext/small.plan.json"), "model.pruned.onnx.data"),
        (("prune", "{model}", "--sparsity", "0.3", *REPORT), "report.json"),
        (("prune", "{model}", "--sparsity", "0.3"), "model.pruned.onnx"),
        (("prune", "{model}", "--sparsity", "0.3"), "model.pruned.plan.json"),
        (("prune", "{model}", *BLOCKS), "model.pruned.blocks.npz"),
        (("prune", "{ext}", "--sparsity", "0.1", "--only", "conv1"), "model.pruned.onnx.data"),
        (("prune", "{model}", *TRAINED), "model.pruned.recipe.toml"),
        (("prune", "{model}", *TRAINED), "model.pruned.checkpoint"),
        (("prune", "{model}", *TRAINED), "model.pruned.plan.json"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else value,
)
def test_nothing_is_replaced_without_force(
    run: Run, arguments: tuple[str, ...], name: str, model_file: Path, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "ext").mkdir()
    ext = external_network(tmp_path / "ext")
    pruned_pair(tmp_path)
    pruned_pair(tmp_path / "ext")
    if "block" in name:
        graphprune.prune(model_file, structure="block", block="4x4", sparsity=0.5).save(
            tmp_path / "block.onnx"
        )
    named = {"model": str(model_file), "ext": str(ext), "dir": str(tmp_path)}
    words = [a.format(**named) for a in arguments]
    occupied = (tmp_path / "ext" if "{ext}" in arguments else tmp_path) / name
    occupied.write_bytes(b"mine")
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    code, out, err = run(*words)
    assert code == 2, err
    assert out == ""
    assert str(occupied) in err
    assert "--force" in err
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before
    code, out, err = run(*words, "--force")
    assert code in ((0, 1) if words[0] in ("check", "rewrite") else (0,)), err
    assert occupied.name.endswith(".checkpoint") or occupied.read_bytes() != b"mine"


def test_programs_are_not_replaced(tmp_path: Path) -> None:
    save = savers("program", tmp_path)[0]
    for name in ("m.pt2", "m.plan.json", "m.recipe.toml"):
        (tmp_path / name).write_bytes(b"mine")
        with pytest.raises(OptionError, match=f"{name} exists already: use --force"):
            save(tmp_path, False)
        assert {p.name for p in tmp_path.glob("m.*")} == {name}
        (tmp_path / name).unlink()


# -- odd places ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mödel ✂ 模型.onnx", "a b'\"$x;[1]*.onnx", "-.onnx", "x" * 230 + ".onnx"])
def test_odd_names(run: Run, name: str, model_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ordnér ☃"
    folder.mkdir()
    source = shutil.copy(model_file, folder / f"in {name}"[-240:])
    code, _, err = run("prune", source, "--sparsity", "0.3", "-o", folder / name)
    assert code == 0, err
    code, _, err = run("verify", source, folder / name)
    assert code == 0, err
    ext = external_network(tmp_path)
    code, _, err = run("prune", ext, "--sparsity", "0.1", "--only", "conv1", "-o", folder / name, "--force")
    assert code == 0, err
    assert len(visible(folder)) == 4
    assert run("verify", ext, folder / name)[0] == 0


def test_names_that_cannot_be(run: Run, model_file: Path, tmp_path: Path) -> None:
    before = visible(tmp_path)
    (tmp_path / "loop.onnx").symlink_to("loop.onnx")
    os.mkfifo(tmp_path / "pipe.onnx")
    for out, words in (
        (tmp_path / ("x" * 300 + ".onnx"), "name too long"),
        (tmp_path / ("x" * 248 + ".onnx"), "name too long"),  # with .plan.json
        (tmp_path / "caf\udce9.onnx", "not valid text"),
        (tmp_path / "loop.onnx", "symbolic links"),
        (tmp_path / "pipe.onnx", "no ordinary file"),
        (Path("/dev/null"), "no ordinary file"),
        (tmp_path, "is a folder"),
        (model_file / "m.onnx", "not a folder"),
    ):
        for more in ([], ["--force"]):
            code, _, err = run("prune", model_file, "--sparsity", "0.3", "-o", out, *more)
            assert (code, words in err) == (2, True), err
            code, _, err = run("analyze", model_file, "--json", out, *more)
            assert code == 2 or words == "name too long", err
            if code == 0:  # long enough for a report
                out.unlink()
    assert not Path("/dev/null").is_file()
    (tmp_path / "loop.onnx").unlink()
    (tmp_path / "pipe.onnx").unlink()
    assert visible(tmp_path) == before


def test_symbolic_links(run: Run, model_file: Path, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    assert run("prune", model_file, "--sparsity", "0.3", "-o", tmp_path / "link" / "m.onnx")[0] == 0
    assert set(visible(real)) == {"m.onnx", "m.plan.json"}
    (real / "kept").write_bytes(b"kept")
    for target in (real / "kept", real / "nothing"):
        out = tmp_path / f"{target.name}.onnx"
        out.symlink_to(target)
        assert run("prune", model_file, "--sparsity", "0.3", "-o", out)[0] == 2
        assert run("prune", model_file, "--sparsity", "0.3", "-o", out, "--force")[0] == 0
        assert not out.is_symlink()
        assert onnx.load(out).graph.node
    assert (real / "kept").read_bytes() == b"kept"
    assert not (real / "nothing").exists()


def test_the_input_is_never_lost(run: Run, tmp_path: Path) -> None:
    """Outputs that are files of the input, under whatever name; weights are still read while they are written."""
    ext = external_network(tmp_path)
    graphprune.prune(ext, sparsity=0.3, only=["conv1"]).save(tmp_path / "small.onnx")
    (tmp_path / "link.onnx.data").symlink_to("model.onnx.data")
    before = visible(tmp_path)
    for words in (
        ["prune", ext, "--sparsity", "0.3", "-o", tmp_path / "model.onnx"],
        ["prune", ext, "--sparsity", "0.3", "-o", tmp_path / "link.onnx"],
        ["prune", ext, "--sparsity", "0.3", "-o", tmp_path / "model.onnx.data"],
        ["prune", ext, "--sparsity", "0.3", "--json", tmp_path / "model.onnx.data"],
        ["apply", ext, tmp_path / "small.plan.json", "-o", tmp_path / "link.onnx"],
        ["rewrite", ext, "--rule", "global-pool", "-o", tmp_path / "link.onnx"],
        ["analyze", ext, "--json", tmp_path / "model.onnx.data"],
        ["check", ext, "--target", "npu-16x8", "--json", tmp_path / "model.onnx.data"],
        ["verify", ext, tmp_path / "small.onnx", "--json", tmp_path / "small.onnx.data"],
    ):
        code, _, err = run(*words, "--force")
        assert code == 2, words
        assert "holds weights of the model" in err
        assert visible(tmp_path) == before
    with pytest.raises(OptionError, match="holds weights of the model"):
        graphprune.load(ext).save(ext, force=True)
    alone = tmp_path / "alone.onnx"
    onnx.save(small_network(), alone)
    assert (
        run("prune", alone, "--sparsity", "0.3", "-o", alone, "--force")[0] == 0
    )  # one file: read whole before
    onnx.checker.check_model(onnx.load(alone), full_check=True)


def test_an_older_result_does_not_lie_beside_another(run: Run, model_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    assert run("prune", model_file, *BLOCKS, "-o", out)[0] == 0
    assert run("prune", model_file, "--sparsity", "0.3", "-o", out, "--force")[0] == 0
    assert set(visible(tmp_path)) == {"model.onnx", "m.onnx", "m.plan.json"}
    assert json.loads((tmp_path / "m.plan.json").read_bytes())["structure"] == "channel"
    assert run("rewrite", model_file, "--rule", "global-pool", "-o", out, "--force")[0] == 0
    assert set(visible(tmp_path)) == {"model.onnx", "m.onnx"}


def test_an_older_results_weights_go_with_it(run: Run, model_file: Path, tmp_path: Path) -> None:
    """Unless they are somebody else's, who only gave them that name."""
    out, ext = tmp_path / "m.onnx", tmp_path / "ext.onnx"
    onnx.save(small_network(), ext, save_as_external_data=True, location="ext.bin", size_threshold=0)
    assert run("prune", ext, "--sparsity", "0.3", "-o", out)[0] == 0
    assert (tmp_path / "m.onnx.data").exists()
    assert run("prune", model_file, "--sparsity", "0.3", "-o", out, "--force")[0] == 0
    assert not (tmp_path / "m.onnx.data").exists()
    (tmp_path / "m.onnx.data").write_bytes(b"notes")
    assert run("prune", model_file, "--sparsity", "0.3", "-o", out, "--force")[0] == 0
    assert (tmp_path / "m.onnx.data").read_bytes() == b"notes"


def test_a_rename_that_is_refused_undoes_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of somebody else's in a folder that is everybody's, say."""
    save_older, save_newer = savers("external-block", tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    save_older(out, False)
    older = visible(out)
    real = os.replace
    for name in older:

        def refusing(source: Path, target: Path, name: str = name) -> None:
            if Path(source).name == name and "new" in Path(source).parts:
                raise OSError(errno.EPERM, "Operation not permitted")
            real(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", refusing)
            with pytest.raises(OptionError, match="Operation not permitted"):
                save_newer(out, True)
        assert visible(out) == older
        assert leftovers(out) == []
