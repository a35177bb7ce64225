"""A pruned model and its patterns -> a file in a chosen format, its metadata and its sidecar."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from graphprune.errors import own_bug
from graphprune.formats.registry import Finish, find_format
from graphprune.layouts import BlockLayout, Layout
from graphprune.notation import times
from graphprune.packed import Packed, pack, positive_zeros
from graphprune.running import computed_constants, top_level_values
from graphprune.sidecar import blocks_path, sidecar_bytes
from graphprune.writeback import stored_arrays, with_tensors
from graphprune.writing import save_model, to_proto

_KEYS = frozenset(f"graphprune.{word}" for word in ("structure", "block", "nm", "sparsity", "format"))


@dataclass(eq=False)
class Emitted:
    """A model in its file format.

    model: what onnx_ir can hold of it. weights: the patterned ones without their zeros. structure: ``block``,
    ``nm``, or "" where nothing is patterned. notes: sentences for the user.
    """

    model: ir.Model
    format: str
    structure: str
    weights: dict[str, Packed]
    notes: list[str] = field(default_factory=list)
    finish: Finish | None = None

    def to_onnx(self) -> onnx.ModelProto:
        """As a protobuf."""
        proto = to_proto(self.model)
        if self.finish is not None:
            self.finish(proto)
        return proto

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        force: bool = False,
        beside: Mapping[Path, bytes] | None = None,
        gone: Collection[Path] = (),
    ) -> Path:
        """Write the model and, where weights are patterned, its sidecar ``OUT.blocks.npz``: both or neither.

        ``beside``: more files that appear with them. ``gone``, and the sidecar of an older model at ``path``, go.
        Raises OptionError where one of them exists (unless ``force``) or cannot be written.
        """
        target = Path(path)
        sidecar = blocks_path(target)
        more: dict[Path, Callable[[Path], bytes]] = {p: _constant(c) for p, c in (beside or {}).items()}
        if self.weights:
            more[sidecar] = lambda model: sidecar_bytes(self.weights, self.structure, model)
        stale = [*gone, *([sidecar] if force and not self.weights else [])]
        return save_model(self.model, target, force=force, finish=self.finish, beside=more, gone=stale)


def _constant(content: bytes) -> Callable[[Path], bytes]:
    return lambda _: content


def emit(
    model: ir.Model, layouts: Mapping[str, Layout], format: str = "dense-zeros", *, pattern: str | None = None
) -> Emitted:
    """Bring a pruned model into a file format. ``model`` is left as it is; unchanged weights are shared.

    ``layouts``: name of a stored tensor -> its blocks or N:M groups, as ``layouts.written_layouts`` finds them.
    ``pattern`` is what the metadata calls the block or N:M pattern (as ``16x8x1x1``); by default the layouts'
    own. Negative zeros in patterned weights become positive ones.

    Raises OptionError for an unknown format, ModelError where a weight is not zero where its layout says so,
    FidelityError where a rebuilt weight is not the same bit for bit.
    """
    chosen = find_format(format)
    before = stored_arrays(model, layouts)
    after = {name: positive_zeros(array) for name, array in before.items()}
    weights = {name: pack(after[name], layout) for name, layout in layouts.items()}
    copy = with_tensors(model, {name: a for name, a in after.items() if a is not before[name]})
    for key in [k for k in copy.metadata_props if k in _KEYS]:  # of a file that was pruned before
        del copy.metadata_props[key]
    emitted = Emitted(copy, chosen.name, _structure(layouts), weights)
    if layouts:
        _record(copy, emitted, layouts, pattern, after)
        emitted.finish = chosen.store(copy, weights, emitted.notes)
        _prove(copy, after)
    return emitted


def _prove(model: ir.Model, arrays: Mapping[str, np.ndarray]) -> None:
    """Weights that the file's own nodes rebuild are the same, bit for bit. Raises FidelityError."""
    values = top_level_values(model.graph)
    nodes = {n: values[n].producer() for n in arrays if n in values}
    rebuilt = [n for n, node in nodes.items() if node is not None and node.op_type != "Constant"]
    for name, found in (computed_constants(model, rebuilt) if rebuilt else {}).items():
        wanted = arrays[name]
        if found.shape != wanted.shape or found.tobytes() != wanted.tobytes():
            raise own_bug(f"the file would not rebuild {name!r} bit for bit")


def _structure(layouts: Mapping[str, Layout]) -> str:
    if not layouts:
        return ""
    return "block" if any(isinstance(v, BlockLayout) for v in layouts.values()) else "nm"


def _record(
    model: ir.Model,
    emitted: Emitted,
    layouts: Mapping[str, Layout],
    pattern: str | None,
    arrays: Mapping[str, np.ndarray],
) -> None:
    sparsity = {n: round(1 - np.count_nonzero(a) / max(a.size, 1), 4) for n, a in arrays.items()}
    words = sorted({_pattern_text(layout) for layout in layouts.values()})
    model.metadata_props.update(
        {
            "graphprune.structure": emitted.structure,
            f"graphprune.{emitted.structure}": pattern or ", ".join(words),
            "graphprune.sparsity": json.dumps(sparsity, sort_keys=True),
            "graphprune.format": emitted.format,
        }
    )


def _pattern_text(layout: Layout) -> str:
    if isinstance(layout, BlockLayout):
        return times(layout.block)
    return f"{layout.keep}:{layout.of}"
