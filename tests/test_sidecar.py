"""The sidecar: a reader with numpy alone rebuilds every weight of the written file, bit for bit."""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

import graphprune
from graphprune.errors import PlanError
from graphprune.formats import emit
from graphprune.layouts import BlockLayout, Layout, RowLayout
from graphprune.packed import PackedBlocks, PackedRows, pack
from graphprune.sidecar import blocks_path, blocks_schema, sidecar_bytes
from tests.conftest import small_network
from tests.real_models import shared_models
from tests.test_formats import FORMATS, RESNET, THIRD_PARTY, block_layout, blocked, two_of_four, zeroed

# -- a toolchain's reader, written from the README: numpy and json only -------------------------------------


def toolchain_reader(path: Path) -> dict[str, tuple[str, np.ndarray]]:
    """Tensor name -> (its element type, its raw bits as unsigned integers in the tensor's shape)."""
    archive = np.load(path, allow_pickle=False)
    index = json.loads(str(archive["index"]))
    found = {}
    for weight in index["weights"]:
        arrays = {
            part: archive[f"{weight['number']}/{part}"]
            for part in {
                "block": ("bitmap", "data", "indptr", "indices"),
                "nm": ("values", "positions"),
            }[weight["layout"]]
        }
        numbers = arrays["data" if weight["layout"] == "block" else "values"]
        assert str(numbers.dtype) == weight["stored_as"]
        raw = numbers.view(f"u{numbers.dtype.itemsize}")
        dense = np.zeros(weight["shape"], raw.dtype)
        fill = fill_blocks if weight["layout"] == "block" else fill_groups
        fill(dense, weight, arrays, raw)
        found[weight["name"]] = weight["dtype"], dense
    return found


def fill_blocks(
    dense: np.ndarray, weight: dict[str, Any], arrays: dict[str, np.ndarray], raw: np.ndarray
) -> None:
    block, grid = weight["block"], weight["grid"]
    assert arrays["bitmap"].sum() == weight["kept"] == len(raw)
    for row in range(grid[0]):
        for number in range(arrays["indptr"][row], arrays["indptr"][row + 1]):
            column, place = int(arrays["indices"][number]), []
            for size in reversed(grid[1:]):
                column, rest = divmod(column, size)
                place.insert(0, rest)
            place = [row, *place]
            assert arrays["bitmap"][tuple(place)] == 1
            ends = [min((p + 1) * b, n) for p, b, n in zip(place, block, weight["shape"], strict=True)]
            here = tuple(slice(p * b, e) for p, b, e in zip(place, block, ends, strict=True))
            part = tuple(slice(0, s.stop - s.start) for s in here)
            dense[here] = raw[number][part]
            outside = raw[number].copy()
            outside[part] = 0
            assert not outside.any(), "partial blocks are padded with zeros"


def fill_groups(
    dense: np.ndarray, weight: dict[str, Any], arrays: dict[str, np.ndarray], raw: np.ndarray
) -> None:
    axis, of = weight["axis"], weight["of"]
    size = weight["shape"][axis]
    for place in np.ndindex(*raw.shape):
        *others, group, _ = place
        along = group * of + int(arrays["positions"][place])
        if along < size:
            others.insert(axis, along)
            dense[tuple(others)] = raw[place]
        else:
            assert raw[place] == 0


def stored_bits(path: Path) -> dict[str, np.ndarray]:
    """Every dense tensor of a written file, as onnx reads it."""
    model = onnx.load(path)
    tensors = list(model.graph.initializer)
    for node in model.graph.node:
        for attr in node.attribute:
            if node.op_type == "Constant" and attr.name == "value":
                attr.t.name = node.output[0]
                tensors.append(attr.t)
    arrays = {t.name: numpy_helper.to_array(t) for t in tensors}
    return {n: np.ascontiguousarray(a).view(f"u{a.dtype.itemsize}") for n, a in arrays.items() if a.ndim}


def paths() -> list[Path]:
    return [RESNET, *(p for p in shared_models() if p.stem in THIRD_PARTY)]


@pytest.mark.parametrize("structure", ["block", "nm"])
@pytest.mark.parametrize("path", paths(), ids=lambda p: p.stem)
def test_a_toolchain_rebuilds_every_weight(path: Path, structure: str, tmp_path: Path) -> None:
    model, layouts = blocked(path, 0.5) if structure == "block" else two_of_four(path)
    written = emit(model, layouts).save(tmp_path / "m.onnx")
    weights = stored_bits(written)
    found = toolchain_reader(tmp_path / "m.blocks.npz")
    assert set(found) == set(layouts)
    for name, (dtype, dense) in found.items():
        assert np.array_equal(dense, weights[name]), name
        assert dtype in ("float32", "float16")


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_weights_whatever_the_format(name: str, tmp_path: Path) -> None:
    model, layouts = blocked(RESNET)
    dense = stored_bits(emit(model, layouts).save(tmp_path / "dense.onnx"))
    emit(model, layouts, name).save(tmp_path / "m.onnx")
    for weight, (_, found) in toolchain_reader(tmp_path / "m.blocks.npz").items():
        assert np.array_equal(found, dense[weight])


