"""``python:package.module:factory`` as data: batches of a user's own loader, taken as they come."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from graphprune.data.columns import LABELS, match, to_labels
from graphprune.data.fitting import Normalisation, fit, pictures
from graphprune.data.order import generator, share
from graphprune.data.randomness import Randomness
from graphprune.data.samples import Batch, InputSpec
from graphprune.data.sentences import reason
from graphprune.errors import DataError
from graphprune.python_functions import import_function

FLAGS = {"train": "--data", "eval": "--eval-data"}


class LoaderSource:
    """A DataLoader, or anything else that can be iterated over once per epoch.

    It decides about batch size, order and leftovers itself: ``batch_size`` and ``shuffle`` change
    nothing, and ``drop_last`` only says whether every process must get a part of every batch. Its random
    numbers follow from (seed, epoch), except those of workers that it keeps between epochs. Skipped
    batches are read and thrown away.
    """

    def __init__(
        self, name: str, loader: Any, inputs: Sequence[InputSpec], wanted: Normalisation | None
    ) -> None:
        self.name = name
        self.size = _samples(loader)
        self._loader = loader
        self._reader = _Reader(name, inputs, wanted)
        first = next(self._read(0, 0), None)
        if first is None:
            raise DataError(f"{name} gives no batches: give data that is not empty")
        batch = self._reader.batch(first)
        self.labelled = batch.labels is not None
        self._shape = {s.name: tuple(t.shape[1:]) for s, t in zip(inputs, batch.inputs, strict=True)}

    def shape(self) -> dict[str, tuple[int, ...]]:
        """See Source; that of the first batch."""
        return dict(self._shape)

    def length(self, batch_size: int, *, drop_last: bool = True) -> int | None:
        """See Source."""
        try:
            return len(self._loader)
        except TypeError:
            return None

    def batches(
        self,
        batch_size: int,
        *,
        epoch: int = 0,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
        rank: int = 0,
        world: int = 1,
        skip: int = 0,
    ) -> Iterator[Batch]:
        """See Source; a loader with torch's DistributedSampler divides the samples itself."""
        divided = _is(
            getattr(self._loader, "sampler", None), "torch.utils.data.distributed.DistributedSampler"
        )
        for number, raw in enumerate(self._read(seed, epoch)):
            if number < skip:
                continue
            batch = self._reader.batch(raw)
            if not divided:
                batch = self._part(batch, rank, world, every=drop_last)
            if len(batch.inputs[0]):
                yield batch

    def _part(self, batch: Batch, rank: int, world: int, *, every: bool) -> Batch:
        """What ``rank`` gets of a batch; ``every`` process must get something."""
        rows = len(batch.inputs[0])
        if every and rows < world:
            raise DataError(
                f"a batch of {self.name} has {rows} samples, too few for {world} processes: choose a larger"
                " batch_size and drop_last=True for the loader"
            )
        mine = share(rows, rank, world)
        labels = None if batch.labels is None else batch.labels[mine]
        return Batch(tuple(t[mine] for t in batch.inputs), labels)

    def _read(self, seed: int, epoch: int) -> Iterator[Any]:
        """The loader's own batches."""
        own = Randomness(seed, epoch)
        parts = [self._loader, *(getattr(self._loader, n, None) for n in ("sampler", "batch_sampler"))]
        for part in parts:
            stream: Any = getattr(part, "generator", None)
            set_epoch = getattr(part, "set_epoch", None)
            if _is(stream, "torch.Generator"):
                stream.manual_seed(int(generator(seed, epoch).integers(2**32)))
            if callable(set_epoch):
                set_epoch(epoch)
        with own.running():
            iterator = iter(self._loader)
        end = object()
        while True:
            with own.running():
                raw = next(iterator, end)
            if raw is end:
                return
            yield raw


