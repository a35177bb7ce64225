"""What every command does on a terminal: quiet, colours, progress, completion, the nearest word, stable texts."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import COMMANDS, Run, small_network
from typer.testing import CliRunner

import graphprune
from graphprune.__main__ import command_line

MAIN = command_line()  # from here on graphprune_cli can be imported
SNAPSHOTS = Path(__file__).parent / "snapshots"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """model.onnx, small.onnx with its plan, images.npz: the current folder."""
    monkeypatch.chdir(tmp_path)
    onnx.save(small_network(), "model.onnx")
    graphprune.prune("model.onnx", sparsity=0.5).save("small.onnx")
    np.savez("images.npz", x=np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32))
    return tmp_path


RUNS = [
    "analyze model.onnx --nodes",
    "analyze model.onnx --sensitivity --samples 2",
    "apply model.onnx small.plan.json -o again.onnx",
    "bench model.onnx --runs 2 --no-profile",
    "check small.onnx --target cpu-ort",
    "compare model.onnx small.onnx --samples 2",
    "methods",
    "prune model.onnx --sparsity 0.3 --data images.npz",
    "report small.plan.json",
    "rewrite model.onnx --rule fold-batchnorm",
    "verify model.onnx small.onnx",
]


@pytest.mark.parametrize("line", RUNS)
def test_quiet_says_nothing(line: str, folder: Path, run: Run) -> None:
    code, out, err = run(*line.split(), "--quiet")
    assert code in ((0, 1) if line.startswith("check") else (0,))
    assert (out, err) == ("", "")


def test_every_command_is_run_quietly() -> None:
    assert {line.split()[0] for line in RUNS} == set(COMMANDS)


def test_quiet_keeps_errors_and_data(folder: Path, run: Run) -> None:
    assert run("analyze", "nowhere.onnx", "-q")[2].startswith("graphprune: ")
    code, out, err = run("analyze", "model.onnx", "-q", "--json", "-")
    assert (code, err) == (0, "")
    assert out.startswith("{")


@pytest.mark.parametrize(
    ("flags", "environment"),
    [(["--no-color"], {}), ([], {"NO_COLOR": "1"}), ([], {"TERM": "dumb"})],
)
def test_no_colours_where_none_are_wanted(
    flags: list[str], environment: dict[str, str], folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm-256color"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" in run("analyze", "model.onnx")[1]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    code, out, err = run("analyze", "model.onnx", *flags)
    assert code == 0
    assert "Prunable groups" in out
    assert "\x1b" not in out + err


# -- progress -----------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("moving", [True, False])
def test_a_long_command_shows_that_it_goes_on(moving: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphprune_cli import watching

    stream = Terminal() if moving else io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("SOON", "LATE"):
        monkeypatch.setattr(watching, name, 0.01)
    with watching.Watching("verify model.onnx"):
        end = time.monotonic() + 10
        while "verify model.onnx" not in stream.getvalue() and time.monotonic() < end:
            time.sleep(0.01)
    assert "verify model.onnx" in stream.getvalue()
    assert ("\x1b[" in stream.getvalue()) == moving
    before = stream.getvalue()
    with watching.Watching("verify", quiet=True):
        time.sleep(0.05)
    assert stream.getvalue() == before


def test_counted_steps_are_a_live_line_on_a_terminal_and_few_lines_in_a_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from graphprune_cli.watching import Watching

    log = io.StringIO()
    monkeypatch.setattr("sys.stderr", log)
    with Watching("analyze") as watching:
        for i in range(1, 101):
            watching.count("sensitivity", i, 100)
    assert [line.split("  ")[0] for line in log.getvalue().splitlines()] == [
        f"sensitivity {i}/100" for i in (1, 25, 50, 75, 100)
    ]
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    with Watching("analyze", plain=True) as watching:
        watching.count("sensitivity", 3, 100)
        watching.pause()
        shown = terminal.getvalue()
        assert "sensitivity" in shown
        assert shown.endswith("\x1b[2K")  # the line is wiped before anything else is printed
    assert terminal.getvalue() == shown


# -- completion ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("co", {"compare"}),
        ("prune --method sm", {"smart"}),
        ("analyze --method fl", {"flap"}),
        ("prune --structure ", {"channel", "block", "nm", "branch"}),
        ("prune --allocation er", {"erk"}),
        ("prune --target ", {"cpu-ort", "npu-16x8", "tensorrt-2to4"}),
        ("prune --format c", {"compact"}),
        ("prune --recipe smart", {"smart", "smart-plus"}),
        ("prune --nm-axis ", {"input", "output"}),
        ("rewrite --rule hard", {"hard-sigmoid", "hard-swish"}),
        ("compare --no", {"--no-color", "--no-latency"}),
    ],
)
def test_a_shell_completes(
    typed: str, offered: set[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_GRAPHPRUNE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"graphprune {typed}")
    monkeypatch.setenv("COMP_CWORD", str(len(f"graphprune {typed}".split(" ")) - 1))
    with pytest.raises(SystemExit) as stopped:
        MAIN([])
    assert stopped.value.code == 0
    assert set(capsys.readouterr().out.split()) == offered


# -- the nearest word ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "near"),
    [
        ("prun model.onnx", "'prune'"),
        ("prune model.onnx --sparsty 0.1", "--sparsity"),
        ("prune model.onnx --sparsity 0.1 --method magnitud", "'magnitude'"),
        ("prune model.onnx --sparsity 0.1 --structure chanel", "'channel'"),
        ("prune model.onnx --sparsity 0.1 --allocation unifrom", "'uniform'"),
        ("prune model.onnx --structure block --sparsity 0.5 --format compct", "'compact'"),
        ("prune model.onnx --sparsity 0.1 --target npu-16x", "'npu-16x8'"),
        ("prune model.onnx --sparsity 0.1 --data images.npz --recipe smrt", "'smart'"),
        ("prune model.onnx --sparsity 0.1 --data images.npz --compensate lsts", "'lstsq'"),
        ("analyze model.onnx --attention head", "'heads'"),
        ("analyze model.onnx --sensitivity --method magnitud", "'magnitude'"),
        ("rewrite model.onnx --rule fold-batchnom", "'fold-batchnorm'"),
        ("check model.onnx --target cpu-or", "'cpu-ort'"),
    ],
)
def test_a_wrong_word_is_answered_with_the_nearest(line: str, near: str, folder: Path, run: Run) -> None:
    code, out, err = run(*line.split())
    assert (code, out) == (2, "")
    assert f"id you mean {near}?" in err
    assert err.count("\n") == 1


# -- snapshots ----------------------------------------------------------------------------------------


def compare_with_snapshot(name: str, text: str) -> None:
    """``text`` is that of the file; GRAPHPRUNE_SNAPSHOTS=write writes it."""
    path = SNAPSHOTS / f"{name}.txt"
    lines = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
    if os.environ.get("GRAPHPRUNE_SNAPSHOTS") == "write":
        path.write_text(lines, encoding="utf-8")
    assert lines == path.read_text(encoding="utf-8"), (
        f"{path.name} differs: if it should, GRAPHPRUNE_SNAPSHOTS=write pytest tests/test_terminal.py"
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_texts(command: str) -> None:
    from graphprune_cli.app import app

    result = CliRunner().invoke(app, [command, "--help"], terminal_width=100, prog_name="graphprune")
    compare_with_snapshot(f"help-{command}", result.output)


REPORTS = {
    "analyze": "analyze model.onnx --nodes",
    "analyze-block": "analyze model.onnx --structure block --block 4x4x1x1",
    "analyze-nm": "analyze model.onnx --structure nm",
    "check": "check model.onnx --target npu-16x8",
    "prune": "prune model.onnx --sparsity 0.3 --multiple-of 1 -o pruned.onnx",
    "rewrite": "rewrite model.onnx --target npu-16x8 -o npu.onnx",
    "compare": "compare model.onnx model.onnx --samples 2 --no-latency",
}
UNSTABLE = ("proof", "file bytes", "distance")
"""Lines with numbers that another processor rounds otherwise."""


@pytest.mark.parametrize("name", REPORTS)
def test_reports(name: str, folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    _, out, err = run(*REPORTS[name].split())
    lines = [line for line in out.splitlines() if not line.startswith(UNSTABLE)]
    notes = [line for line in err.splitlines() if line.startswith("note: ")]
    compare_with_snapshot(name, "\n".join([*lines, *notes]))