# -- the API's reader -------------------------------------------------------------------------------------


def test_load_blocks(tmp_path: Path) -> None:
    model, layouts = blocked(RESNET)
    path = emit(model, layouts).save(tmp_path / "m.onnx")
    weights = stored_bits(path)
    for found in (graphprune.load_blocks(path), graphprune.load_blocks(str(tmp_path / "m.blocks.npz"))):
        assert set(found) == set(layouts)
        for name, packed in found.items():
            layout = layouts[name]
            assert isinstance(packed, PackedBlocks)
            assert isinstance(layout, BlockLayout)
            assert packed.dtype == np.float32
            assert packed.shape == layout.shape
            assert packed.block == layout.block
            assert (packed.bitmap == layout.kept).all()
            assert np.array_equal(packed.dense().view("u4"), weights[name])


def test_a_sidecar_of_another_file_is_refused(tmp_path: Path) -> None:
    """The model was replaced, and it was put beside the new one."""
    path = tmp_path / "out.onnx"
    resnet = Path(__file__).resolve().parents[1] / "sample_models" / "resnet20_cifar10.onnx"
    graphprune.prune(resnet, structure="block", sparsity=0.5).save(path)
    assert graphprune.load_blocks(path)
    sidecar = (tmp_path / "out.blocks.npz").read_bytes()
    graphprune.prune(resnet, sparsity=0.5).save(path, force=True)
    assert not (tmp_path / "out.blocks.npz").exists()
    (tmp_path / "out.blocks.npz").write_bytes(sidecar)
    with pytest.raises(PlanError, match=r"out\.onnx is not the file that it was written with"):
        graphprune.load_blocks(path)


def test_load_blocks_of_rows(tmp_path: Path) -> None:
    model, layouts = two_of_four(RESNET)
    path = emit(model, layouts).save(tmp_path / "m.onnx")
    weights = stored_bits(path)
    for name, packed in graphprune.load_blocks(path).items():
        assert isinstance(packed, PackedRows)
        assert (packed.axis, packed.keep, packed.of) == (1, 2, 4)
        assert np.array_equal(packed.dense().view("u4"), weights[name])


