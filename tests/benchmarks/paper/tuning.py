"""Settings for each method, chosen on validation images by as many trials for one as for another.

On ResNet-20 every method gets three learning rates, then two other values of its own most telling setting (methods
that have none: two more learning rates); the best of the five holds for all structures and sparsities, as the paper has
one setting for all of them (table 5). The networks of other tasks and ViT get three learning rates for each method;
Swin has ViT's settings, other networks and every method's own setting are ResNet-20's.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.benchmarks.paper.keys import Key
from tests.benchmarks.paper.store import Rows

RATES = ("lr=0.0015", "lr=0.0045", "lr=0.0135")
OWN = {
    "magnitude": ("lr=0.0005", "lr=0.03"),
    "pso": ("lr=0.0005", "lr=0.03"),
    "gmp": ("budget-anneal=0.25", "budget-anneal=0.75"),
    "acdc": ("rounds=2", "rounds=8"),
    "awg": ("rounds=3", "rounds=10"),
    "pas": ("mask-lr=0.005", "mask-lr=0.08"),
    "pdp": ("init-temp=5e-05", "init-temp=0.005"),
    "smart": ("mask-lr=0.03", "mask-lr=0.3"),
}
METHODS = tuple(OWN)
STEPS = 195


@dataclass(frozen=True)
class Place:
    """What a network is tuned on."""

    network: str
    structure: str
    sparsity: float
    rates: tuple[str, ...] = RATES


PLACES = {
    place.network: place
    for place in (
        Place("resnet20", "channel", 0.5),
        Place("bisenet", "channel", 0.5),
        Place("yolov5", "channel", 0.5),
        Place("vit", "2:4", 0.5, ("lr=0.0005", *RATES[:2])),
    )
}
HOME = PLACES["resnet20"]
LIKE = {"swin": "vit"}
"""Networks that have another one's settings, where that is not ResNet-20."""


def rates(place: Place, method: str, rows: Rows) -> list[Key]:
    """The trials of the learning rate; none before the method's own setting is known, where there is one."""
    if place is HOME:
        return [_trial(place, method, (rate,)) for rate in place.rates]
    home = chosen(method, rows)
    if home is None:
        return []
    return [_trial(place, method, (*_without_rate(home), rate)) for rate in place.rates]


def own(method: str, rows: Rows) -> list[Key]:
    """The trials of the method's own setting, at its best learning rate; none before that is known."""
    best = _best(rates(HOME, method, rows), rows)
    if best is None:
        return []
    trials = [(value,) if value.startswith("lr") else (*best, value) for value in OWN[method]]
    return [_trial(HOME, method, settings) for settings in trials]


def chosen(method: str, rows: Rows, network: str = HOME.network) -> tuple[str, ...] | None:
    """The method's settings; None before all trials that they rest on are there."""
    place = PLACES.get(LIKE.get(network, network), HOME)
    if place is not HOME:
        return _best(rates(place, method, rows), rows)
    return _best([*rates(HOME, method, rows), *own(method, rows)], rows) if own(method, rows) else None


def _without_rate(settings: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(s for s in settings if not s.startswith("lr="))


def _trial(place: Place, method: str, settings: tuple[str, ...]) -> Key:
    whole = {part for entry in settings for part in _complete(entry)}
    return Key(
        place.network,
        place.structure,
        place.sparsity,
        method,
        seed=0,
        steps=STEPS,
        split="validation",
        settings=tuple(sorted(whole)),
    )


def _complete(setting: str) -> tuple[str, ...]:
    """PDP has one temperature from beginning to end."""
    flag, _, value = setting.partition("=")
    return (setting, f"final-temp={value}") if flag == "init-temp" else (setting,)


def _best(trials: list[Key], rows: Rows) -> tuple[str, ...] | None:
    if not trials or any(key not in rows.by_key for key in trials):
        return None
    return max(trials, key=lambda key: float(rows.by_key[key]["after fine-tuning"])).settings
