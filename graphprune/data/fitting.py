"""From stored samples to a graph input: layout, number type, normalisation. Decided once, applied per batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from graphprune.data.samples import InputSpec
from graphprune.errors import DataError, OptionError

Axes = tuple[int | None, ...]
"""For every axis of a graph input the stored axis that it is; None is a new axis of size 1."""

NHWC_TO_NCHW: Axes = (0, 3, 1, 2)
_LAYOUTS: dict[int, tuple[Axes, ...]] = {
    4: ((0, 1, 2, 3), NHWC_TO_NCHW, (0, 2, 3, 1)),
    3: ((0, None, 1, 2), (0, 1, 2, None)),
}
"""Rank of a stored array -> what to try for an input of rank 4, best first."""


@dataclass(frozen=True)
class Normalisation:
    """``(x - mean) / std`` per channel, in the unit of the input: images of bytes are 0..1 by then.

    ``wanted``: asked for by the user, so it applies to stored floats as well; constants that merely lie
    beside the data belong to its bytes.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    wanted: bool = False

    @classmethod
    def of(
        cls,
        mean: Sequence[float] | np.ndarray | None,
        std: Sequence[float] | np.ndarray | None,
        where: str,
        *,
        wanted: bool = False,
    ) -> Normalisation | None:
        """None without either. Raises OptionError for numbers that cannot be meant; ``where`` names them."""
        if mean is None and std is None:
            return None
        try:
            means = _numbers([0.0] if mean is None else mean)
            stds = _numbers([1.0] if std is None else std)
        except ValueError as error:
            raise OptionError(f"{where}: means and deviations must be numbers, one per channel") from error
        if not means or not stds or not np.isfinite([*means, *stds]).all() or min(stds) <= 0:
            raise OptionError(f"{where}: means must be finite and deviations positive, one per channel")
        if len(means) != len(stds) and 1 not in (len(means), len(stds)):
            raise OptionError(
                f"{where}: {len(means)} means and {len(stds)} deviations: give one of each per channel"
            )
        return cls(means, stds, wanted)

    @property
    def channels(self) -> int:
        """How many there are; 1 serves any number of channels."""
        return max(len(self.mean), len(self.std))


def pictures(inputs: Sequence[InputSpec]) -> frozenset[str]:
    """The inputs that a normalisation is meant for: floats of rank 4, or all floats where there are none."""
    floats = [s for s in inputs if _kind(s.dtype) == "float"]
    return frozenset(s.name for s in [s for s in floats if len(s.shape) == 4] or floats)


def native(rows: np.ndarray) -> np.ndarray:
    """A stored array in this machine's byte order."""
    return rows.astype(rows.dtype.newbyteorder("="), copy=False)


def is_number(dtype: str) -> bool:
    """Whether data of this type can be used at all."""
    return _kind(dtype) != "other"


def _numbers(values: Sequence[float] | np.ndarray) -> tuple[float, ...]:
    return tuple(float(x) for x in np.asarray(values).reshape(-1))


@dataclass(frozen=True)
class Fit:
    """How stored samples become one graph input.

    sample: the shape of a sample as the input sees it. scale: bytes become 0..1. mean, std: float32,
    broadcast against what is stored.
    """

    spec: InputSpec
    axes: Axes
    sample: tuple[int, ...]
    scale: bool
    mean: np.ndarray | None
    std: np.ndarray | None

    def array(self, rows: np.ndarray) -> np.ndarray:
        """``[n, ...]`` as stored, which is left as it is -> ``[n, *sample]``, C-contiguous.

        Raises DataError for integers that do not fit.
        """
        values = (
            self._floats(native(rows)) if _kind(self.spec.dtype) == "float" else self._whole(native(rows))
        )
        # laid out last: images of one channel keep the strides of NHWC, which torch takes for channels-last
        laid_out = np.ascontiguousarray(values.transpose([a for a in self.axes if a is not None]))
        return laid_out.reshape(_laid_out(values.shape, self.axes))

    def _floats(self, stored: np.ndarray) -> np.ndarray:
        dtype = np.dtype(ml_dtypes.bfloat16 if self.spec.dtype == "bfloat16" else self.spec.dtype)
        with np.errstate(all="ignore"):  # what is too large becomes infinite, as in the network itself
            values: np.ndarray = stored.astype(np.float64 if dtype == np.float64 else np.float32, copy=False)
            if self.scale:
                values = values / 255
            if self.mean is not None and self.std is not None:
                values = (values - self.mean) / self.std
            return values.astype(dtype, copy=False)

    def _whole(self, stored: np.ndarray) -> np.ndarray:
        dtype = np.dtype(self.spec.dtype)
        if dtype == np.bool_ or stored.dtype in (dtype, np.bool_, np.uint8):
            return stored.astype(dtype, copy=False)
        values = stored.astype(np.int64, copy=False)
        limits = np.iinfo(dtype)
        if values.size and (values.min() < limits.min or values.max() > limits.max):
            raise DataError(
                f"the data for input {self.spec.name!r} goes from {values.min()} to {values.max()}, which"
                f" {self.spec.dtype} cannot hold: check what the array means"
            )
        return values.astype(dtype, copy=False)


