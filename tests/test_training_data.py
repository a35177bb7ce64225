"""Data sources: what they hand over, in which order, to whom, and what they say when data does not fit."""

from __future__ import annotations

import builtins
import os
import random
import re
import shutil
import subprocess
import sys
import textwrap
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from PIL import Image

from graphprune.data.factories import to_array
from graphprune.data.opening import open_data
from graphprune.data.samples import Batch, InputSpec, Source
from graphprune.errors import DataError, GraphpruneError, OptionError
from graphprune.search.class_labels import check_labels
from graphprune.training.augment import REACH, augmentable, draw, light, move, move_labels
from graphprune.training.batches import tensors

IMAGE = InputSpec("input", (None, 3, 8, 6), "float32")
TOKENS = (InputSpec("ids", (1, 4), "int64"), InputSpec("mask", (1, 4), "int64"))
CIFAR = Path(__file__).resolve().parents[1] / "sample_models" / "cifar10_eval.npz"

SAMPLES = 23


def pixels(count: int = SAMPLES, seed: int = 0) -> np.ndarray:
    """uint8 NCHW; the first value of a sample is its number."""
    images = np.random.default_rng(seed).integers(0, 256, (count, 3, 8, 6), np.uint8)
    images[:, 0, 0, 0] = np.arange(count)
    return images


def equal(one: Batch, other: Batch) -> bool:
    """Bit for bit."""
    if one.labels is None or other.labels is None:
        return one.labels is other.labels and same(one.inputs, other.inputs)
    return same((*one.inputs, one.labels), (*other.inputs, other.labels))


