"""A user's own module with fewer channels: parameters sliced where they are, widths corrected, checked, or undone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from graphprune.errors import OptionError
from graphprune.frontends.torch.arguments import bound
from graphprune.frontends.torch.evaluating import evaluating
from graphprune.frontends.torch.export import attribute

Widths = Callable[[Any, dict[str, Any]], dict[str, Any]]
"""(module with sliced tensors, arguments of the pruned call that reads its weight) -> attributes."""

_CLOSE = 1e-4


def slice_in_place(module: nn.Module, pruned: fx.GraphModule, example: tuple[Any, ...]) -> None:
    """Give ``module`` the tensors of ``pruned``, and its layers the widths that follow.

    Parameters stay the objects that they are, so an optimiser made before must be made anew: its buffers have the
    old sizes. Raises OptionError where the module's own forward does not compute what ``pruned`` does (widths that
    are written into it); it is then as it was.
    """
    undo = _Undo(module)
    try:
        _tensors(module, pruned)
        _attributes(module, pruned)
        reason = _differs(module, pruned, example)
    except Exception as error:  # noqa: BLE001 - the module runs the user's code, which raises anything
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    if reason is not None:
        undo.restore()
        raise OptionError(
            f"in_place: the forward of {type(module).__name__} does not work with fewer channels ({reason}); "
            "it is as it was: use result.module"
        )


class _Undo:
    """What the module was."""

    def __init__(self, module: nn.Module) -> None:
        self.attributes = {m: dict(vars(m)) for m in module.modules()}
        self.buffers = {m: dict(m._buffers) for m in module.modules()}
        self.data = [(p, p.data, p.grad) for p in module.parameters()]

    def restore(self) -> None:
        for m, values in self.attributes.items():
            vars(m).clear()
            vars(m).update(values)
            m._buffers.clear()
            m._buffers.update(self.buffers[m])
        for p, data, grad in self.data:
            p.data, p.grad = data, grad


def _tensors(module: nn.Module, pruned: fx.GraphModule) -> None:
    new = dict(pruned.named_parameters(remove_duplicate=False))
    new_buffers = dict(pruned.named_buffers(remove_duplicate=False))
    for path, parameter in module.named_parameters():
        if path in new and new[path].shape != parameter.shape:
            parameter.data, parameter.grad = new[path].detach().clone(), None
        elif path in new:
            parameter.data = new[path].detach().clone()
    for path, _ in module.named_buffers():
        owner_path, _, name = path.rpartition(".")
        owner = attribute(module, owner_path) if owner_path else module
        if path in new_buffers:
            owner._buffers[name] = new_buffers[path].detach().clone()


def _attributes(module: nn.Module, pruned: fx.GraphModule) -> None:
    calls = _calls(pruned)
    for path, layer in module.named_modules():
        for kind, widths in _WIDTHS.items():
            if isinstance(layer, kind):
                for name, value in widths(
                    layer, calls.get(f"{path}.weight" if path else "weight", {})
                ).items():
                    setattr(layer, name, value)


def _calls(pruned: fx.GraphModule) -> dict[str, dict[str, Any]]:
    """Name of a weight -> arguments of the call that reads it."""
    found = {}
    for node in pruned.graph.nodes:
        if node.op == "get_attr" and node.users:
            reader = next(iter(node.users))
            if reader.op == "call_function" and hasattr(reader.target, "_schema"):
                found[str(node.target)] = bound(reader)
    return found


def _differs(module: nn.Module, pruned: fx.GraphModule, example: tuple[Any, ...]) -> str | None:
    with torch.no_grad(), evaluating(module), evaluating(pruned):
        pairs = zip(pytree.tree_leaves(module(*example)), pytree.tree_leaves(pruned(*example)), strict=True)
        for a, b in pairs:
            if not isinstance(a, torch.Tensor):
                continue
            if a.shape != b.shape:
                return f"an output has shape {tuple(a.shape)} instead of {tuple(b.shape)}"
            scale = float(b.abs().max()) if b.numel() else 0.0
            if b.numel() and float((a - b).abs().max()) > _CLOSE * max(scale, 1e-30):
                return "its output is another"
    return None


def _conv(layer: Any, call: dict[str, Any]) -> dict[str, Any]:
    first, second = layer.weight.shape[:2]
    groups = call.get("groups", layer.groups)
    if layer.transposed:
        return {"in_channels": first, "out_channels": second * groups, "groups": groups}
    return {"in_channels": second * groups, "out_channels": first, "groups": groups}


def _linear(layer: Any, call: dict[str, Any]) -> dict[str, Any]:
    return {"out_features": layer.weight.shape[0], "in_features": layer.weight.shape[1]}


def _norm(layer: Any, call: dict[str, Any]) -> dict[str, Any]:
    tensor = layer.weight if layer.weight is not None else layer.running_mean
    return {} if tensor is None else {"num_features": tensor.shape[0]}


def _group_norm(layer: Any, call: dict[str, Any]) -> dict[str, Any]:
    channels = layer.num_channels if layer.weight is None else layer.weight.shape[0]
    return {"num_groups": call.get("num_groups", layer.num_groups), "num_channels": channels}


def _last_axes(layer: Any, call: dict[str, Any]) -> dict[str, Any]:
    return {} if layer.weight is None else {"normalized_shape": tuple(layer.weight.shape)}


def _embedding(layer: Any, call: dict[str, Any]) -> dict[str, Any]:
    return {"embedding_dim": layer.weight.shape[1]}


def _recurrent(layer: Any, call: dict[str, Any]) -> dict[str, Any]:
    return {"input_size": layer.weight_ih_l0.shape[1], "hidden_size": layer.weight_hh_l0.shape[1]}


def _prelu(layer: Any, call: dict[str, Any]) -> dict[str, Any]:
    return {"num_parameters": layer.weight.shape[0]}


_WIDTHS: dict[type[nn.Module], Widths] = {
    nn.modules.conv._ConvNd: _conv,
    nn.Linear: _linear,
    nn.modules.batchnorm._NormBase: _norm,
    nn.GroupNorm: _group_norm,
    nn.LayerNorm: _last_axes,
    nn.RMSNorm: _last_axes,
    nn.Embedding: _embedding,
    nn.RNNBase: _recurrent,
    nn.PReLU: _prelu,
}
"""What layers call the sizes of their tensors."""
