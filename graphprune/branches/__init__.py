"""Whole residual branches: finding them, choosing which go, taking them out."""
