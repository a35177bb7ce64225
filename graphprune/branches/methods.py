"""The methods that ship; importing this module registers them."""

from graphprune.branches import cosine, finercut, knapsack, magnitude

__all__ = ["cosine", "finercut", "knapsack", "magnitude"]
