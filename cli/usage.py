"""Wrong usage of the command line as one sentence, with the nearest word that would be right."""

from __future__ import annotations

import difflib
import re

_CHOICE = re.compile(
    r"^(?P<where>.*?): (?:Value error, )?'(?P<given>[^']*)' is not one of (?P<known>'.*')\.?$"
)


def sentence(error: Exception) -> str | None:
    """What typer raises for wrong usage; None for anything else."""
    format_message = getattr(error, "format_message", None)
    if format_message is None:
        return None
    message = " ".join(str(format_message()).split()).rstrip(".")
    options = getattr(error, "possibilities", None)
    if options:
        message = (
            f"{' '.join(str(getattr(error, 'message', message)).split())}: {_near(error, list(options))}"
        )
    choice = _CHOICE.match(message)
    if choice:
        known = re.findall(r"'([^']*)'", choice["known"])
        near = difflib.get_close_matches(choice["given"], known, 1)
        advice = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(known)}"
        message = f"{choice['where']}: {choice['given']!r} is unknown: {advice}"
    return message


def _near(error: Exception, options: list[str]) -> str:
    given = str(getattr(error, "option_name", ""))
    near = difflib.get_close_matches(given, options, 1, 0.0)
    return f"did you mean {near[0]}?" if near else f"did you mean {', '.join(sorted(options))}?"
