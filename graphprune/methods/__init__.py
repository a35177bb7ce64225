"""Trained methods: one file each."""

from graphprune.methods import smart as smart
from graphprune.methods.registry import TrainedMethod as TrainedMethod
from graphprune.methods.registry import all_trained as all_trained
from graphprune.methods.registry import find_trained as find_trained
