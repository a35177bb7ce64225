"""Latency in onnxruntime on this machine: side by side (``bench``), and as a budget."""

from graphprune.engine import Engine
from graphprune.latency.bench import Bench, Benched, bench
from graphprune.latency.timing import Ratio, Spread, Turns

__all__ = ["Bench", "Benched", "Engine", "Ratio", "Spread", "Turns", "bench"]
