"""File formats for patterned weights: one file per format, each registered under the name of ``--format``."""

from graphprune.formats import compact, dense_zeros, sparse_initializer  # noqa: F401 - importing registers
from graphprune.formats.emitting import Emitted, emit
from graphprune.formats.registry import FileFormat, all_formats, check_format, file_format, find_format

__all__ = ["Emitted", "FileFormat", "all_formats", "check_format", "emit", "file_format", "find_format"]
