"""Writing a module as one self-contained ONNX file."""

import warnings
from pathlib import Path

import onnx_ir as ir
import onnx_ir.passes.common as passes
import torch
from onnxscript.optimizer import fold_constants_ir
from onnxscript.rewriter import RewritePass
from onnxscript.rewriter.rules import common as rules
from torch import Tensor, nn

OPSET = 18

# What torch.onnx.export(optimize=True) does, without the rules that fold BatchNormalization into convolutions
CLEAN_UP = ir.passes.Sequential(
    RewritePass(
        (
            rules.remove_optional_bias_from_conv_rule,  # the exporter adds zeros where there is no bias
            rules.materialize_reshape_shape_rule,
            rules.no_op_expand_rule,
            rules.no_op_transpose_rule,
            rules.reshape_reshape_rule,
            rules.squeeze_reshape_1d_rule,
        )
    ),
    passes.RemoveUnusedNodesPass(),
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
    passes.DeduplicateInitializersPass(size_limit=8),  # shape constants, not weights that happen to be equal
    passes.CommonSubexpressionEliminationPass(),
    passes.IdentityEliminationPass(),
    passes.RemoveUnusedNodesPass(),
    passes.ClearMetadataAndDocStringPass(),
    passes.NameFixPass(),
)


def export_module(model: nn.Module, path: Path, example: Tensor, outputs: tuple[str, ...]) -> Path:
    """Write `model` in evaluation mode, with a dynamic batch axis.

    BatchNormalization stays a node of its own. Weights keep their PyTorch names, but for linear layers on
    token sequences, whose transposed weight is folded into a new tensor.
    Paths and stack traces of this machine are left out.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.13 trips over its own deprecated LeafSpec
        program = torch.onnx.export(
            model.eval(),
            (example.contiguous(),),  # with channels_last strides, Flatten would become index arithmetic
            input_names=["input"],
            output_names=list(outputs),
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=({0: "batch"},),
            optimize=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    fold_constants_ir(program.model)
    CLEAN_UP(program.model)
    program.model.metadata_props.clear()
    path.parent.mkdir(parents=True, exist_ok=True)
    ir.save(program.model, path)
    return path
