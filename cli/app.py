"""The program: registers the commands, and turns every error into one sentence and an exit code.

Exit codes: 0 done, 1 a check failed, 2 unusable input, arguments or budget, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.main import get_command

from . import output, stopping, usage
from .analyze import analyze
from .apply import apply
from .bench import bench
from .check import check
from .command import command
from .compare import compare
from .methods import methods
from .prune import prune
from .report import report
from .rewrite import rewrite
from .verify import verify

PROGRAM = "graphprune"
OK, FAILED, UNUSABLE = 0, 1, 2

app = typer.Typer(
    name=PROGRAM,
    cls=stopping.Group,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for function in (analyze, apply, bench, check, compare, methods, prune, report, rewrite, verify):
    app.command()(command(function))


def _show_version(wanted: bool) -> None:
    if wanted:
        from graphprune import __version__

        output.text(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Prune ONNX networks by whole channels, weight blocks or N:M patterns, and prove the result.

    \b
    Examples:
      graphprune analyze model.onnx
      graphprune prune model.onnx --sparsity 0.5
      graphprune verify model.onnx model.pruned.onnx
      graphprune compare model.onnx model.pruned.onnx --data photos/
      graphprune rewrite model.onnx --target npu-16x8 -o npu.onnx
      graphprune prune npu.onnx --target npu-16x8 --sparsity 0.7 -o small.onnx
      graphprune check small.onnx --target npu-16x8

    Exit codes: 0 done, 1 a check failed, 2 unusable input, arguments or budget, 130 interrupted, 143 terminated.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. Unknown errors, which are bugs, keep their traceback."""
    logging.getLogger("onnx_ir").addHandler(logging.NullHandler())  # its warnings come as sentences of ours
    try:
        with stopping.stoppable():
            code = get_command(app).main(
                args=list(sys.argv[1:] if arguments is None else arguments),
                prog_name=PROGRAM,
                standalone_mode=False,
            )
        sys.stdout.flush()
        return code if isinstance(code, int) else OK
    except stopping.Interruption as error:
        output.error(str(error))
        return error.exit_code
    except BrokenPipeError:  # the reader (head, less) has gone; keep the interpreter from flushing again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        known = _explain(error)
        if known is None:
            raise
        sentence, exit_code = known
        output.error(sentence)
        return exit_code


def _explain(error: Exception) -> tuple[str, int] | None:
    """Sentence and exit code of an error made for the user; None for a bug."""
    errors = sys.modules.get("graphprune.errors")  # not imported: then none of them was raised
    if errors is not None and isinstance(error, errors.GraphpruneError):
        return str(error), error.exit_code
    wrong = usage.sentence(error)
    if wrong is not None:
        context = getattr(error, "ctx", None)
        where = context.command_path if context is not None else PROGRAM
        return f"{wrong} (see {where} --help)", UNUSABLE
    return None
