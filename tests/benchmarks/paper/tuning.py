"""Settings for each method, chosen on validation images by as many trials for one as for another.

On ResNet-20 every method gets three learning rates, then two other values of its own most telling setting (methods
that have none: two more learning rates); the best of the five holds for all structures and sparsities, as the paper has
one setting for all of them (table 5). The networks of other tasks, ViT, and MobileNetV2, where the rate carried over
decided who was first, get three learning rates for each method, with every method's own setting of ResNet-20. Swin
begins with ViT's settings and gets two other values of each method's own, because what suits channels need not suit a
pattern. Other networks have ResNet-20's settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.benchmarks.paper.keys import Key, replaced
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
PATTERN_OWN = {
    "magnitude": ("lr=0.00015", "lr=0.0003"),
    "gmp": ("lr=0.00015", "lr=0.0003"),
    "acdc": OWN["acdc"],
    "awg": OWN["awg"],
    "pas": ("mask-lr=0.005", "mask-lr=0.02"),
    "pdp": ("init-temp=0.0005", "init-temp=0.005"),
    "smart": ("final-temp=0.01", "final-temp=0.001"),
}
"""In a pattern, SMART's weights compete by their sizes (no masks learn), and GMP's budget is the pattern's."""

METHODS = tuple(OWN)
STEPS = 195


@dataclass(frozen=True)
class Place:
    """What a network is tuned on.

    ``rates``: learning rates to try; none where ``like``'s is taken. ``own``: other values of each method's own
    setting. ``like``: the network whose settings the trials begin with, if any.
    """

    network: str
    structure: str
    sparsity: float
    rates: tuple[str, ...] = RATES
    own: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    like: str | None = "resnet20"


PLACES = {
    place.network: place
    for place in (
        Place("resnet20", "channel", 0.5, own=OWN, like=None),
        Place("bisenet", "channel", 0.5),
        Place("yolov5", "channel", 0.5),
        Place("mobilenet", "channel", 0.5),
        Place("vit", "2:4", 0.5, ("lr=0.0005", *RATES[:2])),
        Place("swin", "2:4", 0.5, (), PATTERN_OWN, like="vit"),
    )
}
HOME = PLACES["resnet20"]


def rates(place: Place, method: str, rows: Rows) -> list[Key]:
    """The trials of the learning rate; none before the settings that they begin with are known."""
    first = () if place.like is None else chosen(method, rows, place.like)
    if first is None:
        return []
    if not place.rates:
        return [_trial(place, method, first)]
    return [_trial(place, method, replaced(first, _complete(rate))) for rate in place.rates]


def own(place: Place, method: str, rows: Rows) -> list[Key]:
    """The trials of the method's own setting, at its best learning rate; none before that is known."""
    best = _best(rates(place, method, rows), rows)
    if best is None:
        return []
    return [_trial(place, method, replaced(best, _complete(value))) for value in place.own.get(method, ())]


def trials(place: Place, method: str, rows: Rows) -> list[Key]:
    """All trials of the method there that are known so far."""
    return [*rates(place, method, rows), *own(place, method, rows)]


def chosen(method: str, rows: Rows, network: str = HOME.network) -> tuple[str, ...] | None:
    """The method's settings; None before all trials that they rest on are there."""
    place = PLACES.get(network, HOME)
    return _best(trials(place, method, rows), rows)


def _trial(place: Place, method: str, settings: tuple[str, ...]) -> Key:
    return Key(
        place.network,
        place.structure,
        place.sparsity,
        method,
        seed=0,
        steps=STEPS,
        split="validation",
        settings=settings,
    )


def _complete(setting: str) -> tuple[str, ...]:
    """PDP has one temperature from beginning to end."""
    flag, _, value = setting.partition("=")
    return (setting, f"final-temp={value}") if flag == "init-temp" else (setting,)


def _best(trials: list[Key], rows: Rows) -> tuple[str, ...] | None:
    if not trials or any(key not in rows.by_key for key in trials):
        return None
    return max(trials, key=lambda key: float(rows.by_key[key]["after fine-tuning"])).settings
