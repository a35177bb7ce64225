"""Hostile data files and recipes: refused in one sentence, within bounded memory, with nothing left behind."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import graphprune
from tests.conftest import Run, small_network
from tests.hostile.kit import is_one_sentence

Make = Callable[[Path], Path]


def good(samples: int = 8) -> np.ndarray:
    """What ``small_network`` reads."""
    return np.random.default_rng(0).standard_normal((samples, 3, 8, 8)).astype(np.float32)


def packed(**arrays: np.ndarray) -> bytes:
    """The bytes of a .npz file."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=True, **arrays)
    return buffer.getvalue()


def npz(content: bytes) -> Make:
    """A .npz file."""

    def make(folder: Path) -> Path:
        (folder / "x.npz").write_bytes(content)
        return folder / "x.npz"

    return make


def folder_of(**files: bytes) -> Make:
    """A folder; ``a_png`` is the file a.png."""

    def make(folder: Path) -> Path:
        (folder / "data").mkdir()
        for name, content in files.items():
            (folder / "data" / name.replace("_", ".")).write_bytes(content)
        return folder / "data"

    return make


def claiming(shape: str) -> bytes:
    """A .npz file whose array has 100 bytes and claims ``shape``."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (-(11 + len(text)) % 64) + "\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(
            "x.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(100)
        )
    return buffer.getvalue()


def png() -> bytes:
    """A picture of 8 x 8."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def pickled(shape: tuple[int, ...]) -> np.ndarray:
    """An array of Python objects, which only unpickling could read."""
    return np.full(shape, None, object)


def pipe(folder: Path) -> Path:
    """Nobody writes to it."""
    os.mkfifo(folder / "x.npz")
    return folder / "x.npz"


WHOLE = packed(x=good())
DATA: list[tuple[str, Make]] = [
    ("not a zip file", npz(b"")),
    ("not a zip file", npz(WHOLE[: len(WHOLE) // 2])),
    ("not a zip file", npz(b"hello")),
    ("cannot read|CRC", npz(WHOLE[:200] + b"\xff" + WHOLE[201:])),
    ("holds object", npz(packed(x=pickled((8, 3, 8, 8))))),
    ("samples of shape 4x8x8", npz(packed(x=np.zeros((8, 4, 8, 8), np.float32)))),
    ("a single number", npz(packed(x=np.float32(1)))),
    ("no array 'x'", npz(packed())),
    ("no array 'x'", npz(packed(labels=np.zeros(8, np.int64)))),
    ("no samples", npz(packed(x=good(0)))),
    ("counts of samples", npz(packed(x=good(), labels=np.zeros(7, np.int64)))),
    ("holds complex128", npz(packed(x=good().astype(complex)))),
    ("holds NaN for input 'x'", npz(packed(x=good() * np.float32(np.nan)))),
    ("NaN, infinite or beyond", npz(packed(x=np.full((8, 3, 8, 8), np.inf, np.float32)))),
    ("NaN, infinite or beyond", npz(packed(x=good() * np.float32(1e30)))),
    ("has 100 bytes, and its shape", npz(claiming("(1099511627776, 3, 8, 8)"))),
    ("has 100 bytes, and its shape", npz(claiming(f"({2**62}, {2**62}, 8, 8)"))),
    ("cannot read", npz(claiming("(-1, 3, 8, 8)"))),
    ("cannot read", npz(claiming("('a',)"))),
    ("neither images nor", folder_of()),
    ("cannot read the image", folder_of(a_png=b"nope")),
    ("cannot read the image", folder_of(a_png=png()[:100])),
    ("both images and", folder_of(a_png=png(), b_npz=WHOLE)),
    ("cannot read", folder_of(a_npy=b"\x80\x04.")),
    ("neither a .npz file nor a folder", pipe),
    ("neither a .npz file nor a folder", lambda folder: Path("/dev/zero")),
    ("does not exist", lambda folder: folder / "x.npz"),
]


@pytest.mark.parametrize(("words", "make"), DATA, ids=range(len(DATA)))
def test_data(words: str, make: Make, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "out"
    out.mkdir()
    onnx.save(small_network(), tmp_path / "model.onnx")
    data = make(tmp_path)
    code, _, err = run(
        "prune",
        tmp_path / "model.onnx",
        "--sparsity",
        0.3,
        "--data",
        data,
        "--samples",
        8,
        "-o",
        out / "s.onnx",
    )
    assert code == 2, err
    assert is_one_sentence(err, words), err
    assert not list(out.iterdir())


@pytest.mark.parametrize("method", ["reconstruct", "obs", "wanda", "flap", "ablation"])
def test_no_method_takes_nan_for_a_number(method: str) -> None:
    with pytest.raises(graphprune.DataError, match="holds NaN"):
        graphprune.prune(
            small_network(), sparsity=0.3, method=method, data=[{"x": good() * np.float32(np.nan)}]
        )


def test_arrays_that_do_not_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A zip archive of a few kilobytes can hold terabytes of zeros."""
    monkeypatch.setattr("graphprune.data.storage.MOST_MEMORY", 1e-8)
    with pytest.raises(graphprune.DataError, match="does not fit into memory"):
        graphprune.prune(small_network(), sparsity=0.3, data=npz(WHOLE)(tmp_path))


RECIPES: list[tuple[str, bytes]] = [
    ("not a TOML file", b"\xff\xfe\x00"),
    ("not a TOML file", b"lr = "),
    ("not a TOML file", b"lr = 1\nlr = 2"),
    ("not a TOML file", b"a = " + b"[" * 50_000),
    ("not a TOML file", b"lr = " + b"9" * 10_000),
    ("is longer than 262144 bytes", b"# " + b"x" * (1 << 18)),
    ("unknown key 'learning'", b"learning = 1"),
    ("lr = 'fast': give a number", b'lr = "fast"'),
    ("lr = True: give a number", b"lr = true"),
    ("lr nan|lr", b"lr = nan"),
    ("batch-size", b"batch-size = 1.5"),
    ("batch-size", b"batch-size = -1"),
    ("only = 3: give a list", b"only = 3"),
    ("lr = ", b"lr = {a = 1}"),
    ("seed", b"seed = -99999999999999999999999999"),
]


@pytest.mark.parametrize(("words", "content"), RECIPES, ids=range(len(RECIPES)))
def test_recipes(words: str, content: bytes, tmp_path: Path, run: Run) -> None:
    onnx.save(small_network(), tmp_path / "model.onnx")
    recipe = tmp_path / "recipe.toml"
    recipe.write_bytes(content)
    refuses(words, recipe, tmp_path, run)


@pytest.mark.parametrize(
    ("words", "place"), [("longer than", "/dev/zero"), ("cannot read", "."), ("cannot read", "no.toml")]
)
def test_recipes_that_are_no_files(words: str, place: str, tmp_path: Path, run: Run) -> None:
    onnx.save(small_network(), tmp_path / "model.onnx")
    refuses(words, Path(place) if place.startswith("/") else tmp_path / place, tmp_path, run)


def refuses(words: str, recipe: Path, folder: Path, run: Run) -> None:
    """In one sentence, and nothing is written."""
    data = npz(WHOLE)(folder)
    before = sorted(folder.iterdir())
    code, _, err = run(
        *("prune", folder / "model.onnx", "--sparsity", 0.3, "--method", "smart"),
        *("--data", data, "--recipe", recipe, "-o", folder / "small.onnx"),
    )
    assert code == 2, err
    assert is_one_sentence(err, words), err
    assert sorted(folder.iterdir()) == before
