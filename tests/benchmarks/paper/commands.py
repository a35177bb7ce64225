"""The commands of ``python -m tests.benchmarks.paper``: rows of an experiment, dense networks, one row, the tables."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from tests.benchmarks.paper.experiments import EXPERIMENTS
from tests.benchmarks.paper.keys import Key
from tests.benchmarks.paper.networks import NETWORKS
from tests.benchmarks.paper.running import run
from tests.benchmarks.paper.store import Rows, claim


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="The paper's tables at a size that runs here.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in EXPERIMENTS:
        experiment = commands.add_parser(name)
        experiment.add_argument("--hours", type=float, default=24.0, help="begin no row after so many hours")
        experiment.add_argument("--networks", nargs="+", choices=list(NETWORKS), help="only rows of these")
        experiment.add_argument("--seeds", nargs="+", type=int, help="only rows of these")
        experiment.add_argument("--sparsities", nargs="+", type=float, help="only rows of these")
    row = commands.add_parser("row")
    row.add_argument("--network", required=True)
    row.add_argument("--structure", required=True)
    row.add_argument("--sparsity", type=float, required=True)
    row.add_argument("--method", required=True)
    row.add_argument("--seed", type=int, default=0)
    row.add_argument("--steps", type=int, required=True)
    row.add_argument("--split", choices=("validation", "test"), default="test")
    row.add_argument("--set", nargs="*", default=[], metavar="FLAG=VALUE")
    commands.add_parser("tables")
    commands.add_parser("dense").add_argument("--networks", nargs="+", choices=list(NETWORKS))
    asked = parser.parse_args()
    if asked.command == "tables":
        from tests.benchmarks.paper.tables import write

        write(Rows())
    elif asked.command == "dense":
        train_dense(asked.networks or list(NETWORKS))
    elif asked.command == "row":
        given = {name: getattr(asked, name) for name in Key.__dataclass_fields__ if name != "settings"}
        key = Key(**given, settings=tuple(sorted(asked.set)))
        Rows().add(key, run(key))
    else:

        def asked_for(key: Key) -> bool:
            of = ((asked.networks, key.network), (asked.seeds, key.seed), (asked.sparsities, key.sparsity))
            return all(wanted is None or found in wanted for wanted, found in of)

        work(asked.command, asked_for, time.monotonic() + 3600 * asked.hours)


def train_dense(names: list[str]) -> None:
    """Train the networks that are missing and that no other process has."""
    from tests.benchmarks.paper.dense import train

    for network in (NETWORKS[name] for name in names):
        with claim(f"dense {network.name}") as mine:
            if mine and not network.path.exists():
                train(network)


def work(name: str, asked_for: Callable[[Key], bool], end: float) -> None:
    """Run the rows of an experiment that are missing and that no other process has, one after another.

    Rows of networks that are not trained yet are left out.
    """
    while time.monotonic() < end:
        rows = Rows()
        for key in filter(asked_for, EXPERIMENTS[name](rows)):
            if key in rows.by_key or not NETWORKS[key.network].path.exists():
                continue
            with claim(str(key)) as mine:
                if not mine or key in Rows().by_key:
                    continue
                rows.add(key, run(key))
                break
        else:
            return
