"""Pruning with inputs and without training: statistics, least squares, measured distortions. numpy and onnxruntime."""
