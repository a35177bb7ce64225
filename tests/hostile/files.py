"""Files that are no models, and paths that are no files."""

from __future__ import annotations

import gzip
import io
import os
import zipfile
from pathlib import Path

import onnx

from tests.conftest import small_network
from tests.hostile.kit import Made, refused, right


@refused("an empty file")
def empty(folder: Path) -> Made:
    return b""


@refused("an image")
def png(folder: Path) -> Made:
    return b"\x89PNG\r\n\x1a\n" + bytes(range(256))


@refused("a zip archive")
def zip_archive(folder: Path) -> Made:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model/data.pkl", b"\x80\x02}q\x00.")
    return buffer.getvalue()


@refused("a gzip archive: unpack it first")
def gzip_of_a_model(folder: Path) -> Made:
    return gzip.compress(small_network().SerializeToString())


@refused("a TensorFlow Lite model")
def tflite(folder: Path) -> Made:
    return b"\x1c\x00\x00\x00TFL3" + bytes(64)


@refused("git lfs pull")
def lfs_pointer(folder: Path) -> Made:
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


@refused("JSON text")
def json_text(folder: Path) -> Made:
    return b'{"graph": []}'


@refused("a page of HTML")
def html(folder: Path) -> Made:
    return b"<!DOCTYPE html><html><body>404</body></html>"


@refused("not a(n ONNX model| readable ONNX file)")
def text(folder: Path) -> Made:
    return b"hello, this is no model\n" * 20


@refused("not a(n ONNX model| readable ONNX file)")
def zeros(folder: Path) -> Made:
    return bytes(4096)


@refused("not a(n ONNX model| readable ONNX file)")
def json_of_a_model(folder: Path) -> Made:
    path = folder / "model.json"
    onnx.save(small_network(), path, format="json")
    return path


@right
def another_extension(folder: Path) -> Made:
    path = folder / "model.txt"
    path.write_bytes(small_network().SerializeToString())
    return path


@right
def an_extension_that_onnx_takes_for_text(folder: Path) -> Made:
    path = folder / "model.json"
    path.write_bytes(small_network().SerializeToString())
    return path


@refused("is a folder")
def a_folder(folder: Path) -> Made:
    (folder / "model.onnx").mkdir()
    return folder / "model.onnx"


@refused("no such file")
def missing(folder: Path) -> Made:
    return folder / "model.onnx"


@refused("no such file")
def broken_link(folder: Path) -> Made:
    (folder / "model.onnx").symlink_to(folder / "nowhere.onnx")
    return folder / "model.onnx"


@refused("no plain file")
def a_pipe(folder: Path) -> Made:
    os.mkfifo(folder / "model.onnx")
    return folder / "model.onnx"


@refused("no plain file")
def a_device(folder: Path) -> Made:
    return Path("/dev/null")


@refused("no plain file")
def an_endless_device(folder: Path) -> Made:
    return Path("/dev/zero")
