"""``analyze --sensitivity``: what it is told, and the table of what it found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import output
from . import training_options as training
from .output import Column, percent

if TYPE_CHECKING:
    from .watching import Watching

FLAGS = ("ratios", "method", "data", "eval_data", "samples", "resize", "mean", "std")


def words(values: Mapping[str, Any], watching: Watching) -> dict[str, Any]:
    """What api.analyze is told besides. ``values``: parameters of the command. Raises OptionError."""
    from graphprune.errors import OptionError

    if not values["measure"]:
        given = [name for name in FLAGS if values[name] is not None]
        if given:
            raise OptionError(f"--{given[0].replace('_', '-')} goes with --sensitivity: give it too")
        return {}
    found = {
        "sensitivity": True,
        "method": values["method"],
        "data": training.reading(values, values["data"]),
        "eval_data": training.reading(values, values["eval_data"]),
        "samples": values["samples"],
        "seed": values["seed"],
        "progress": watching.count,
    }
    ratios = training.numbers(values["ratios"], "--ratios")
    return found if ratios is None else {**found, "ratios": ratios}


def show(found: Mapping[str, Any]) -> None:
    """The table; ``found`` is the key ``sensitivity`` of the report."""
    accuracy = found["metric"] == "accuracy"
    inputs = "random noise" if found["inputs"] == "noise" else "data"

    def shown(value: float | None) -> str:
        if value is None:
            return "not finite"
        return percent(value, 1) if accuracy else f"{value:.3g}"

    output.table(
        f"Sensitivity: {found['metric']} after each group alone lost channels ({found['method']}; "
        f"{output.plural(found['samples'], 'sample')} of {inputs}; unpruned: {shown(found['unpruned'])})",
        [
            Column("id", right=True),
            Column("name", flexible=True),
            *(Column(f"{100 * r:g} % gone", right=True) for r in found["ratios"]),
        ],
        [
            (", ".join(map(str, [g["group"], *g["bound"]])), g["name"], *map(shown, g["values"]))
            for g in found["groups"]
        ],
    )
