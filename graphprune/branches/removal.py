"""What goes with a choice of residual branches, and how far that is from a budget."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property

from graphprune.budget import Budget
from graphprune.errors import BudgetError
from graphprune.graph import Graph, Node
from graphprune.groups import counts_as_parameters
from graphprune.residuals import Branch

Chosen = frozenset[int]
"""Numbers of branches."""


class Removal:
    """Counts for any choice of ``branches``, exact: what several branches share goes with the last of them.

    ``macs``: of every node that has any. ``budget.kind`` says what ``share`` counts: branches (those inside a removed
    one included), parameters or MACs of the whole model.
    """

    def __init__(
        self, graph: Graph, branches: Sequence[Branch], macs: Mapping[Node, int], budget: Budget
    ) -> None:
        self.graph, self.branches, self.budget, self._macs = graph, list(branches), budget, macs
        self._tensors = [v for v in graph.stored() if counts_as_parameters(v)]
        self.total_params = sum(v.size for v in self._tensors)
        self.total_macs = sum(macs.values())

    def dead(self, chosen: Iterable[int]) -> set[Node]:
        """Nodes that outputs no longer need, the sums themselves included."""
        return self._before - self._needed(chosen)

    def gone(self, chosen: Collection[int]) -> Chosen:
        """``chosen``, and the branches inside of them."""
        dead = self.dead(chosen)
        return frozenset(i for i, b in enumerate(self.branches) if i in chosen or b.add in dead)

    def outermost(self, chosen: Collection[int]) -> list[int]:
        """``chosen`` without branches that others of them contain, in graph order."""
        return [i for i in sorted(chosen) if self.branches[i].add not in self.dead(set(chosen) - {i})]

    def params(self, chosen: Iterable[int]) -> int:
        """Parameters that go."""
        dead = self.dead(chosen)
        return sum(t.size for t in self._tensors if t.consumers and dead.issuperset(t.consumers))

    def macs(self, chosen: Iterable[int]) -> int:
        """MACs that go."""
        return sum(self._macs.get(n, 0) for n in self.dead(chosen))

    def share(self, chosen: Collection[int]) -> float:
        """What goes, in the budget's measure: 0 to 1."""
        if self.budget.kind == "sparsity":
            return len(self.gone(chosen)) / max(len(self.branches), 1)
        if self.budget.kind == "params":
            return self.params(chosen) / max(self.total_params, 1)
        return self.macs(chosen) / max(self.total_macs, 1)

    @cached_property
    def _before(self) -> set[Node]:
        return self._needed(())

    @cached_property
    def everything(self) -> Chosen:
        """All branches."""
        return frozenset(range(len(self.branches)))

    def check_reachable(self) -> None:
        """Raises BudgetError, naming the best reachable share, where all branches together are too few."""
        if not self.branches:
            raise BudgetError("there is no residual branch that could go: prune channels instead")
        most = self.share(self.everything)
        if self.budget.requested > most + 1e-9:
            raise BudgetError(
                f"--{self.budget.kind} {self.budget.requested:g} cannot be reached: all {len(self.branches)} residual "
                f"branches hold {most:.4f}; ask for less"
            )

    def fits(self, chosen: Collection[int]) -> bool:
        """Whether ``chosen`` stays within the budget."""
        return self.share(chosen) <= self.budget.requested + 1e-12

    def left(self, chosen: Collection[int]) -> list[int]:
        """Branches that still stay under ``chosen``, in graph order."""
        gone = self.gone(chosen)
        return [i for i in range(len(self.branches)) if i not in gone]

    def finish(self, chosen: Chosen, order: Sequence[int]) -> Chosen:
        """``chosen``, or with the one branch more that overshoots least, whichever is nearer to the budget.

        Of branches that overshoot alike the first in ``order`` counts.
        """
        staying = set(self.left(chosen))
        trials = [chosen | {i} for i in order if i in staying]
        if not trials:
            return chosen
        over = min(trials, key=self.share)
        want = self.budget.requested
        return over if self.share(over) - want < want - self.share(chosen) - 1e-12 else chosen

    def take(self, order: Sequence[int]) -> Chosen:
        """Branches in ``order`` as long as they fit, passing over those that do not; then ``finish``."""
        chosen: Chosen = frozenset()
        for i in order:
            if self.fits(chosen | {i}):
                chosen |= {i}
        return self.finish(chosen, order)

    def _needed(self, chosen: Iterable[int]) -> set[Node]:
        replaced = {self.branches[i].add: self.branches[i].shortcut for i in chosen}
        found: set[Node] = set()
        seen: set[Node] = set()
        stack = [v.producer for v in self.graph.outputs]
        while stack:
            node = stack.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            if node in replaced:
                stack.append(replaced[node].producer)
                continue
            found.add(node)
            stack.extend(v.producer for v in (*node.inputs, *node.captured) if v is not None)
        return found