DTYPES = {
    "float32": "float32", "float64": "float64", "int8": "int8", "uint8": "uint8", "float16": "uint16",
    "bfloat16": "uint16", "float8_e4m3fn": "uint8",
}  # fmt: skip
"""Element type -> how its numbers are stored."""


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_random_weights_round_trip(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    rank = data.draw(st.integers(1, 5))
    shape = tuple(data.draw(st.integers(1, 11 if rank < 4 else 6)) for _ in range(rank))
    dtype = np.dtype(data.draw(st.sampled_from(sorted(DTYPES))))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    numbers = (rng.standard_normal(shape) * 20).astype(np.float32)
    numbers = np.abs(numbers).astype(dtype) if dtype == np.uint8 else numbers.astype(dtype)
    layout: Layout
    if data.draw(st.booleans()):
        block = tuple(data.draw(st.integers(1, n)) for n in shape)
        layout = block_layout("w", shape, block, data.draw(st.sampled_from([0.0, 0.5, 1.0])), 1)
    else:
        of = data.draw(st.integers(2, 6))
        layout = RowLayout("w", shape, data.draw(st.integers(0, rank - 1)), data.draw(st.integers(1, of)), of)
    array = zeroed(numbers, layout)
    array = np.where(array == 0, np.zeros((), dtype), array)
    folder = tmp_path_factory.mktemp("sidecar")
    model, file = folder / "m.onnx", folder / "m.blocks.npz"
    model.write_bytes(b"model")
    file.write_bytes(sidecar_bytes({"w": pack(array, layout)}, "block", model))
    wanted = np.ascontiguousarray(array).view(f"u{dtype.itemsize}")
    found = graphprune.load_blocks(file)["w"]
    assert found.dtype == dtype
    assert np.array_equal(found.dense().view(wanted.dtype), wanted)
    assert np.array_equal(toolchain_reader(file)["w"][1], wanted)
    (entry,) = index_of(file)["weights"]
    assert entry["stored_as"] == DTYPES[entry["dtype"]]
    check(index_of(file))


def test_every_half_precision_bit_pattern_survives(tmp_path: Path) -> None:
    """NaN payloads, infinities and subnormal numbers too; -0.0 only where a block is kept."""
    (tmp_path / "m.onnx").write_bytes(b"")
    for dtype in (np.float16, ml_dtypes.bfloat16):
        array = np.arange(1 << 16, dtype=np.uint16).view(dtype).reshape(256, 256)
        layout = BlockLayout("w", (256, 256), (16, 8), np.ones((16, 32), bool))
        file = tmp_path / "m.blocks.npz"
        file.write_bytes(sidecar_bytes({"w": pack(array, layout)}, "block", tmp_path / "m.onnx"))
        assert graphprune.load_blocks(file)["w"].dense().tobytes() == array.tobytes()


# -- the index ----------------------------------------------------------------------------------------------


def index_of(path: Path) -> dict[str, Any]:
    return json.loads(str(np.load(path)["index"]))


def check(value: Any, schema: dict[str, Any] | None = None) -> None:
    """As much of JSON schema as blocks.schema.json uses. Raises AssertionError."""
    whole = blocks_schema()
    schema = whole if schema is None else schema
    if "$ref" in schema:
        schema = whole["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    known = {"$schema", "$defs", "$ref", "title", "description", "type", "additionalProperties", "required"}
    known |= {"properties", "const", "enum", "items", "oneOf", "minimum", "maximum", "pattern"}
    assert set(schema) <= known
    kinds = {"object": dict, "array": list, "string": str, "integer": int}
    if "type" in schema:
        assert isinstance(value, kinds[schema["type"]]), (value, schema)
    assert "const" not in schema or value == schema["const"]
    assert value in schema.get("enum", [value])
    assert schema.get("minimum", -math.inf) <= (value if isinstance(value, int) else 0)
    assert schema.get("maximum", math.inf) >= (value if isinstance(value, int) else 0)
    assert "pattern" not in schema or re.search(schema["pattern"], value)
    if schema.get("type") == "object":
        assert set(schema["required"]) <= set(value) <= set(schema["properties"])
        for key, inner in value.items():
            check(inner, schema["properties"][key])
    for inner in value if schema.get("type") == "array" else ():
        check(inner, schema["items"])
    if "oneOf" in schema:
        fits = 0
        for option in schema["oneOf"]:
            try:
                check(value, option)
                fits += 1
            except AssertionError:
                pass
        assert fits == 1


@pytest.mark.parametrize("make", [blocked, two_of_four])
def test_the_index_follows_its_schema(make: Any, tmp_path: Path) -> None:
    model, layouts = make(RESNET)
    path = emit(model, layouts, "compact").save(tmp_path / "my model.onnx")
    index = index_of(tmp_path / "my model.blocks.npz")
    check(index)
    assert index["model"] == {
        "file": "my model.onnx",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    assert index["structure"] == ("block" if make is blocked else "nm")
    assert [w["number"] for w in index["weights"]] == list(range(len(layouts)))
    index["weights"][0]["shape"] = [0]
    with pytest.raises(AssertionError):
        check(index)


def test_names_may_hold_any_character(tmp_path: Path) -> None:
    proto = small_network()
    odd = "a/b\\..\nw\u00e9:*?"
    for item in (*proto.graph.initializer, *proto.graph.node):
        if item.name == "conv2.weight":
            item.name = odd
    proto.graph.node[2].input[1] = odd
    model, layouts = blocked(proto)
    assert odd in layouts
    emit(model, layouts).save(tmp_path / "m.onnx")
    assert set(graphprune.load_blocks(tmp_path / "m.onnx")) == set(layouts)


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    model, layouts = blocked(RESNET)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        emit(model, layouts).save(tmp_path / folder / "m.onnx")
    for name in ("m.onnx", "m.blocks.npz"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_where_the_sidecar_lies() -> None:
    assert blocks_path(Path("x/out.onnx")) == Path("x/out.blocks.npz")
    assert blocks_path(Path("out.v2")) == Path("out.v2.blocks.npz")


# -- damaged and foreign files ------------------------------------------------------------------------------


@pytest.fixture
def sidecar(tmp_path: Path) -> Path:
    model, layouts = blocked(small_network(), 0.5)
    emit(model, layouts).save(tmp_path / "m.onnx")
    return tmp_path / "m.blocks.npz"


def refused(path: Path, words: str) -> None:
    with pytest.raises(PlanError, match=words) as error:
        graphprune.load_blocks(path)
    assert "\n" not in str(error.value)
    assert path.name in str(error.value)


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    refused(tmp_path / "none.blocks.npz", "no such sidecar")
    for content in (b"", b"\x00" * 40, b"not a sidecar", b"PK\x03\x04rest"):
        (tmp_path / "x.npz").write_bytes(content)
        refused(tmp_path / "x.npz", "not a readable sidecar")
    np.savez(tmp_path / "y.npz", a=np.ones(3))
    refused(tmp_path / "y.npz", "has no index")
    np.savez(tmp_path / "z.npz", index=np.array("[1]"))
    refused(tmp_path / "z.npz", "malformed")
    np.savez(tmp_path / "o.npz", index=np.array([{"a": 1}], object))
    refused(tmp_path / "o.npz", "not a readable sidecar")
    with zipfile.ZipFile(tmp_path / "t.npz", "w") as archive:
        archive.writestr("index", "text")
    refused(tmp_path / "t.npz", "not a graphprune sidecar")
    np.save(tmp_path / "plain.npy", np.ones(3))
    refused(tmp_path / "plain.npy", "not a readable sidecar")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("kind", "other", "another kind"),
        ("version", 2, "version 2"),
        ("weights", [{"layout": "csr", "name": "w"}], "unknown layout"),
        ("weights", [{}], "malformed"),
        ("weights", 7, "malformed"),
    ],
)
def test_a_wrong_index(key: str, value: object, words: str, sidecar: Path) -> None:
    rewrite(sidecar, index={key: value})
    refused(sidecar, words)


def rewrite(path: Path, *, index: dict | None = None, entry: dict | None = None, **arrays: Any) -> None:
    stored = dict(np.load(path))
    text = json.loads(str(stored["index"])) | (index or {})
    if entry:
        text["weights"][1] |= entry
    stored["index"] = np.array(json.dumps(text))
    for part, change in arrays.items():
        stored[f"1/{part}"] = change(stored[f"1/{part}"])
    np.savez_compressed(path, **stored)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"entry": {"shape": [24, 16, 3]}}, "wrong block"),
        ({"entry": {"shape": [24, 17, 3, 3]}}, "wrong grid"),
        ({"entry": {"shape": [24, 0, 3, 3]}}, "wrong shape"),
        ({"entry": {"shape": "many"}}, "malformed"),
        ({"entry": {"kept": 99}}, "wrong kept"),
        ({"entry": {"dtype": "float64"}}, "wrong stored_as"),
        ({"entry": {"dtype": "rainbow"}}, "malformed"),
        ({"entry": {"number": 55}}, "wrong bitmap"),
        ({"bitmap": lambda a: a[:1]}, "wrong bitmap"),
        ({"bitmap": lambda a: a + 2}, "wrong bitmap"),
        ({"bitmap": lambda a: 1 - a}, "wrong (kept|indptr|indices)"),
        ({"data": lambda a: a[1:]}, "wrong data"),
        ({"data": lambda a: a.astype(np.float64)}, "wrong data"),
        ({"indptr": lambda a: a[::-1]}, "wrong indptr"),
        ({"indices": lambda a: a + 1}, "wrong indices"),
    ],
)
def test_contradictions_are_refused(change: dict, words: str, sidecar: Path) -> None:
    rewrite(sidecar, **change)
    refused(sidecar, words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"entry": {"axis": 4}}, "wrong axis"),
        ({"entry": {"keep": 5}}, "wrong keep"),
        ({"entry": {"of": 8}}, "wrong positions"),
        ({"positions": lambda a: a + 4}, "wrong positions"),
        ({"positions": lambda a: a[..., ::-1]}, "wrong positions"),
        ({"values": lambda a: a[..., :1]}, "wrong values"),
    ],
)
def test_contradictions_of_rows_are_refused(change: dict, words: str, tmp_path: Path) -> None:
    model, layouts = two_of_four(small_network())
    emit(model, layouts).save(tmp_path / "m.onnx")
    rewrite(tmp_path / "m.blocks.npz", **change)
    refused(tmp_path / "m.blocks.npz", words)


