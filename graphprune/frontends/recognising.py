"""What a file that is no ONNX model most likely is, by its first bytes, and what to do with it."""

from __future__ import annotations

_KINDS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"version https://git-lfs", "a Git LFS pointer: fetch the file itself with git lfs pull"),
    (0, b"\x1f\x8b", "a gzip archive: unpack it first"),
    (
        0,
        b"PK\x03\x04",
        "a zip archive or a PyTorch checkpoint: unpack it, or export the module with torch.onnx.export",
    ),
    (0, b"\x80\x02", "a pickle, as old PyTorch checkpoints are: export the module with torch.onnx.export"),
    (4, b"TFL3", "a TensorFlow Lite model: convert it with tf2onnx"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras models are: convert it with tf2onnx"),
    (0, b"\x89PNG", "an image"),
    (0, b"\xff\xd8\xff", "an image"),
    (0, b"{", "JSON text"),
    (0, b"<", "a page of HTML or XML: download the file itself"),
)


def looks_like(data: bytes) -> str | None:
    """ "a gzip archive: unpack it first"; None for what nobody knows. ``data``: the beginning of the file."""
    if not data:
        return "an empty file: copy it again"
    return next((what for at, magic, what in _KINDS if data[at : at + len(magic)] == magic), None)
