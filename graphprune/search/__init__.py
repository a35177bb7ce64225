"""Trained masks: units, gates in the fx module, and the search that decides."""
