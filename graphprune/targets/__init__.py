"""Accelerators as data: what they run, what they lack, and whether a written file fits them."""
