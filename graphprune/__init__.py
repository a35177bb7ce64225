"""graphprune prunes neural networks at graph level, and proves that it did so exactly.

>>> import graphprune
>>> result = graphprune.prune("model.onnx", sparsity=0.5)     # doctest: +SKIP
>>> result.save("small.onnx")                                 # doctest: +SKIP
"""

from graphprune.api import Model, PruneResult, analyze, load, prune, verify
from graphprune.errors import (
    BudgetError,
    FidelityError,
    GraphpruneError,
    ModelError,
    OptionError,
    PlanError,
)
from graphprune.plan import Plan
from graphprune.rules.registry import rule

__version__ = "0.1.0"

__all__ = [
    "BudgetError",
    "FidelityError",
    "GraphpruneError",
    "Model",
    "ModelError",
    "OptionError",
    "Plan",
    "PlanError",
    "PruneResult",
    "__version__",
    "analyze",
    "load",
    "prune",
    "rule",
    "verify",
]
