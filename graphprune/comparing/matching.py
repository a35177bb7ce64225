"""Which input (output) of one model is which of another: by name, then by position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from graphprune.data.inputs import input_specs
from graphprune.data.samples import InputSpec
from graphprune.errors import OptionError


@dataclass(frozen=True)
class Pair:
    """Names in the first and in the second model."""

    first: str
    second: str


def match_inputs(first: ir.Model, second: ir.Model, names: tuple[str, str]) -> list[Pair]:
    """``names``: of the models, for messages. Raises OptionError where the two do not take the same."""
    a, b = input_specs(first), input_specs(second)
    pairs = _match([s.name for s in a], [s.name for s in b], "input", names)
    left, right = {s.name: s for s in a}, {s.name: s for s in b}
    for pair in pairs:
        _check(left[pair.first], right[pair.second], names)
    return pairs


def match_outputs(first: ir.Model, second: ir.Model, names: tuple[str, str]) -> list[Pair]:
    """Tensors alone. Raises OptionError where the two do not give equally many."""
    return _match(_tensors(first), _tensors(second), "output", names)


def _tensors(model: ir.Model) -> list[str]:
    outputs = model.graph.outputs
    return [v.name or "" for v in outputs if v.type is None or isinstance(v.type, ir.TensorType)]


def _match(first: Sequence[str], second: Sequence[str], what: str, names: tuple[str, str]) -> list[Pair]:
    if len(first) != len(second):
        raise OptionError(
            f"{names[0]} has {len(first)} {what}{'s' * (len(first) != 1)} ({', '.join(first)}) and {names[1]} "
            f"{len(second)} ({', '.join(second)}): compare takes models with the same {what}s"
        )
    shared = set(first) & set(second)
    rest = iter([name for name in second if name not in shared])
    return [Pair(name, name if name in shared else next(rest)) for name in first]


def _check(first: InputSpec, second: InputSpec, names: tuple[str, str]) -> None:
    """Raises OptionError unless one array fits both; floating-point types may differ."""
    same_type = first.dtype == second.dtype or ("float" in first.dtype and "float" in second.dtype)
    same_sizes = len(first.shape) == len(second.shape) and all(
        a is None or b is None or a == b for a, b in zip(first.shape, second.shape, strict=True)
    )
    if not (same_type and same_sizes):
        raise OptionError(
            f"input {first.name!r} of {names[0]} is {_described(first)} and input {second.name!r} of {names[1]} "
            f"{_described(second)}: compare takes models with the same inputs"
        )


def _described(spec: InputSpec) -> str:
    return f"{spec.dtype} {'x'.join('?' if d is None else str(d) for d in spec.shape) or 'scalar'}"
