"""The table of operator rules as Markdown: ``python -m graphprune.rules.table`` prints what README shows."""

from __future__ import annotations

import sys

from graphprune.rules import all_rules
from graphprune.rules.registry import Rule


def operator_table() -> str:
    """One row per rule: its family, the operators that follow it, and what becomes of their channels."""
    operators: dict[object, list[str]] = {}
    rules: dict[object, Rule] = {}
    for name, rule in all_rules().items():
        operators.setdefault(rule.function, []).append(name)
        rules[rule.function] = rule
    lines = ["| Family | Operators | Channels |", "| --- | --- | --- |"]
    for function, rule in sorted(rules.items(), key=lambda item: item[1].family):
        names = ", ".join(sorted(operators[function], key=lambda name: ("::" in name, name)))
        lines.append(f"| {rule.family} | {names} | {_cell(rule.summary)} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("``", "`").replace("*", "\\*")


if __name__ == "__main__":
    sys.stdout.write(operator_table())
