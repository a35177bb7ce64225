"""graphprune prunes neural networks at graph level, and proves that it did so exactly.

>>> import graphprune
>>> result = graphprune.prune("model.onnx", sparsity=0.5)     # doctest: +SKIP
>>> result.save("small.onnx")                                 # doctest: +SKIP
"""

import importlib
from typing import TYPE_CHECKING, Any

from graphprune.api import Model, PruneResult, TrainingOptions, analyze, apply, load, prune, verify
from graphprune.errors import (
    BudgetError,
    ConversionError,
    DataError,
    FidelityError,
    GraphpruneError,
    ModelError,
    OptionError,
    PlanError,
    TrainingError,
)
from graphprune.plan import Plan
from graphprune.recipes.recipe import Recipe
from graphprune.rules.registry import rule

if TYPE_CHECKING:
    from graphprune.comparing import compare
    from graphprune.reported import report
    from graphprune.rewriting.legalise import rewrite
    from graphprune.schemas import schema
    from graphprune.search.search import Search
    from graphprune.sidecar import load_blocks
    from graphprune.targets.checking import check

__version__ = "0.1.0"

__all__ = [
    "BudgetError",
    "ConversionError",
    "DataError",
    "FidelityError",
    "GraphpruneError",
    "Model",
    "ModelError",
    "OptionError",
    "Plan",
    "PlanError",
    "PruneResult",
    "Recipe",
    "Search",
    "TrainingError",
    "TrainingOptions",
    "__version__",
    "analyze",
    "apply",
    "check",
    "compare",
    "load",
    "load_blocks",
    "prune",
    "report",
    "rewrite",
    "rule",
    "schema",
    "verify",
]


_LAZY = {
    "Search": "graphprune.search.search",
    "check": "graphprune.targets.checking",
    "compare": "graphprune.comparing",
    "load_blocks": "graphprune.sidecar",
    "report": "graphprune.reported",
    "rewrite": "graphprune.rewriting.legalise",
    "schema": "graphprune.schemas",
}
"""Public names whose modules are imported when they are asked for: ``Search`` alone needs seconds for torch."""


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
