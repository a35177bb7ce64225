"""Accuracy of SMART against one-shot magnitude, over seeds: the figures of the README's "Trained masks".

    python -m tests.benchmarks.trained MODEL IMAGES.npz TEST.npz --sparsity 0.3 0.5 --seeds 0 1 2

Rows are appended to a JSON-lines file as they finish; a row that is there already is not run again.
"""
