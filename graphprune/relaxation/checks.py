"""What the operators of this package accept, each refusal in one sentence."""

from __future__ import annotations

import math

import torch

_PART = 2**15


def check_temperature(tau: float) -> None:
    """Raises ValueError unless the temperature is positive and finite."""
    if not 0 < tau < math.inf:
        raise ValueError(f"the temperature is {tau:g}: give a positive number, such as 0.1")


def check_scores(x: torch.Tensor, dimensions: int, *, padding: bool = False) -> tuple[float, float]:
    """The smallest and the largest score (0, 0 where there is none).

    Raises ValueError for another number of dimensions than ``dimensions``, another type than float32 or
    float64, and scores that are not finite (-inf passes where it may be ``padding``).
    """
    if x.dim() != dimensions:
        raise ValueError(f"scores of shape {list(x.shape)}: give a tensor with {dimensions} dimension(s)")
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"scores of type {x.dtype} are too coarse for low temperatures: give float32")
    if x.numel() == 0:
        return 0.0, 0.0
    low, high = (float(v) for v in torch.aminmax(x))
    if math.isfinite(low) and math.isfinite(high):
        return low, high
    if padding and low == -math.inf and high < math.inf:
        return low, high
    raise ValueError("some scores are infinite or not a number: lower the learning rate of the masks")


def check_cost(cost: torch.Tensor | None, x: torch.Tensor) -> float:
    """What all units cost together: their number where ``cost`` is None.

    Raises ValueError unless there is one finite cost of at least 0 for each score.
    """
    if cost is None:
        return float(x.numel())
    if cost.shape != x.shape:
        raise ValueError(f"{cost.numel()} costs for {x.numel()} scores: give one cost for each unit")
    if cost.numel() == 0:
        return 0.0
    low, high = (float(v) for v in torch.aminmax(cost))
    if not (low >= 0 and math.isfinite(high)):
        raise ValueError("some costs are negative or not finite: give what each unit costs, at least 0")
    # In parts: several times as quick as sum(dtype=torch.float64) over float32.
    return math.fsum(float(cost[i : i + _PART].double().sum()) for i in range(0, cost.numel(), _PART))
