"""File formats for patterned weights: one file per format, each registered under the name of ``--format``.

Importing this package registers every format, the most widely read one first.
"""

from graphprune.formats import (  # isort: skip
    dense_zeros,
    compact,
    sparse_initializer,
)
from graphprune.formats.emitting import Emitted, emit
from graphprune.formats.registry import FileFormat, all_formats, check_format, file_format, find_format

__all__ = [
    "Emitted",
    "FileFormat",
    "all_formats",
    "check_format",
    "compact",
    "dense_zeros",
    "emit",
    "file_format",
    "find_format",
    "sparse_initializer",
]
