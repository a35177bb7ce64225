"""Sample networks for graphprune: small PyTorch definitions of well-known families, exported to ONNX.

>>> from sample_models import export
>>> export("resnet50", "resnet50.onnx")  # doctest: +SKIP
"""

from sample_models.zoo import SAMPLES, Sample, build, export

__all__ = ["SAMPLES", "Sample", "build", "export"]
