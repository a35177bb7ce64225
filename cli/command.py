"""What every command has: --quiet, --no-color, and a sign of life where it takes long."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer

from . import output
from .watching import Watching

QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print errors only, and what --json - asks for.")
]
NoColorOption = Annotated[
    bool, typer.Option("--no-color", help="No colours and no bold letters, as with NO_COLOR or TERM=dumb.")
]


def command(function: Callable[..., None]) -> Callable[..., None]:
    """``function`` with the options that all commands share, which it does not see; ``ctx.obj`` shows progress."""
    wants_context = "ctx" in inspect.signature(function).parameters

    @wraps(function)
    def run(ctx: typer.Context, **values: Any) -> None:
        shared = {name: values.pop(name) for name in ("quiet", "no_color")}
        for name in shared:
            ctx.params.pop(name)
        plain = shared["no_color"] or output.wants_plain()
        subject = values.get("model")
        doing = f"{ctx.info_name} {subject}" if subject is not None else f"{ctx.info_name}"
        with Watching(doing, quiet=shared["quiet"], plain=plain) as watching:
            ctx.obj = watching
            with output.styled(output.Style(shared["quiet"], plain, watching.pause)):
                function(**({"ctx": ctx} if wants_context else {}), **values)

    _describe(run, function)
    return run


def _describe(run: Callable[..., None], function: Callable[..., None]) -> None:
    """Give ``run`` the parameters of ``function`` and the shared ones, where typer looks for them."""
    kind = inspect.Parameter.KEYWORD_ONLY
    added = {"quiet": QuietOption, "no_color": NoColorOption}
    hints = get_type_hints(function, include_extras=True)
    own = [p for p in inspect.signature(function).parameters.values() if p.name != "ctx"]
    parameters = [
        inspect.Parameter("ctx", kind, annotation=typer.Context),
        *(p.replace(kind=kind, annotation=hints[p.name]) for p in own),
        *(inspect.Parameter(name, kind, default=False, annotation=what) for name, what in added.items()),
    ]
    run.__annotations__ = {**hints, "ctx": typer.Context, **added}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
