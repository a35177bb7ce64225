"""Settings for each method, chosen on the validation images by as many trials for one as for another.

Every method gets three learning rates, then two other values of its own most telling setting (methods that have none:
two more learning rates). The best of the five is used in every table (table 5 of the paper, too, has one setting for
all structures and sparsities).
"""

from __future__ import annotations

from tests.benchmarks.paper.keys import Key
from tests.benchmarks.paper.store import Rows

RATES = ("lr=0.0005", "lr=0.0015", "lr=0.0045")
OWN = {
    "magnitude": ("lr=0.00015", "lr=0.0135"),
    "pso": ("lr=0.00015", "lr=0.0135"),
    "gmp": ("budget-anneal=0.25", "budget-anneal=0.9"),
    "acdc": ("rounds=2", "rounds=8"),
    "awg": ("rounds=3", "rounds=10"),
    "pas": ("mask-lr=0.005", "mask-lr=0.08"),
    "pdp": ("init-temp=5e-05", "init-temp=0.005"),
    "smart": ("mask-lr=0.03", "mask-lr=0.3"),
}
METHODS = tuple(OWN)
STEPS = 195
NETWORK, STRUCTURE, SPARSITY = "resnet20", "channel", 0.5


def first(method: str) -> list[Key]:
    """The trials of the learning rate."""
    return [_trial(method, (rate,)) for rate in RATES]


def second(method: str, rows: Rows) -> list[Key]:
    """The trials of the method's own setting, at the best learning rate so far; none before that is known."""
    rate = _best(first(method), rows)
    if rate is None:
        return []
    own = [(value,) if value.startswith("lr") else (*rate.settings, value) for value in OWN[method]]
    return [_trial(method, settings) for settings in own]


def chosen(method: str, rows: Rows) -> tuple[str, ...] | None:
    """The method's settings; None before all its trials are there."""
    best = _best([*first(method), *second(method, rows)], rows) if second(method, rows) else None
    return None if best is None else best.settings


def _trial(method: str, settings: tuple[str, ...]) -> Key:
    settings = tuple(s for entry in settings for s in _complete(entry))
    return Key(NETWORK, STRUCTURE, SPARSITY, method, 0, STEPS, "validation", tuple(sorted(settings)))


def _complete(setting: str) -> tuple[str, ...]:
    """PDP has one temperature from beginning to end."""
    flag, _, value = setting.partition("=")
    return (setting, f"final-temp={value}") if flag == "init-temp" else (setting,)


def _best(trials: list[Key], rows: Rows) -> Key | None:
    if not trials or any(key not in rows.by_key for key in trials):
        return None
    return max(trials, key=lambda key: float(rows.by_key[key]["after fine-tuning"]))
