"""Differentiable top-k under a budget (SMART, equations 3 to 5), and its hard limit.

    s_i = sigmoid((x_i - theta) / tau),   theta such that   sum_i c_i s_i = K

Importing this package imports torch.
"""

from graphprune.hard_topk import hard_topk
from graphprune.relaxation.budgets import MonotoneBudget, soft_budget
from graphprune.relaxation.hard import hard_masks, hard_masks_curve, hard_rows
from graphprune.relaxation.root import Threshold
from graphprune.relaxation.rows import soft_topk_rows
from graphprune.relaxation.straight_through import straight_through
from graphprune.relaxation.threshold import solve_threshold
from graphprune.relaxation.topk import soft_topk
from graphprune.relaxation.undecided import undecided

__all__ = [
    "MonotoneBudget",
    "Threshold",
    "hard_masks",
    "hard_masks_curve",
    "hard_rows",
    "hard_topk",
    "soft_budget",
    "soft_topk",
    "soft_topk_rows",
    "solve_threshold",
    "straight_through",
    "undecided",
]
