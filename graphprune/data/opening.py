"""Opening the data that a user names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from graphprune.data.arrays import open_npz
from graphprune.data.factories import open_factory
from graphprune.data.fitting import Normalisation, describe, pictures
from graphprune.data.images import is_image, open_images
from graphprune.data.samples import InputSpec, Source
from graphprune.data.shards import SUFFIXES, open_shards
from graphprune.errors import DataError, OptionError
from graphprune.python_functions import PREFIX


def open_data(
    spec: str,
    inputs: Sequence[InputSpec],
    *,
    resize: tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    which: str = "train",
) -> Source:
    """The data ``spec`` for a graph with these inputs.

    spec: a .npz file with arrays named like the inputs and perhaps ``labels``; a folder of images, or of
    one sub-folder per class; a folder of .npy or .npz shards; or python:package.module:factory.
    resize: width, height of images. mean, std: one number per channel, or one for all, applied to images
    in 0..1 (to which bytes are scaled) and to arrays of floats. which: "train" or "eval", the part of
    what a factory returns.

    Files are read when batches are. Raises DataError, OptionError.
    """
    wanted = Normalisation.of(mean, std, "--mean and --std", wanted=True)
    if wanted is not None and not pictures(inputs):
        raise OptionError("--mean and --std are for inputs of floats, and the model has none: leave them out")
    path = Path(spec)
    images = False
    source: Source
    if spec.startswith(PREFIX):
        source = open_factory(spec, inputs, wanted, which)
    elif path.is_dir():
        files = _listing(path)
        shards = [p for p in files if p.suffix in SUFFIXES]
        images = not shards
        if shards and any(is_image(p) for p in files):
            raise DataError(f"{path} holds both images and .npy or .npz shards: keep one kind in a folder")
        if shards:
            source = open_shards(path, shards, inputs, wanted)
        else:
            source = open_images(path, inputs, resize, wanted)
    elif path.suffix == ".npz" and path.is_file():
        source = open_npz(path, inputs, wanted)
    else:
        problem = "is neither a .npz file nor a folder" if path.exists() else "does not exist"
        raise DataError(
            f"{spec} {problem}: give a .npz file, a folder of images or of .npy or .npz shards, or"
            " python:package.module:factory"
        )
    if resize is not None and not images:
        _check_resize(source, resize)
    return source


def _listing(folder: Path) -> list[Path]:
    try:
        return [p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")]
    except OSError as error:
        raise DataError(
            f"cannot read the folder {folder} ({error.strerror}): check its permissions"
        ) from error


def _check_resize(source: Source, resize: tuple[int, int]) -> None:
    """Raises OptionError where --resize cannot be obeyed: only images are scaled."""
    width, height = resize
    for name, shape in source.shape().items():
        if len(shape) == 3 and (height, width) not in (shape[1:], shape[:2]):
            raise OptionError(
                f"--resize {width},{height} is for folders of images, and {source.name} holds {describe(shape)}"
                f" for input {name!r}: leave it out"
            )