def fit(
    spec: InputSpec,
    shape: tuple[int, ...],
    dtype: str,
    normalisation: Normalisation | None,
    where: str,
    *,
    axes: Axes | None = None,
) -> Fit:
    """How an array of ``shape`` ``(samples, ...)`` and ``dtype`` feeds ``spec``; ``where`` names the array.

    axes: the layout where it is known; otherwise the stored one, or NHWC <-> NCHW where only that fits.
    Raises DataError when it does not fit, OptionError for a normalisation that does not.
    """
    layout = axes or _layout(spec, shape, where)
    sample = _laid_out(shape, layout)[1:]
    scale = _scaled(spec, dtype, where)
    if normalisation is None or _kind(spec.dtype) != "float" or not (scale or normalisation.wanted):
        return Fit(spec, layout, sample, scale, None, None)
    if scale and (max(normalisation.mean) > 1 or min(normalisation.mean) < 0):
        raise OptionError(
            f"{where} holds bytes, which are scaled to 0..1 before the mean"
            f" {_list(normalisation.mean)} is subtracted: divide mean and deviation by 255"
        )
    mean = _spread(normalisation.mean, normalisation, sample, layout, where)
    std = _spread(normalisation.std, normalisation, sample, layout, where)
    return Fit(spec, layout, sample, scale, mean, std)


def _laid_out(shape: tuple[int, ...], axes: Axes) -> tuple[int, ...]:
    return tuple(1 if a is None else shape[a] for a in axes)


def _layout(spec: InputSpec, shape: tuple[int, ...], where: str) -> Axes:
    candidates: tuple[Axes, ...] = (tuple(range(len(shape))),) if len(shape) == len(spec.shape) else ()
    if len(spec.shape) == 4:
        candidates = _LAYOUTS.get(len(shape), ())
    for axes in candidates:
        sizes = zip(axes[1:], _laid_out(shape, axes)[1:], spec.sample, strict=True)
        if all(size == wanted or (wanted is None and axis is not None) for axis, size, wanted in sizes):
            return axes
    raise DataError(
        f"{where} has samples of shape {describe(shape[1:])}, but input {spec.name!r} takes"
        f" {describe(spec.sample)}: store them in that shape"
    )


def _scaled(spec: InputSpec, dtype: str, where: str) -> bool:
    """Whether stored numbers are bytes for a float input. Raises DataError for numbers it cannot take."""
    stored, wanted = _kind(dtype), _kind(spec.dtype)
    takes = {
        "float": ("float", "byte"),
        "byte": ("byte", "whole", "bool"),
        "whole": ("byte", "whole", "bool"),
        "bool": ("bool",),
    }
    if wanted not in takes:
        raise DataError(f"input {spec.name!r} takes {spec.dtype}, which training data cannot be")
    if stored not in takes[wanted]:
        advice = "floats, or bytes (uint8) for images" if wanted == "float" else spec.dtype
        raise DataError(
            f"{where} holds {dtype}, but input {spec.name!r} takes {spec.dtype}: store it as {advice}"
        )
    return wanted == "float" and stored == "byte"


def _kind(dtype: str) -> str:
    if dtype in ("float16", "float32", "float64", "bfloat16"):
        return "float"
    if dtype in ("int8", "int16", "int32", "int64", "uint16", "uint32", "uint64"):
        return "whole"
    return {"uint8": "byte", "bool": "bool"}.get(dtype, "other")


def _spread(
    values: tuple[float, ...], normalisation: Normalisation, sample: tuple[int, ...], axes: Axes, where: str
) -> np.ndarray:
    """``values`` along the axis of channels: the first of a sample, or the last where only that fits."""
    array = np.array(values, np.float32)
    count = normalisation.channels
    if count == 1:
        return array
    for axis in (0, len(sample) - 1):
        if sample and sample[axis] == count:
            rank = sum(a is not None for a in axes)
            return array.reshape([-1 if i == axes[axis + 1] else 1 for i in range(rank)])
    raise OptionError(
        f"there are {count} means and deviations, but samples of {where} have shape {describe(sample)}:"
        " give one per channel, or one for all"
    )


def describe(shape: Sequence[int | None]) -> str:
    """``3x32x32``, with ``?`` for a dynamic size."""
    return "x".join("?" if size is None else str(size) for size in shape) or "()"


def _list(values: Sequence[float]) -> str:
    return ",".join(f"{v:g}" for v in values)