class _Reader:
    """From what a loader gives to a Batch."""

    def __init__(self, name: str, inputs: Sequence[InputSpec], wanted: Normalisation | None) -> None:
        self._name = name
        self._inputs = tuple(inputs)
        self._wanted = wanted
        self._pictures = pictures(inputs)

    def batch(self, raw: Any) -> Batch:
        """Raises DataError for anything but the forms that ``open_factory`` names."""
        values, labels = self._split(raw)
        arrays = tuple(self._input(s, v) for s, v in zip(self._inputs, values, strict=True))
        target = None if labels is None else to_labels(self._array(labels, LABELS))
        counts = {len(a) for a in (*arrays, *(() if target is None else (target,)))}
        if len(counts) > 1:
            raise DataError(
                f"a batch of {self._name} holds different counts of samples"
                f" ({', '.join(map(str, sorted(counts)))}): give one label and one of each input per sample"
            )
        return Batch(arrays, target)

    def _split(self, raw: Any) -> tuple[tuple[Any, ...], Any]:
        """One value per graph input, and the labels."""
        if isinstance(raw, Mapping):
            names = match(raw, self._inputs, f"a batch of {self._name}")
            return tuple(raw[n] for n in names), None if LABELS in names else raw.get(LABELS)
        if not isinstance(raw, tuple | list):
            raw = (raw,)
        count = len(self._inputs)
        if len(raw) == 2 and isinstance(raw[0], Mapping | tuple | list):
            values, labels = self._split(raw[0])
            return values, raw[1] if labels is None else labels
        if len(raw) == count:
            return tuple(raw), None
        if len(raw) == count + 1:
            return tuple(raw[:count]), raw[count]
        raise DataError(
            f"a batch of {self._name} has {len(raw)} parts, but the model has {count} inputs: give the inputs"
            " in their order, (inputs, labels), or a dict by input name"
        )

    def _input(self, spec: InputSpec, value: Any) -> np.ndarray:
        array = self._array(value, spec.name)
        wanted = self._wanted if spec.name in self._pictures else None
        where = f"{spec.name!r} in a batch of {self._name}"
        return fit(spec, array.shape, array.dtype.name, wanted, where).array(array)

    def _array(self, value: Any, what: str) -> np.ndarray:
        try:
            array = to_array(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataError(
                f"{what!r} in a batch of {self._name} is a {type(value).__name__}: give tensors"
            ) from error
        if not array.ndim:
            raise DataError(
                f"{what!r} in a batch of {self._name} is a single number: the first axis must count samples"
            )
        return array


def open_factory(
    spec: str, inputs: Sequence[InputSpec], wanted: Normalisation | None, which: str
) -> LoaderSource:
    """The loader that ``factory()`` returns, alone, in a tuple ``(train, eval)`` or a dict of these names.

    A batch may be a tensor (the only input), a tuple of one tensor per graph input, ``(inputs, labels)``,
    or a dict by input name with perhaps ``labels``. Raises DataError, OptionError.
    """
    factory = import_function(spec, FLAGS[which])
    try:
        made = factory()
    except Exception as error:
        raise DataError(f"{spec} failed with {reason(error)}") from error
    loader = made
    if isinstance(made, Mapping):
        loader = made.get(which)
    elif isinstance(made, tuple):
        if len(made) != 2:
            raise DataError(f"{spec} returned a tuple of {len(made)}: return a loader, or (train, eval)")
        loader = made[list(FLAGS).index(which)]
    if loader is None:
        raise DataError(
            f"{spec} has no data for {which!r}: return a loader, (train, eval) or a dict of these"
        )
    if not isinstance(loader, Iterable) or isinstance(loader, str) or _is(loader, "torch.Tensor"):
        raise DataError(f"{spec} returned a {type(loader).__name__}: return a DataLoader")
    if isinstance(loader, Iterator):
        raise DataError(
            f"{spec} returned a {type(loader).__name__}, which can be read only once: return a DataLoader, or a"
            " list of batches"
        )
    return LoaderSource(spec, loader, inputs, wanted)


def to_array(value: Any) -> np.ndarray:
    """A tensor of torch, an array or (nested) lists of numbers as an array, without a copy where it can be.

    Number types that numpy lacks (bfloat16) are those of ml_dtypes. Raises TypeError, ValueError or
    RuntimeError for anything else.
    """
    if hasattr(value, "detach"):
        tensor = value.detach().cpu()
        dtype = str(tensor.dtype).removeprefix("torch.")
        if hasattr(ml_dtypes, dtype):
            return np.asarray(tensor.float().numpy()).astype(getattr(ml_dtypes, dtype))
        return np.asarray(tensor.numpy())
    array = np.asarray(value)
    if array.dtype.kind not in "biufc" and not hasattr(ml_dtypes, array.dtype.name):
        raise TypeError(f"{array.dtype.name} is no number")
    return array


def _is(value: Any, kind_name: str) -> bool:
    """Whether ``value`` is of this class (``torch.Tensor``); where nobody has imported the module, nothing is."""
    module, _, name = kind_name.rpartition(".")
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(value, kind)


def _samples(loader: Any) -> int | None:
    """How many samples a loader reads, where it says so; a batch_sampler of the user's own does not."""
    if _is(loader, "torch.utils.data.DataLoader") and loader.batch_size is not None:
        try:
            return len(loader.sampler)
        except TypeError:
            return None
    return None
