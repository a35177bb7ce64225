"""Light augmentation: mirrored images, moved by up to two pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from graphprune.data.samples import InputSpec
from graphprune.errors import OptionError
from graphprune.search.class_labels import IGNORE

REACH = 2
"""Pixels that an image moves at most, in each direction."""


@dataclass(frozen=True)
class Moves:
    """What happens to every image: mirrored from left to right (bool ``[n]``), then moved by ``down`` and
    ``right`` pixels (int64 ``[n]``, from -REACH to REACH)."""

    mirror: torch.Tensor
    down: torch.Tensor
    right: torch.Tensor


def augmentable(spec: InputSpec) -> bool:
    """Whether an input can be augmented: floats of rank 4, which are taken to be NCHW images."""
    return len(spec.shape) == 4 and spec.dtype.startswith(("float", "bfloat"))


def light(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A mirror with probability 1/2 and a crop of the reflected border, drawn for every image.

    images: floats ``[n, c, h, w]``, left as they are. Raises OptionError for anything else.
    """
    return move(images, draw(len(images), generator))


def draw(count: int, generator: torch.Generator) -> Moves:
    """Moves of ``count`` images."""
    mirror, down, right = (
        torch.randint(0, end, (count,), generator=generator, device=generator.device)
        for end in (2, 2 * REACH + 1, 2 * REACH + 1)
    )
    return Moves(mirror.bool(), down - REACH, right - REACH)


def move(images: torch.Tensor, moves: Moves) -> torch.Tensor:
    """floats ``[n, c, h, w]`` -> the same, moved; what comes in from outside is the reflection of what is near.

    An axis too short to be reflected repeats its border. Raises OptionError for other tensors.
    """
    if images.ndim != 4 or not images.is_floating_point():
        raise OptionError("augmentation is for images of floats (NCHW): choose --augment none")
    rows = _reflected(_sources(images.shape[2], moves.down), images.shape[2]).to(images.device)
    columns = _reflected(_sources(images.shape[3], moves.right), images.shape[3]).to(images.device)
    columns = _mirrored(columns, moves.mirror)
    count, channels, height, width = images.shape
    moved = images.gather(2, rows[:, None, :, None].expand(count, channels, height, width))
    return moved.gather(3, columns[:, None, None, :].expand(count, channels, height, width))


def move_labels(labels: torch.Tensor, moves: Moves) -> torch.Tensor:
    """Classes of pixels, int64 ``[n, h, w]`` in the size of the images, moved with them.

    What comes in from outside is IGNORE.
    """
    _, height, width = labels.shape
    rows = _sources(height, moves.down).to(labels.device)
    columns = _sources(width, moves.right).to(labels.device)
    inside = _within(rows, height)[:, :, None] & _within(columns, width)[:, None, :]
    columns = _mirrored(columns.clamp(0, width - 1), moves.mirror)
    moved = labels.gather(1, rows.clamp(0, height - 1)[:, :, None].expand_as(labels))
    return moved.gather(2, columns[:, None, :].expand_as(labels)).where(inside, IGNORE)


def _sources(size: int, moved: torch.Tensor) -> torch.Tensor:
    """int64 ``[n, size]``: where along an axis every pixel comes from; it may lie outside."""
    return torch.arange(size, device=moved.device) - moved[:, None]


def _within(positions: torch.Tensor, size: int) -> torch.Tensor:
    return (positions >= 0) & (positions < size)


def _reflected(positions: torch.Tensor, size: int) -> torch.Tensor:
    if size > REACH:
        positions = positions.abs()
        positions = torch.where(positions < size, positions, 2 * (size - 1) - positions)
    return positions.clamp(0, size - 1)


def _mirrored(columns: torch.Tensor, mirror: torch.Tensor) -> torch.Tensor:
    """The image is mirrored before it is moved, so its columns count from the other side."""
    return torch.where(mirror.to(columns.device)[:, None], columns.shape[1] - 1 - columns, columns)
