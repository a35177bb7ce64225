"""Recipes: the settings of a training run, what follows from them step by step, and the ones we ship."""
