"""A folder of images as data: decoded when a batch needs them. Needs Pillow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from graphprune.data.fitting import NHWC_TO_NCHW, Axes, Fit, Normalisation, describe, fit
from graphprune.data.indexed import IndexedSource
from graphprune.data.samples import Batch, InputSpec
from graphprune.data.sentences import reason
from graphprune.errors import DataError, OptionError

SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
_MODES = {1: "L", 3: "RGB"}
"""Channels -> Pillow's name for such an image."""


class ImageSource(IndexedSource):
    """Images brought to one size. size: width, height. labels: int64 ``[samples]``, the class of each."""

    def __init__(
        self,
        folder: Path,
        files: Sequence[Path],
        labels: np.ndarray | None,
        size: tuple[int, int],
        fitted: Fit,
    ) -> None:
        super().__init__(str(folder), len(files), labelled=labels is not None)
        self._files = tuple(files)
        self._labels = labels
        self._size = size
        self._mode = _MODES[fitted.sample[0] if fitted.axes == NHWC_TO_NCHW else fitted.sample[-1]]
        self._fit = fitted

    def shape(self) -> dict[str, tuple[int, ...]]:
        """See Source."""
        return {self._fit.spec.name: self._fit.sample}

    def take(self, indices: np.ndarray) -> Batch:
        """See IndexedSource."""
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            pixels = np.stack(list(pool.map(self._decode, indices)))
        labels = None if self._labels is None else self._labels[indices]
        return Batch((self._fit.array(pixels),), labels, indices)

    def _decode(self, index: int) -> np.ndarray:
        """uint8 ``[height, width, channels]``."""
        from PIL import Image

        path = self._files[index]
        try:
            with Image.open(path) as image:
                deep = image.mode.startswith(("I", "F"))
                converted = image.convert(self._mode)
            if converted.size != self._size:
                converted = converted.resize(self._size, Image.Resampling.BILINEAR)
        except Exception as error:  # a damaged file makes Pillow raise almost anything
            raise DataError(
                f"cannot read the image {path} ({reason(error)}): replace or remove it"
            ) from error
        if deep:
            raise DataError(f"{path} has more than 8 bits per channel: convert it to 8 bits")
        pixels = np.asarray(converted)
        return pixels[..., None] if pixels.ndim == 2 else pixels


def open_images(
    folder: Path,
    inputs: Sequence[InputSpec],
    resize: tuple[int, int] | None,
    wanted: Normalisation | None,
) -> ImageSource:
    """Images directly in ``folder`` (no labels), or in one sub-folder per class.

    Classes are numbered in the order of the sorted names, as torchvision's ImageFolder does. Images are
    scaled to ``resize`` (width, height) or the size that the model takes, whatever their proportions.
    Raises DataError, OptionError.
    """
    try:
        import PIL.Image  # noqa: F401 - asked for now, not at the first batch
    except ImportError as error:
        raise DataError(f"reading the images in {folder} needs Pillow: pip install pillow") from error
    spec, axes, channels = _image_input(inputs, folder)
    size = _size(spec, axes, resize)
    files, labels = _find(folder)
    shape = (len(files), size[1], size[0], channels)
    return ImageSource(
        folder, files, labels, size, fit(spec, shape, "uint8", wanted, f"images in {folder}", axes=axes)
    )


def is_image(path: Path) -> bool:
    """Whether the name is that of an image."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _image_input(inputs: Sequence[InputSpec], folder: Path) -> tuple[InputSpec, Axes, int]:
    """The only input, the layout from NHWC to its own, and its channels."""
    if len(inputs) == 1 and len(inputs[0].shape) == 4:
        spec = inputs[0]
        first, last = spec.shape[1], spec.shape[3]
        if first in _MODES or (first is None and last not in _MODES):
            return spec, NHWC_TO_NCHW, first or 3
        if last in _MODES:
            return spec, (0, 1, 2, 3), last or 3
    takes = ", ".join(f"{s.name!r} ({describe(s.sample)})" for s in inputs)
    raise DataError(
        f"the images in {folder} cannot feed a model that takes {takes}: one input of 1 or 3 channels is"
        " needed; store arrays in a .npz file instead"
    )


def _size(spec: InputSpec, axes: Axes, resize: tuple[int, int] | None) -> tuple[int, int]:
    """Width and height of the images."""
    height, width = spec.shape[2:] if axes == NHWC_TO_NCHW else spec.shape[1:3]
    if resize is None:
        if width is None or height is None:
            raise OptionError(f"input {spec.name!r} takes images of any size: give --resize WIDTH,HEIGHT")
        return width, height
    if min(resize) < 1:
        raise OptionError(f"--resize {resize[0]},{resize[1]}: width and height must be 1 or more")
    if width not in (None, resize[0]) or height not in (None, resize[1]):
        raise OptionError(
            f"--resize {resize[0]},{resize[1]} (width, height), but input {spec.name!r} takes"
            f" {describe((width, height))}: leave --resize out, or give that size"
        )
    return resize


def _find(folder: Path) -> tuple[list[Path], np.ndarray | None]:
    """Files in a fixed order, and the class of each where there are classes."""
    direct = sorted(p for p in folder.iterdir() if is_image(p))
    classes = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    inside = [sorted(p for p in c.iterdir() if is_image(p)) for c in classes]
    found = sum(len(files) for files in inside)
    if direct and found:
        raise DataError(
            f"{folder} holds images, and sub-folders with images: keep the sub-folders, one per class, or"
            " the images"
        )
    if direct:
        return direct, None
    for path, files in zip(classes, inside, strict=True):
        if not files:
            raise DataError(
                f"{path} holds no images: give the folder whose sub-folders are the classes, without empty ones"
            )
    if not found:
        raise DataError(
            f"{folder} holds neither images nor .npy or .npz shards: give a folder that does"
            f" (images end with {' '.join(sorted(SUFFIXES))})"
        )
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in inside])
    return [p for files in inside for p in files], labels