def test_flipped_and_missing_bytes(sidecar: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = np.frombuffer(sidecar.read_bytes(), np.uint8)
    wanted = {n: p.dense().tobytes() for n, p in graphprune.load_blocks(sidecar).items()}
    damaged, errors = tmp_path / "damaged.npz", []
    for _ in range(80):
        data = whole.copy()
        if rng.random() < 0.3:
            data = data[: rng.integers(data.size)]
        else:
            data[rng.integers(0, data.size, rng.choice([1, 3, 20]))] = rng.integers(0, 256)
        damaged.write_bytes(data.tobytes())
        try:
            found = graphprune.load_blocks(damaged)
            assert {n: p.dense().tobytes() for n, p in found.items()} == wanted  # bytes that nobody reads
        except PlanError as error:
            errors.append(str(error))
    assert len(errors) > 40
    assert all("\n" not in error for error in errors)


def test_arrays_hold_no_code(sidecar: Path) -> None:
    """Nothing is unpickled: an archive with Python objects is refused."""
    buffer = io.BytesIO()
    np.save(buffer, np.array([print], object), allow_pickle=True)
    with zipfile.ZipFile(sidecar, "a") as archive:
        archive.writestr("evil.npy", buffer.getvalue())
    refused(sidecar, "allow_pickle")
