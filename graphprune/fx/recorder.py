"""Values inside of an fx module."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import fx


class Recorder(fx.Interpreter):
    """Runs a module node by node (``run(*inputs)``) and keeps in ``found`` what the nodes ``watched`` give."""

    def __init__(self, module: fx.GraphModule, watched: Collection[str]) -> None:
        super().__init__(module)
        self.watched = frozenset(watched)
        self.found: dict[str, torch.Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        """As ``fx.Interpreter`` does."""
        result = super().run_node(n)
        if n.name in self.watched:
            self.found[n.name] = result
        return result
