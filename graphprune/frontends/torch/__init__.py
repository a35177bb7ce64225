"""PyTorch in, PyTorch out: a traced module as the ONNX model that the engine reads, and back. Needs torch."""

from graphprune.frontends.torch.capture import capture
from graphprune.frontends.torch.convert import Converted, convert
from graphprune.frontends.torch.export import Traced, trace
from graphprune.frontends.torch.writeback import write_back

__all__ = ["Converted", "Traced", "capture", "convert", "trace", "write_back"]
