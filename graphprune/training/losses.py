"""Losses chosen by name: distillation from the original model, labels, or the user's own function.

Every loss computes in float32 (float64 stays), also under autocast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F

from graphprune.errors import OptionError
from graphprune.graph import Graph
from graphprune.lookup import lookup
from graphprune.python_functions import PREFIX, import_function
from graphprune.search.class_labels import check_labels, counted, cross_entropy
from graphprune.training.divergences import DIVERGENCES, scores, wide
from graphprune.training.layerwise import layerwise
from graphprune.training.output_kinds import Kind, Output, float_outputs

Tensors = Sequence[torch.Tensor]


class Loss(Protocol):
    """``loss(outputs, teacher, labels)`` -> a scalar tensor.

    ``outputs`` and ``teacher`` hold one tensor per output of the graph, in its order.
    """

    @property
    def observed(self) -> Sequence[str]:
        """fx nodes that ``outputs`` and ``teacher`` are of, where they are not the graph's outputs."""

    @property
    def needs_teacher(self) -> bool:
        """Whether the outputs of the original model must be given."""

    @property
    def needs_labels(self) -> bool:
        """Whether labels must be given."""

    def __call__(self, outputs: Tensors, teacher: Tensors | None, labels: Any) -> torch.Tensor: ...


def find_loss(
    name: str, graph: Graph, distill_temp: float = 1.0, nodes: Mapping[str, str] | None = None
) -> Loss:
    """The loss ``name`` (distill, cross-entropy, mse, layers or python:package.module:function) for ``graph``.

    ``nodes``: ONNX value -> fx node of the module that trains, for losses that look inside of it.

    Raises OptionError for an unknown name and where the model's outputs do not allow it.
    """
    if name.startswith(PREFIX):
        return Custom(name, import_function(name, "--loss"))
    build = lookup(LOSSES, name, "loss")
    outputs = float_outputs(graph)
    if not outputs:
        raise OptionError(f"--loss {name}: the model has no output of floating point to train on")
    return build(_Asked(graph, outputs, distill_temp, nodes or {}))


# -- distillation -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Distill:
    """The original model is the teacher: the sum over all outputs of their divergences from its outputs."""

    outputs: list[Output]
    temperature: float = 1.0
    observed = ()
    needs_teacher = True
    needs_labels = False

    def __call__(self, outputs: Tensors, teacher: Tensors | None, labels: Any = None) -> torch.Tensor:
        if teacher is None:
            raise ValueError("distillation needs the teacher's outputs")
        terms = [
            DIVERGENCES[out.kind](
                out, wide(outputs[out.index]), wide(teacher[out.index]).detach(), self.temperature
            )
            for out in self.outputs
        ]
        return torch.stack(terms).sum()


# -- labels -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy of the first output with whole-number labels.

    ``[N, C]`` or ``[N, C, 1, 1]`` takes labels ``[N]``; ``[N, C, H, W]`` takes ``[N, H, W]``, in which
    255, negative numbers and C are no label. Mean over the labels. Raises OptionError or DataError for
    labels that do not fit.
    """

    output: Output
    observed = ()
    needs_teacher = False
    needs_labels = True

    def __call__(self, outputs: Tensors, teacher: Tensors | None, labels: Any) -> torch.Tensor:
        out, values = self.output, wide(outputs[self.output.index])
        given = scores(out, values)
        given = out.by_class(given) if out.classes else given.flatten(2)
        if not isinstance(labels, torch.Tensor) or labels.is_floating_point():
            raise OptionError("--loss cross-entropy needs labels that are whole numbers")
        count, classes, inner = given.shape
        if labels.numel() != count * inner:
            raise OptionError(
                f"labels of shape {tuple(labels.shape)} do not fit output {out.name!r} of shape "
                f"{tuple(values.shape)}: --loss cross-entropy needs one label for each {classes} scores"
            )
        check_labels(labels, classes)
        return cross_entropy(given, counted(labels.reshape(count, inner), classes))


@dataclass(frozen=True)
class SquaredError:
    """Mean squared error of the first output with labels of its shape, else of all outputs with the teacher's.

    Class numbers (whole-number labels of another shape) are left aside.
    """

    outputs: list[Output]
    observed = ()
    needs_teacher = True
    needs_labels = False

    def __call__(self, outputs: Tensors, teacher: Tensors | None, labels: Any = None) -> torch.Tensor:
        first = wide(outputs[self.outputs[0].index])
        if isinstance(labels, torch.Tensor):
            if _squeezed(labels) == _squeezed(first):
                return F.mse_loss(first, labels.to(first.dtype).reshape(first.shape))
            if labels.is_floating_point():
                raise OptionError(
                    f"labels of shape {tuple(labels.shape)} do not fit output {self.outputs[0].name!r} of "
                    f"shape {tuple(first.shape)}: --loss mse needs one number for each of its elements"
                )
        if teacher is None:
            raise ValueError("without labels of the output's shape the teacher's outputs are needed")
        terms = [F.mse_loss(wide(outputs[o.index]), wide(teacher[o.index]).detach()) for o in self.outputs]
        return torch.stack(terms).sum()


# -- the user's own ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Custom:
    """``function(outputs, labels)`` of the user; ``outputs`` is a tuple, labels None where there are none."""

    name: str
    function: Callable[..., Any]
    observed = ()
    needs_teacher = False
    needs_labels = False

    def __call__(self, outputs: Tensors, teacher: Tensors | None, labels: Any) -> torch.Tensor:
        result = self.function(tuple(outputs), labels)
        if not isinstance(result, torch.Tensor) or result.numel() != 1:
            raise OptionError(
                f"--loss {self.name} must return one number in a tensor, not {_describe(result)}"
            )
        return result.reshape(())


@dataclass(frozen=True)
class _Asked:
    """What a loss is made from."""

    graph: Graph
    outputs: list[Output]
    distill_temp: float
    nodes: Mapping[str, str]


def _distill(asked: _Asked) -> Loss:
    return Distill(asked.outputs, asked.distill_temp)


def _cross_entropy(asked: _Asked) -> Loss:
    first = asked.outputs[0]
    dense = first.kind is Kind.features and len(first.shape or ()) >= 3 and (first.shape or ())[1] >= 2
    if not (first.classes or dense):
        raise OptionError(
            f"--loss cross-entropy needs scores of two classes or more, but output {first.name!r} has "
            f"{first.kind} of shape {first.shape}: use distill, mse or python:package.module:function"
        )
    return CrossEntropy(first)


def _squared_error(asked: _Asked) -> Loss:
    return SquaredError(asked.outputs)


def _layers(asked: _Asked) -> Loss:
    return layerwise(asked.graph, asked.nodes)


LOSSES: dict[str, Callable[[_Asked], Loss]] = {
    "distill": _distill,
    "cross-entropy": _cross_entropy,
    "layers": _layers,
    "mse": _squared_error,
}


def _squeezed(x: torch.Tensor) -> list[int]:
    return [size for size in x.shape if size != 1]


def _describe(result: Any) -> str:
    if isinstance(result, torch.Tensor):
        return f"a tensor of shape {tuple(result.shape)}"
    return type(result).__name__