def same(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> bool:
    """Equal in number types and in every number."""
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    np.savez(path, input_u8=pixels(), labels=np.arange(SAMPLES) % 5)
    return path


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Classes cat, dog and owl; lossless, so that pixels can be compared."""
    folder = tmp_path / "images"
    images = pixels().transpose(0, 2, 3, 1)
    for i, image in enumerate(images):
        where = folder / ("cat", "dog", "owl")[i % 3]
        where.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(where / f"{i:02}.png")
    (folder / "cat" / "notes.txt").write_text("not an image")
    return folder


@pytest.fixture
def shard_folder(tmp_path: Path) -> Path:
    """Shards of 7, 1, 10 and 5 samples."""
    folder = tmp_path / "shards"
    folder.mkdir()
    images, first = pixels(), 0
    for i, count in enumerate((7, 1, 10, 5)):
        part = slice(first, first + count)
        np.savez(folder / f"{i}.npz", input_u8=images[part], labels=np.arange(SAMPLES)[part] % 5)
        first += count
    return folder


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Write code into a module of the current folder; gives the spec of its ``make``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    names = []

    def write(code: str) -> str:
        name = f"user_data_{tmp_path.name}_{len(names)}".replace("-", "_")
        header = "import random, numpy as np, torch\nfrom torch.utils.data import DataLoader, TensorDataset\n"
        (tmp_path / f"{name}.py").write_text(header + textwrap.dedent(code))
        names.append(name)
        return f"python:{name}:make"

    yield write
    for name in names:
        sys.modules.pop(name, None)


LOADER = """
class Noisy(torch.utils.data.Dataset):
    def __len__(self):
        return 23
    def __getitem__(self, i):
        noise = random.random() + np.random.rand() + torch.rand(())
        return torch.full((3, 8, 6), float(i)) + noise * 0.1, i % 5

def make():
    return DataLoader(Noisy(), batch_size=6, shuffle=True)
"""


@pytest.fixture(params=["npz", "images", "shards", "loader"])
def source(request: pytest.FixtureRequest, module: Callable[[str], str]) -> Source:
    """Every kind, 23 samples, read in batches of 6."""
    if request.param == "loader":
        return open_data(module(LOADER), [IMAGE])
    fixture = {"npz": "npz", "images": "image_folder", "shards": "shard_folder"}[request.param]
    return open_data(str(request.getfixturevalue(fixture)), [IMAGE])


# -- every kind -------------------------------------------------------------------------------------


def test_what_a_source_tells(source: Source) -> None:
    assert source.size == SAMPLES
    assert source.labelled
    assert source.shape() == {"input": (3, 8, 6)}
    batch = next(source.batches(6))
    assert batch.inputs[0].shape == (6, 3, 8, 6)
    assert batch.inputs[0].dtype == np.float32
    assert batch.labels is not None
    assert batch.labels.dtype == np.int64


def test_the_same_seed_and_epoch_give_the_same_batches(source: Source) -> None:
    first = list(source.batches(6, seed=3, epoch=2))
    torch.rand(5), np.random.rand(3), random.random()  # other people's random numbers change nothing
    again = list(source.batches(6, seed=3, epoch=2))
    assert len(first) == len(again) == source.length(6)
    assert all(equal(a, b) for a, b in zip(first, again, strict=True))
    for seed, epoch in ((3, 1), (4, 2)):
        assert not equal(first[0], next(source.batches(6, seed=seed, epoch=epoch)))


def test_reading_leaves_the_global_random_numbers_alone(source: Source) -> None:
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    expected = torch.rand(3), np.random.rand(3), random.random()
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    batches = source.batches(6)
    next(batches), next(batches)
    assert torch.equal(torch.rand(3), expected[0])
    assert np.array_equal(np.random.rand(3), expected[1])
    assert random.random() == expected[2]


@pytest.mark.parametrize("skip", [0, 1, 2, 3])
def test_skipping_resumes_bit_for_bit(source: Source, skip: int) -> None:
    whole = list(source.batches(6, seed=1, epoch=4))
    rest = list(source.batches(6, seed=1, epoch=4, skip=skip))
    assert len(rest) == len(whole) - skip
    assert all(equal(a, b) for a, b in zip(whole[skip:], rest, strict=True))


@pytest.mark.parametrize("world", [2, 3])
def test_the_parts_of_all_ranks_are_the_batches_of_one_process(source: Source, world: int) -> None:
    # the loader's last batch is smaller and cannot be divided evenly, but it is still divided
    whole = list(source.batches(6, seed=1, epoch=1))
    ranks = [list(source.batches(6, seed=1, epoch=1, rank=r, world=world)) for r in range(world)]
    assert {len(r) for r in ranks} == {len(whole)}
    for batch, *split in zip(whole, *ranks, strict=True):
        labels = np.concatenate([p.labels for p in split if p.labels is not None])
        assert equal(Batch((np.concatenate([p.inputs[0] for p in split]),), labels), batch)
        if len(batch.inputs[0]) == 6:
            assert {len(p.inputs[0]) for p in split} == {6 // world}


@pytest.mark.parametrize("kind", ["npz", "image_folder", "shard_folder"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_an_epoch_without_drop_last_has_every_sample_once(
    kind: str, shuffle: bool, request: pytest.FixtureRequest
) -> None:
    source = open_data(str(request.getfixturevalue(kind)), [IMAGE])
    batches = list(source.batches(6, shuffle=shuffle, drop_last=False, seed=5))
    assert [len(b.inputs[0]) for b in batches] == [6, 6, 6, 5]
    assert source.length(6, drop_last=False) == 4
    assert source.length(6) == 3
    assert source.length(100) == 1  # one smaller batch
    assert [len(b.inputs[0]) for b in source.batches(100)] == [SAMPLES]
    indices = np.concatenate([b.indices for b in batches])
    assert sorted(indices) == list(range(SAMPLES))
    assert (list(indices) == list(range(SAMPLES))) is not shuffle
    # the numbers are those of the samples: reading in order tells what each of them is
    plain = next(source.batches(SAMPLES, shuffle=False, drop_last=False))
    assert plain.labels is not None
    for batch in batches:
        assert equal(batch, Batch((plain.inputs[0][batch.indices],), plain.labels[batch.indices]))


def test_seed_and_epoch_shuffle_the_shards(shard_folder: Path) -> None:
    source = open_data(str(shard_folder), [IMAGE])
    starts = np.array([0, 7, 8, 18])

    def visits(seed: int, epoch: int) -> tuple[int, ...]:
        batches = source.batches(6, seed=seed, epoch=epoch, drop_last=False)
        shards = [int(np.searchsorted(starts, i, side="right")) - 1 for b in batches for i in b.indices]
        return tuple(dict.fromkeys(shards))

    assert len({visits(seed, 0) for seed in range(8)}) > 2
    assert len({visits(0, epoch) for epoch in range(8)}) > 2


def test_two_shuffled_epochs_of_shards_differ_inside_shards_too(shard_folder: Path) -> None:
    source = open_data(str(shard_folder), [IMAGE])
    largest = range(8, 18)  # the third shard
    orders = [
        [i for b in source.batches(6, epoch=e, drop_last=False) for i in b.indices if i in largest]
        for e in range(3)
    ]
    assert all(sorted(o) == list(largest) for o in orders)
    assert len({tuple(o) for o in orders}) == 3


def test_more_processes_than_fit(npz: Path) -> None:
    source = open_data(str(npz), [IMAGE])
    with pytest.raises(OptionError, match="batch of 6 cannot be divided evenly among 4 processes"):
        next(source.batches(6, world=4))
    with pytest.raises(DataError, match="23 samples are too few for 50 processes"):
        next(source.batches(100, world=50))
    with pytest.raises(OptionError, match="batch of 0"):
        next(source.batches(0))
    evaluated = [list(source.batches(22, drop_last=False, shuffle=False, rank=r, world=2)) for r in (0, 1)]
    assert sorted(len(b) for b in evaluated) == [1, 2]  # the last sample goes to one of the two


# -- what arrays become -----------------------------------------------------------------------------


def test_bytes_become_what_the_sample_model_was_trained_on() -> None:
    spec = InputSpec("input", (None, 3, 32, 32), "float32")
    source = open_data(str(CIFAR), [spec])
    batch = next(source.batches(64, shuffle=False))
    with np.load(CIFAR) as data:
        expected = (data["input_u8"][:64].astype(np.float32) / 255 - data["mean"]) / data["std"]
        labels = data["labels"][:64]
    assert np.array_equal(batch.inputs[0], expected)
    assert batch.labels is not None
    assert np.array_equal(batch.labels, labels)
    other = open_data(str(CIFAR), [spec], mean=[0.5], std=[0.25, 0.5, 1.0])  # instead of the stored ones
    with np.load(CIFAR) as data:
        unit = data["input_u8"][:64].astype(np.float32) / 255
    divisor = np.float32([0.25, 0.5, 1.0]).reshape(1, 3, 1, 1)
    assert np.array_equal(next(other.batches(64, shuffle=False)).inputs[0], (unit - 0.5) / divisor)


def test_mean_and_deviation_apply_to_floats_only_when_asked(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((4, 3, 8, 6), np.float32)
    np.savez(tmp_path / "d.npz", input=values, mean=np.float32([0.5]), std=np.float32([0.5]))
    path = str(tmp_path / "d.npz")
    assert np.array_equal(next(open_data(path, [IMAGE]).batches(4, shuffle=False)).inputs[0], values)
    asked = open_data(path, [IMAGE], mean=[0.25], std=[0.5])
    assert np.array_equal(next(asked.batches(4, shuffle=False)).inputs[0], (values - 0.25) / 0.5)


@pytest.mark.parametrize(
    ("stored", "spec", "expected"),
    [
        ((8, 6, 3), (None, 3, 8, 6), lambda a: a.transpose(0, 3, 1, 2)),
        ((3, 8, 6), (None, 8, 6, 3), lambda a: a.transpose(0, 2, 3, 1)),
        ((3, 8, 6), (None, 3, None, None), lambda a: a),
        ((8, 6, 3), (None, 3, None, None), lambda a: a.transpose(0, 3, 1, 2)),
        ((3, 3, 3), (None, 3, 3, 3), lambda a: a),
        ((8, 6), (None, 1, 8, 6), lambda a: a[:, None]),
        ((8, 6), (None, 8, 6, 1), lambda a: a[..., None]),
        ((5,), (7, 5), lambda a: a),
        ((5, 4), (None, 5, None), lambda a: a),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", ">f4"])
def test_layouts(
    tmp_path: Path,
    stored: tuple[int, ...],
    spec: tuple[int | None, ...],
    expected: Callable[[np.ndarray], np.ndarray],
    dtype: str,
) -> None:
    array = (np.random.default_rng(0).random((4, *stored)) * 255).astype(dtype)
    np.savez(tmp_path / "d.npz", whatever=array)  # the only array may have any name
    source = open_data(str(tmp_path / "d.npz"), [InputSpec("x", spec, "float32")])
    batch = next(source.batches(4, shuffle=False))
    wanted = expected(array).astype(np.float32) / (255 if dtype == "uint8" else 1)
    assert np.array_equal(batch.inputs[0], wanted)
    assert batch.inputs[0].flags.c_contiguous
    assert source.shape() == {"x": wanted.shape[1:]}
    assert batch.labels is None
    assert not source.labelled


@pytest.mark.parametrize("wanted", ["float16", "bfloat16", "float64", "uint8"])
def test_number_types_of_inputs(tmp_path: Path, wanted: str) -> None:
    array = pixels(4)
    np.savez(tmp_path / "d.npz", x=array)
    source = open_data(str(tmp_path / "d.npz"), [InputSpec("x", (1, 3, 8, 6), wanted)])
    found = next(source.batches(4, shuffle=False))
    raw = torch.from_numpy(array)
    dtype = getattr(torch, wanted)
    expected = raw if wanted == "uint8" else (raw.double() / 255 if wanted == "float64" else raw / 255)
    assert found.inputs[0].dtype.name == wanted
    assert torch.equal(tensors(found).inputs[0], expected.to(dtype))


def test_numbers_that_are_too_large_are_infinite(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.array([[1e300, -1e6, 1.0]]))
    source = open_data(str(tmp_path / "d.npz"), [InputSpec("x", (1, 3), "float16")])
    assert next(source.batches(1)).inputs[0].tolist() == [[np.inf, -np.inf, 1.0]]


def test_several_inputs_go_by_name(tmp_path: Path) -> None:
    ids, mask = np.arange(24, dtype=np.int32).reshape(6, 4), np.ones((6, 4), bool)
    np.savez(tmp_path / "d.npz", mask=mask, ids=ids, labels=np.zeros((6, 1), np.uint8), extra=np.zeros(3))
    batch = next(open_data(str(tmp_path / "d.npz"), TOKENS).batches(6, shuffle=False))
    assert [a.dtype for a in batch.inputs] == [np.int64] * 2
    assert np.array_equal(batch.inputs[0], ids)
    assert np.array_equal(batch.inputs[1], mask)
    assert batch.labels is not None
    assert batch.labels.shape == (6,)


def test_labels_may_be_pixels_or_targets(tmp_path: Path) -> None:
    for name, labels, dtype in (
        ("pixels", np.zeros((4, 8, 6), np.uint8), np.int64),
        ("targets", np.zeros((4, 2), ">f8"), np.float32),
    ):
        np.savez(tmp_path / f"{name}.npz", input=pixels(4), labels=labels)
        found = next(open_data(str(tmp_path / f"{name}.npz"), [IMAGE]).batches(4)).labels
        assert found is not None
        assert (found.dtype, found.shape) == (dtype, labels.shape)


# -- images -----------------------------------------------------------------------------------------


def test_images_are_what_was_saved(image_folder: Path) -> None:
    batch = next(open_data(str(image_folder), [IMAGE]).batches(SAMPLES, shuffle=False))
    order = sorted(range(SAMPLES), key=lambda i: (i % 3, i))
    assert np.array_equal(batch.inputs[0], pixels()[order].astype(np.float32) / 255)
    assert batch.labels is not None
    assert batch.labels.tolist() == [i % 3 for i in order]


@pytest.mark.parametrize(
    ("shape", "sample", "mode"),
    [
        ((None, 3, None, None), (3, 5, 9), "RGB"),
        ((None, None, None, 3), (5, 9, 3), "RGB"),
        ((None, None, None, None), (3, 5, 9), "RGB"),
        ((1, 1, 5, 9), (1, 5, 9), "L"),
        ((1, 5, None, 1), (5, 9, 1), "L"),
    ],
)
def test_images_are_resized_and_laid_out(
    image_folder: Path, shape: tuple[int | None, ...], sample: tuple[int, ...], mode: str
) -> None:
    source = open_data(str(image_folder), [InputSpec("input", shape, "float32")], resize=(9, 5))
    assert source.shape() == {"input": sample}
    image = Image.open(image_folder / "cat" / "00.png").convert(mode)
    expected = np.asarray(image.resize((9, 5), Image.Resampling.BILINEAR), np.float32) / 255
    if mode == "L":
        expected = expected[..., None]
    if sample[0] in (1, 3):
        expected = expected.transpose(2, 0, 1)
    assert np.array_equal(next(source.batches(1, shuffle=False)).inputs[0][0], expected)


def test_images_directly_in_a_folder_have_no_labels(image_folder: Path) -> None:
    source = open_data(str(image_folder / "cat"), [IMAGE], mean=[0.5, 0.4, 0.3], std=[0.2])
    batch = next(source.batches(2, shuffle=False))
    assert not source.labelled
    assert batch.labels is None
    mean = np.float32([0.5, 0.4, 0.3]).reshape(1, 3, 1, 1)
    expected = (pixels()[[0, 3]].astype(np.float32) / 255 - mean) / np.float32(0.2)
    assert np.array_equal(batch.inputs[0], expected)


def test_images_without_pillow(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("PIL"):
            raise ImportError("No module named 'PIL'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match="pip install pillow"):
        open_data(str(image_folder), [IMAGE])


def test_damaged_images_are_named(image_folder: Path) -> None:
    source = open_data(str(image_folder), [IMAGE])
    path = image_folder / "dog" / "01.png"
    whole = path.read_bytes()
    for content in (b"", b"no image at all", whole[: len(whole) // 2], whole[:20]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=re.escape(str(path))):
            list(source.batches(6, drop_last=False))
    Image.fromarray(np.zeros((8, 6), np.uint16)).save(path)
    with pytest.raises(DataError, match=r"01\.png has more than 8 bits per channel"):
        list(source.batches(6, drop_last=False))


# -- shards -----------------------------------------------------------------------------------------


def test_a_shard_is_not_held_after_use(tmp_path: Path) -> None:
    size = 2_000_000
    for i in range(6):
        np.savez(tmp_path / f"{i}.npz", x=np.full((20, size // 80), i, np.float32))
    source = open_data(str(tmp_path), [InputSpec("x", (None, size // 80), "float32")])
    tracemalloc.start()
    try:
        seen = [int(b.inputs[0][0, 0]) for b in source.batches(3, drop_last=False)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert set(seen) == set(range(6))
    assert size < peak < 1.8 * size  # one shard, and a batch that is being put together


def test_skipped_shards_are_not_read(shard_folder: Path) -> None:
    source = open_data(str(shard_folder), [IMAGE])
    expected = list(source.batches(4, shuffle=False, drop_last=False))[2:]
    for name in ("0.npz", "1.npz"):
        (shard_folder / name).unlink()
    found = list(source.batches(4, shuffle=False, drop_last=False, skip=2))
    assert all(equal(a, b) for a, b in zip(expected, found, strict=True))


def test_npy_shards_are_one_input_without_labels(tmp_path: Path) -> None:
    images = pixels()
    np.save(tmp_path / "a.npy", images[:10])
    np.save(tmp_path / "b.npy", images[10:])
    source = open_data(str(tmp_path), [IMAGE])
    batch = next(source.batches(SAMPLES, shuffle=False))
    assert np.array_equal(batch.inputs[0], images.astype(np.float32) / 255)
    assert not source.labelled


# -- python: ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "batch",
    [
        "[(x, y)]",
        "[[x, y]]",
        "[{'input': x, 'labels': y}]",
        "[{'anything': x, 'labels': y}]",
        "[({'input': x}, y)]",
        "[((x,), y)]",
        "[(x.numpy(), y.numpy())]",
        "[(x.permute(0, 2, 3, 1), y[:, None])]",
    ],
)
def test_forms_of_a_batch(module: Callable[[str], str], batch: str) -> None:
    values = "x, y = torch.arange(4 * 144.).reshape(4, 3, 8, 6), torch.arange(4)"
    source = open_data(module(f"{values}\ndef make():\n    return {batch}"), [IMAGE])
    found = next(source.batches(128))
    assert same(found.inputs, [np.arange(4 * 144, dtype=np.float32).reshape(4, 3, 8, 6)])
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 2, 3]
    assert source.length(128) == 1
    assert source.size is None


@pytest.mark.parametrize(
    ("batch", "labelled"),
    [
        ("(a, b)", False),
        ("(a, b, y)", True),
        ("((a, b), y)", True),
        ("{'mask': b, 'ids': a}", False),
        ("{'mask': b, 'ids': a, 'labels': y}", True),
        ("({'mask': b, 'ids': a}, y)", True),
    ],
)
def test_forms_of_a_batch_with_two_inputs(module: Callable[[str], str], batch: str, labelled: bool) -> None:
    values = "a, b, y = torch.arange(8).reshape(2, 4), torch.ones(2, 4).long(), torch.zeros(2)"
    source = open_data(module(f"{values}\ndef make():\n    return [{batch}]"), TOKENS)
    found = next(source.batches(128))
    assert same(found.inputs, [np.arange(8).reshape(2, 4), np.ones((2, 4), np.int64)])
    assert source.labelled is labelled is (found.labels is not None)


@pytest.mark.parametrize("returned", ["(one, two)", "{'train': one, 'eval': two}"])
def test_train_and_eval(module: Callable[[str], str], returned: str) -> None:
    code = "one, two = [torch.zeros(2, 3, 8, 6)], [torch.ones(2, 3, 8, 6)]\n"
    spec = module(f"{code}def make():\n    return {returned}")
    assert next(open_data(spec, [IMAGE]).batches(2)).inputs[0].max() == 0
    assert next(open_data(spec, [IMAGE], which="eval").batches(2)).inputs[0].min() == 1


def test_a_loader_of_bytes_is_normalised(module: Callable[[str], str]) -> None:
    spec = module("def make():\n    return [torch.full((2, 8, 6, 3), 51, dtype=torch.uint8)]")
    source = open_data(spec, [IMAGE], mean=[0.1], std=[0.1])
    assert np.allclose(next(source.batches(2)).inputs[0], np.ones((2, 3, 8, 6)))


def test_a_loader_with_its_own_generator_and_workers_repeats(module: Callable[[str], str]) -> None:
    code = LOADER.replace(
        "shuffle=True", "shuffle=True, num_workers=1, generator=torch.Generator().manual_seed(9)"
    ).replace("random.random() + np.random.rand() + ", "")
    source = open_data(module(code), [IMAGE])
    first = list(source.batches(6, seed=3, epoch=2))
    again = list(source.batches(6, seed=3, epoch=2))
    assert all(equal(a, b) for a, b in zip(first, again, strict=True))
    assert not equal(first[0], next(source.batches(6, seed=3, epoch=3)))


def test_a_stream_has_no_length(module: Callable[[str], str]) -> None:
    source = open_data(
        module("""
        class Stream(torch.utils.data.IterableDataset):
            def __iter__(self):
                yield from torch.zeros(5, 3, 8, 6)
        def make():
            return DataLoader(Stream(), batch_size=2)
        """),
        [IMAGE],
    )
    assert source.size is None
    assert source.length(2) is None
    assert [len(b.inputs[0]) for b in source.batches(2)] == [2, 2, 1]
    with pytest.raises(DataError, match="has 1 samples, too few for 2 processes"):
        list(source.batches(2, world=2))


def test_a_distributed_sampler_divides_by_itself(module: Callable[[str], str]) -> None:
    source = open_data(
        module("""
        from torch.utils.data.distributed import DistributedSampler
        def make():
            data = TensorDataset(torch.zeros(24, 3, 8, 6))
            sampler = DistributedSampler(data, num_replicas=2, rank=0)
            return DataLoader(data, batch_size=6, sampler=sampler)
        """),
        [IMAGE],
    )
    assert [len(b.inputs[0]) for b in source.batches(6, rank=0, world=2)] == [6, 6]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int8", "uint16", "bool"])
def test_tensors_of_every_type_are_taken(dtype: str) -> None:
    tensor = torch.tensor([[0.0, 1.0, 3.0]], requires_grad=True).to(getattr(torch, dtype))
    array = to_array(tensor)
    assert array.dtype.name == dtype
    assert array.tolist() == tensor.tolist()


def test_a_loader_of_bfloat16(module: Callable[[str], str]) -> None:
    code = "def make():\n    return [(torch.full((2, 4), 0.1).bfloat16(), torch.ones(2).bfloat16())]"
    for wanted in ("float32", "bfloat16"):
        batch = next(open_data(module(code), [InputSpec("x", (None, 4), wanted)]).batches(2))
        assert batch.inputs[0].dtype.name == wanted
        assert batch.inputs[0].astype(np.float32).tolist() == [[0.10009765625] * 4] * 2
        assert batch.labels is not None
        assert batch.labels.dtype == np.float32


# -- without torch ----------------------------------------------------------------------------------

FACTORY = """
import random, sys
import numpy as np

class Loader:
    def __iter__(self):
        for _ in range(3):
            yield np.random.rand(2, 3, 8, 6) + random.random(), np.arange(2)

def make():
    return Loader()
"""

READ = """
import sys
import numpy as np
from graphprune.data.opening import open_data
from graphprune.data.samples import InputSpec

for spec in sys.argv[1:]:
    source = open_data(spec, [InputSpec("input", (None, 3, 8, 6), "float32")], mean=[0.5], std=[0.25])
    one, other = (next(source.batches(2, seed=3)) for _ in range(2))
    assert one.inputs[0].shape == (2, 3, 8, 6)
    assert one.inputs[0].dtype == np.float32
    assert one.labels.dtype == np.int64
    assert np.array_equal(one.inputs[0], other.inputs[0])
    assert not {"torch", "onnxruntime"} & set(sys.modules), spec
"""


def test_data_is_read_without_torch(
    npz: Path, image_folder: Path, shard_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "light_factory.py").write_text(FACTORY)
    specs = [str(npz), str(image_folder), str(shard_folder), "python:light_factory:make"]
    path = os.pathsep.join([str(Path(__file__).resolve().parents[1]), str(tmp_path)])
    done = subprocess.run(
        [sys.executable, "-c", READ, *specs],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# -- as tensors -------------------------------------------------------------------------------------


def test_tensors_share_the_memory_of_arrays() -> None:
    image, ids = np.zeros((2, 3, 4, 5), np.float32), np.zeros((2, 4), np.int64)
    labels, indices = np.zeros(2, np.int64), np.arange(2)
    found = tensors(Batch((image, ids), labels, indices))
    assert [x.dtype for x in found.inputs] == [torch.float32, torch.int64]
    image[1, 2, 3, 4], ids[1, 1], labels[1] = 7, 8, 9
    assert (found.inputs[0][1, 2, 3, 4], found.inputs[1][1, 1]) == (7, 8)
    assert found.labels is not None
    assert found.labels.tolist() == [0, 9]
    assert found.indices is indices
    assert tensors(Batch((image,))).labels is None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.uint16, np.bool_])
def test_tensors_of_arrays_that_torch_cannot_share(dtype: type) -> None:
    values = np.arange(24).reshape(2, 3, 4) % 2
    frozen = values.astype(dtype)
    frozen.flags.writeable = False
    for array in (frozen, values.astype(dtype)[:, ::-1], values.astype(dtype).transpose(0, 2, 1)):
        (tensor,) = tensors(Batch((array,))).inputs
        assert tensor.is_contiguous()
        assert str(tensor.dtype) == f"torch.{np.dtype(dtype).name}"
        assert tensor.tolist() == array.tolist()


@pytest.mark.parametrize("mean", [None, [0.5]])
def test_images_of_one_channel_stay_channels_last(tmp_path: Path, mean: list[float] | None) -> None:
    """Which kernels torch chooses, and so the last bits of a training, follows from these strides."""
    np.savez(tmp_path / "d.npz", x=np.zeros((4, 8, 6, 1), np.uint8))
    source = open_data(str(tmp_path / "d.npz"), [InputSpec("x", (None, 1, 8, 6), "float32")], mean=mean)
    assert tensors(next(source.batches(4))).inputs[0].stride() == (48, 1, 6, 1)


# -- sentences --------------------------------------------------------------------------------------


def refused(spec: object, inputs: Any = (IMAGE,), **options: Any) -> str:
    """The sentence for data that cannot be used."""
    with pytest.raises(GraphpruneError) as caught:
        list(open_data(str(spec), inputs, **options).batches(2, drop_last=False))
    text = str(caught.value)
    assert "\n" not in text
    assert isinstance(caught.value, DataError | OptionError)
    return text


OK = np.zeros((4, 3, 8, 6), np.float32)


@pytest.mark.parametrize(
    ("arrays", "inputs", "sentence"),
    [
        (
            {"image": OK, "other": OK, "labels": np.zeros(4)},
            [IMAGE],
            "has no array 'input' (it has 'image', 'other', 'labels'): name the arrays like the model's inputs",
        ),
        (
            {"ids": np.zeros((4, 4), int), "maks": OK},
            TOKENS,
            "has no array 'mask' (it has 'ids', 'maks'): rename",
        ),
        ({}, [IMAGE], "has no array 'input' (it has none)"),
        ({"labels": np.zeros(4)}, [IMAGE], "has no array 'input'"),
        (
            {"input": np.zeros((4, 3, 9, 6), np.float32)},
            [IMAGE],
            "array 'input' in {path} has samples of shape 3x9x6, but input 'input' takes 3x8x6: store them in that",
        ),
        ({"input": OK[:, :2]}, [IMAGE], "has samples of shape 2x8x6"),
        ({"input": OK[0, 0]}, [IMAGE], "has samples of shape 6"),
        (
            {"input": OK, "labels": np.zeros(3, int)},
            [IMAGE],
            "counts of samples in {path} differ (4 of 'input', 3 of 'labels')",
        ),
        ({"input": OK[:0]}, [IMAGE], "holds no samples"),
        (
            {"input": OK.astype(np.int64)},
            [IMAGE],
            "holds int64, but input 'input' takes float32: store it as floats",
        ),
        ({"input": OK.astype(complex)}, [IMAGE], "holds complex128, but input 'input' takes float32"),
        ({"input": OK.astype(str)}, [IMAGE], "but input 'input' takes float32"),
        ({"input": np.float32(1)}, [IMAGE], "array 'input' in {path} is a single number"),
        ({"input": OK, "labels": np.array(list("abcd"))}, [IMAGE], "'labels' in {path} holds str"),
        (
            {"x": np.zeros((4, 4))},
            [InputSpec("x", (1, 4), "int64")],
            "holds float64, but input 'x' takes int64",
        ),
        (
            {"x": np.zeros((4, 4))},
            [InputSpec("x", (1, 4), "bool")],
            "holds float64, but input 'x' takes bool",
        ),
        (
            {"x": np.zeros((4, 4))},
            [InputSpec("x", (1, 4), "string")],
            "input 'x' takes string, which training data",
        ),
        (
            {"x": np.full((4, 4), 2**40)},
            [InputSpec("x", (1, 4), "int32")],
            "goes from 1099511627776 to 1099511627776, which int32 cannot hold",
        ),
        (
            {"input_u8": OK.astype(np.uint8), "mean": np.zeros(2), "std": np.ones(2)},
            [IMAGE],
            "there are 2 means and deviations, but samples of array 'input_u8' in {path} have shape 3x8x6",
        ),
        (
            {"input_u8": OK.astype(np.uint8), "mean": np.full(3, 120.0), "std": np.ones(3)},
            [IMAGE],
            "holds bytes, which are scaled to 0..1 before the mean 120,120,120 is subtracted: divide",
        ),
        (
            {"input": OK, "mean": np.zeros(3), "std": np.zeros(3)},
            [IMAGE],
            "deviations positive, one per channel",
        ),
        (
            {"input": OK, "mean": np.array(["a"]), "std": np.ones(1)},
            [IMAGE],
            "must be numbers, one per channel",
        ),
    ],
)
def test_arrays_that_do_not_fit(
    tmp_path: Path, arrays: dict[str, np.ndarray], inputs: Any, sentence: str
) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, **arrays)
    assert sentence.replace("{path}", str(path)) in refused(path, inputs)
    # the same file as the only shard of a folder
    shutil.move(path, tmp_path / "s.npz")
    assert sentence.replace("{path}", str(tmp_path / "s.npz")) in refused(tmp_path, inputs)


def test_files_that_are_not_data(tmp_path: Path, npz: Path) -> None:
    assert "nowhere.npz does not exist: give a .npz file, a folder" in refused(tmp_path / "nowhere.npz")
    (tmp_path / "model.onnx").write_bytes(b"x")
    assert "model.onnx is neither a .npz file nor a folder" in refused(tmp_path / "model.onnx")
    whole = npz.read_bytes()
    for content in (b"", b"text", whole[:-200], whole[:100] + bytes(300) + whole[400:]):
        npz.write_bytes(content)
        assert f"cannot read {npz}" in refused(npz)
    np.savez(npz, input=np.array([None, "x"], object))
    assert "input 'input' takes" in refused(npz)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # numpy parses the damaged header as Python
def test_any_damage_is_one_sentence(tmp_path: Path) -> None:
    np.savez(tmp_path / "whole.npz", input_u8=pixels(2), labels=np.arange(2))
    np.save(tmp_path / "whole.npy", pixels(2))
    rng = np.random.default_rng(0)
    (tmp_path / "s").mkdir()
    for suffix, reach in ((".npz", None), (".npy", 128)):
        whole = (tmp_path / f"whole{suffix}").read_bytes()
        path = tmp_path / "s" / f"x{suffix}"
        sentences = []
        for _ in range(300):
            damaged = bytearray(whole)
            for place in rng.integers(reach or len(whole), size=3):
                damaged[place] = rng.integers(256)
            path.write_bytes(damaged)
            try:
                list(open_data(str(tmp_path / "s"), [IMAGE]).batches(2))
            except (DataError, OptionError) as error:
                sentences.append(str(error))
        assert len(sentences) > 100
        assert not any("\n" in sentence for sentence in sentences)
        path.unlink()


@pytest.mark.parametrize(
    ("options", "inputs", "sentence"),
    [
        ({"std": [0.0]}, [IMAGE], "--mean and --std: means must be finite and deviations positive"),
        ({"mean": [float("nan")]}, [IMAGE], "--mean and --std: means must be finite"),
        ({"mean": [0.1, 0.2], "std": [1, 1, 1]}, [IMAGE], "2 means and 3 deviations"),
        ({"mean": [0.1, 0.2]}, [IMAGE], "there are 2 means and deviations, but samples"),
        ({"mean": [123.0]}, [IMAGE], "divide mean and deviation by 255"),
        ({"mean": [0.1]}, TOKENS, "--mean and --std are for inputs of floats, and the model has none"),
        ({"resize": (4, 4)}, [IMAGE], "--resize 4,4 is for folders of images, and"),
    ],
)
def test_options_that_do_not_fit(npz: Path, options: dict[str, Any], inputs: Any, sentence: str) -> None:
    assert sentence in refused(npz, inputs, **options)


def test_resize_to_the_size_that_arrays_have_is_fine(npz: Path) -> None:
    assert open_data(str(npz), [IMAGE], resize=(6, 8)).size == SAMPLES


def test_folders_that_do_not_fit(tmp_path: Path, image_folder: Path, shard_folder: Path) -> None:
    free = InputSpec("input", (None, 3, None, None), "float32")
    assert "give --resize WIDTH,HEIGHT" in refused(image_folder, [free])
    assert "input 'input' takes 6x8: leave --resize out" in refused(image_folder, resize=(4, 8))
    assert "width and height must be 1 or more" in refused(image_folder, [free], resize=(0, 4))
    four = InputSpec("input", (None, 4, 8, 6), "float32")
    assert "takes 'input' (4x8x6): one input of 1 or 3 channels" in refused(image_folder, [four])
    assert "takes 'ids' (4), 'mask' (4)" in refused(image_folder, TOKENS)
    whole = InputSpec("input", (None, 3, 8, 6), "int64")
    assert next(open_data(str(image_folder), [whole]).batches(2)).inputs[0].dtype == np.int64

    empty = tmp_path / "empty"
    empty.mkdir()
    assert f"{empty} holds neither images nor .npy or .npz shards" in refused(empty)
    assert f"{tmp_path / 'empty'} holds no images" in refused(tmp_path)  # images/ has only folders, too
    Image.new("RGB", (6, 8)).save(image_folder / "stray.png")
    assert "holds images, and sub-folders with images" in refused(image_folder)
    Image.new("RGB", (6, 8)).save(shard_folder / "stray.png")
    assert "holds both images and .npy or .npz shards" in refused(shard_folder)


def test_a_folder_of_splits_is_not_taken_for_classes(tmp_path: Path, image_folder: Path) -> None:
    (tmp_path / "set").mkdir()
    for split in ("train", "val"):
        shutil.copytree(image_folder, tmp_path / "set" / split)
    assert "train holds no images: give the folder whose sub-folders are the classes" in refused(
        tmp_path / "set"
    )


def test_shards_that_differ(shard_folder: Path) -> None:
    path = shard_folder / "2.npz"
    images, labels = pixels(3), np.zeros(3, int)
    for arrays, sentence in (
        ({"input_u8": images}, f"{path} has no labels, but other shards have"),
        ({"input": images, "labels": labels}, f"{path} holds 'input' (3x8x6, bytes), labels"),
        ({"input_u8": images / 255, "labels": labels}, f"{path} holds 'input_u8' (3x8x6), labels (()"),
        ({"input_u8": images, "labels": np.zeros((3, 8, 6), int)}, "labels (8x6, int64)"),
        ({"input_u8": images, "labels": np.zeros(3)}, "labels ((), float64)"),
    ):
        np.savez(path, **arrays)
        assert sentence in refused(shard_folder)
    np.save(shard_folder / "x.npy", np.zeros((2, 4), int))
    for name in ("0", "1", "2", "3"):
        (shard_folder / f"{name}.npz").unlink()
    assert "feeds one input, but the model has 2" in refused(shard_folder, TOKENS)


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("import nothing_of_the_kind", "No module named 'nothing_of_the_kind'"),
        ("other = 1", "has no function make"),
        ("def make():\n    raise RuntimeError('no disk')", "failed with RuntimeError: no disk"),
        ("def make():\n    return 3", "returned a int: return a DataLoader"),
        ("def make():\n    return iter([torch.zeros(2, 3, 8, 6)])", "which can be read only once"),
        ("def make():\n    return []", "gives no batches"),
        ("def make():\n    return 1, 2, 3", "returned a tuple of 3"),
        ("def make():\n    return {'eval': []}", "has no data for 'train'"),
        ("def make():\n    return [(1, 2, 3)]", "has 3 parts, but the model has 1 inputs"),
        ("def make():\n    return ['text']", "'input' in a batch of python:"),
        ("def make():\n    return [{'a': 1, 'b': 2}]", "has no array 'input' (it has 'a', 'b')"),
        ("def make():\n    return [torch.tensor(1.)]", "is a single number"),
        (
            "def make():\n    return [torch.zeros(3, 8, 6)]",
            "has samples of shape 8x6, but input 'input' takes",
        ),
        ("def make():\n    return [torch.zeros(2, 3, 8, 6).long()]", "holds int64, but input 'input' takes"),
        (
            "def make():\n    return [(torch.zeros(2, 3, 8, 6), torch.zeros(3))]",
            "different counts of samples (2, 3)",
        ),
    ],
)
def test_factories_that_do_not_fit(module: Callable[[str], str], code: str, sentence: str) -> None:
    spec = module(code)
    text = refused(spec)
    assert sentence in text
    assert spec.split(":")[1] in text


def test_factories_that_cannot_be_found() -> None:
    assert "No module named 'no_such_module_of_ours'" in refused("python:no_such_module_of_ours:make")
    assert "write python:package.module:function" in refused("python:os")


def test_labels_out_of_range() -> None:
    check_labels(torch.arange(10), 10)
    check_labels(torch.tensor([[[0, 9, 255, -1, 10]]]), 10)  # pixels without a class
    with pytest.raises(
        DataError, match=r"label 10 is out of range: the model has 10 classes, .* from 0 to 9"
    ):
        check_labels(torch.tensor([0, 10]), 10)
    for wrong in (torch.tensor([-1]), torch.tensor([255]), torch.tensor([[[11]]])):
        with pytest.raises(DataError, match="is out of range"):
            check_labels(wrong, 10)
    with pytest.raises(DataError, match="labels hold float32 instead of class numbers"):
        check_labels(torch.zeros(3), 10)


# -- augmentation -----------------------------------------------------------------------------------


def test_light_augmentation_is_a_mirror_and_a_crop_of_the_reflected_border() -> None:
    images = torch.randn(40, 3, 9, 7)
    moves = draw(40, torch.Generator().manual_seed(0))
    moved = move(images, moves)
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (REACH, REACH), (REACH, REACH)), mode="reflect")
    mirrored = np.pad(
        images.numpy()[..., ::-1], ((0, 0), (0, 0), (REACH, REACH), (REACH, REACH)), mode="reflect"
    )
    for i in range(40):
        whole = mirrored if moves.mirror[i] else padded
        top, left = REACH - int(moves.down[i]), REACH - int(moves.right[i])
        assert np.array_equal(moved[i], whole[i, :, top : top + 9, left : left + 7])
    assert torch.equal(light(images, torch.Generator().manual_seed(0)), moved)
    assert not torch.equal(light(images, torch.Generator().manual_seed(1)), moved)


def test_every_move_occurs() -> None:
    moves = draw(2000, torch.Generator().manual_seed(0))
    counts = torch.bincount(moves.mirror.long() * 25 + (moves.down + 2) * 5 + moves.right + 2)
    assert counts.shape == (50,)
    assert counts.min() > 15  # 40 are expected


def test_labels_of_pixels_move_with_the_image() -> None:
    labels = torch.randint(0, 5, (30, 9, 7))
    moves = draw(30, torch.Generator().manual_seed(3))
    found = move_labels(labels, moves)
    image = move(labels[:, None].float(), moves)[:, 0].long()
    inside = found != 255
    assert torch.equal(found[inside], image[inside])
    expected = (9 - moves.down.abs()) * (7 - moves.right.abs())
    assert torch.equal(inside.sum((1, 2)), expected)


def test_small_and_unfit_tensors() -> None:
    tiny = torch.arange(8.0).reshape(4, 1, 2, 1)
    assert set(light(tiny, torch.Generator()).flatten().tolist()) <= set(range(8))
    for wrong in (torch.zeros(2, 3), torch.zeros(2, 3, 4, 4, dtype=torch.uint8)):
        with pytest.raises(OptionError, match="--augment none"):
            light(wrong, torch.Generator())
    assert augmentable(IMAGE)
    assert not any(augmentable(s) for s in TOKENS)
