"""Operator by operator: the onnx package's own node tests, and what they leave out against onnxruntime."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

pytest.importorskip("torch", reason="training needs torch")

import torch

from graphprune.errors import GraphpruneError
from graphprune.frontends.loading import load_model
from graphprune.fx import find_converter, import_model
from graphprune.fx.attributes import to_tensor
from tests.fx_oracle import TOLERANCE, apart, difference, feed, imported, reference, run

REFUSED = {
    r"PyTorch cannot compute in (string|u?int[24]|float[48]e)": "types without arithmetic",
    r"no uint(16|32|64) arithmetic": "unsigned types that torch lacks, where the width matters",
    r"input \d+ \(.*\) depends on the data": "shapes that are inputs of the model",
    r"input \d+ \(.*\) must be a constant": "axes that are inputs of the model",
    r"its output .* is not supported": "outputs that exist while ONNX trains (batch statistics, dropout masks)",
    r"\(the indices\) is used": "indices of MaxPool, which only unpooling reads",
    r"\(ScatterND\) .* the reduction '(mul|max|min)'": "reductions without a torch counterpart",
    r"\(Attention\) .* (key-value cache|softcap|further outputs|window_size|not supported)": "attention while decoding",
    r"\(Resize\) .* (tf_crop_and_resize|antialias) is not supported": "filters that torch has not",
    r"the size of input 'x' is not known": "sequences as inputs",
}
"""What the sentences of refused node tests say -> why that is in order."""

UNEQUAL = {
    "test_(cast|castlike)_FLOAT_to_BFLOAT16": "narrow floats are not rounded: the module computes in float32",
    "test_training_dropout": "random numbers",
    "test_reduce_(max|min)_empty_set": "torch has no largest element of nothing",
    "test_resize_downsample_scales_(linear|cubic)_align_corners": "onnxruntime differs from the reference here",
}
"""Node tests whose reference outputs are not ours -> why."""

WRITTEN = 1e-3
"""Relative tolerance: some references are written with four digits."""

NARROW = {onnx.TensorProto.FLOAT16: 2e-3, onnx.TensorProto.BFLOAT16: 2e-2}
"""Relative tolerance where the reference rounds to a narrow float."""


def cases() -> Iterator[Any]:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, about the reference outputs of special values
        yield from collect_testcases(None)


def array(value: Any) -> np.ndarray:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def with_literals(model: onnx.ModelProto, inputs: list[Any]) -> tuple[onnx.ModelProto, list[Any]]:
    """Shapes, axes and the like as initializers, as exporters write them; the tests feed them as inputs."""
    literals = set()
    for node in model.graph.node:
        entry = find_converter(node.op_type)
        if entry is not None and node.op_type not in ("CastLike", "Pow"):
            literals |= {name for i, name in enumerate(node.input) if i in entry.literals}
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    fed = []
    for value, data in zip(model.graph.input, inputs, strict=True):
        if value.name not in literals:
            fed.append(data)
        elif isinstance(data, onnx.TensorProto):
            changed.graph.initializer.add().CopyFrom(data)
            changed.graph.initializer[-1].name = value.name
        else:
            changed.graph.initializer.append(numpy_helper.from_array(array(data), value.name))
    return changed, fed


def test_node_models_of_the_onnx_package() -> None:
    """Every node test whose operators have converters: equal to the reference, or refused for a known reason."""
    equal, problems = 0, []
    for case in cases():
        try:
            worked = check_case(case)
        except GraphpruneError as error:
            if not any(re.search(pattern, str(error)) for pattern in REFUSED):
                problems.append(f"{case.name} is refused: {error}")
            continue
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the failure that the test reports
            if not any(re.match(pattern, case.name) for pattern in UNEQUAL):
                problems.append(f"{case.name}: {type(error).__name__}: {error}")
            continue
        equal += worked
    assert not problems, "\n".join(problems)
    assert equal >= 1200


def check_case(case: Any) -> bool:
    """Compare one node test with its reference outputs; False where an operator has no converter."""
    inputs, outputs = case.data_sets[0]
    proto, fed = with_literals(case.model, list(inputs))
    try:
        model, _ = load_model(proto)
    except GraphpruneError:
        return False  # an opset, or a graph, that graphprune does not read
    operators = {
        n.op_type if n.domain in ("", "ai.onnx") else f"{n.domain}::{n.op_type}" for n in model.graph
    }
    if any(find_converter(operator) is None for operator in operators - {"Constant"}):
        return False
    module = import_model(model).module
    found = module(*(to_tensor(array(x), "an input") for x in fed))
    types = {v.type.tensor_type.elem_type for v in (*case.model.graph.input, *case.model.graph.output)}
    rtol = max((NARROW.get(t, WRITTEN) for t in types), default=WRITTEN)
    for a, b in zip([found] if isinstance(found, torch.Tensor) else found, outputs, strict=True):
        wanted = array(b)
        assert tuple(a.shape) == wanted.shape
        result = a.detach().numpy()
        np.testing.assert_allclose(result, wanted.astype(result.dtype), rtol=rtol, atol=rtol / 10)
    return True


# -- what the node tests leave out ------------------------------------------------------------------


def network(body: str, inputs: str, opset: int) -> onnx.ModelProto:
    text = f'<ir_version: 8, opset_import: ["" : {opset}, "com.microsoft": 1]> g ({inputs}) => (float[] y) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return model


IMAGE = "float[B, 8, 6, 4] x"

BODIES = {
    # activations: attributes, old opsets, bounds
    "clip to relu6": ("y = Clip <min = 0.0, max = 6.0> (x)", IMAGE, 10),
    "clip on one side": ("l = Constant <value = float {0.25}> () y = Clip (x, l)", IMAGE, 13),
    "clip above": ("h = Constant <value = float {0.25}> () y = Clip (x, , h)", IMAGE, 13),
    "clip crossed": (
        "l = Constant <value = float {1.0}> () h = Constant <value = float {-1.0}> () y = Clip (x, l, h)",
        IMAGE,
        13,
    ),
    "clip by tensors": (
        "l = ReduceMin <keepdims = 0> (x) h = Neg (l) m = Min (l, h) y = Clip (x, m, h)",
        IMAGE,
        13,
    ),
    "hard sigmoid of a sixth": ("y = HardSigmoid <alpha = 0.1666667, beta = 0.5> (x)", IMAGE, 13),
    "hard sigmoid": ("y = HardSigmoid <alpha = 0.3, beta = 0.4> (x)", IMAGE, 13),
    "quick gelu": ("y = com.microsoft.QuickGelu <alpha = 1.3> (x)", IMAGE, 17),
    "fast gelu": ("y = com.microsoft.FastGelu (x)", IMAGE, 17),
    "microsoft's gelu": ("y = com.microsoft.Gelu (x)", IMAGE, 17),
    "bias gelu": (
        "b = Constant <value = float[4] {0.1, 0.2, 0.3, 0.4}> () y = com.microsoft.BiasGelu (x, b)",
        IMAGE,
        17,
    ),
    "one slope": ("s = Constant <value = float[1] {0.2}> () y = PRelu (x, s)", IMAGE, 16),
    "a slope per column": (
        "s = Constant <value = float[4] {0.1, 0.2, 0.3, 0.4}> () y = PRelu (x, s)",
        IMAGE,
        16,
    ),
    "a slope per channel": (
        "s = Constant <value = float[2, 1] {0.1, -0.2}> () y = PRelu (x, s)",
        "float[B, 2, 5] x",
        16,
    ),
    # arithmetic
    "powers": (
        "a = Abs (x) e = Constant <value = float[4] {0.5, 1.0, 2.0, 3.0}> () y = Pow (a, e)",
        IMAGE,
        15,
    ),
    "a cube": ("e = Constant <value = float {3.0}> () y = Pow (x, e)", IMAGE, 15),
    "integer division": (
        "i = Cast <to = 7> (x) d = Constant <value = int64 {-2}> () q = Div (i, d) y = Cast <to = 1> (q)",
        IMAGE,
        15,
    ),
    "an integer square": (
        "i = Cast <to = 6> (x) e = Constant <value = float {2.0}> () q = Pow (i, e) y = Cast <to = 1> (q)",
        IMAGE,
        15,
    ),
    "many operands": ("a = Max (x, x, x) b = Min (x) c = Sum (a, b, x) y = Mean (c, a, x)", IMAGE, 13),
    "bool to float": (
        "z = Constant <value = float {0.0}> () g = Greater (x, z) y = Cast <to = 1> (g)",
        IMAGE,
        13,
    ),
    # movement
    "split by attribute": (
        "a, b = Split <axis = 1, split = [3, 5]> (x) y = Concat <axis = 1> (b, a)",
        IMAGE,
        11,
    ),
    "split unevenly": (
        "a, b, c = Split <axis = 1, num_outputs = 3> (x) y = Concat <axis = -3> (c, b, a)",
        IMAGE,
        18,
    ),
    "squeeze by attribute": (
        "a = Unsqueeze <axes = [-1, 0]> (x) y = Squeeze <axes = [0, -1]> (a)",
        IMAGE,
        11,
    ),
    "flatten in the middle": ("a = Flatten <axis = 2> (x) y = Flatten <axis = -1> (a)", IMAGE, 13),
    "flatten to a row": ("y = Flatten <axis = 0> (x)", IMAGE, 13),
    "reversed axes": ("y = Transpose (x)", IMAGE, 13),
    "channel shuffle": (
        """s = Constant <value_ints = [0, 2, 4, 6, 4]> () r = Reshape (x, s) t = Transpose <perm = [0, 2, 1, 3, 4]> (r)
           u = Constant <value_ints = [0, -1, 6, 4]> () y = Reshape (t, u)""",
        IMAGE,
        13,
    ),
    "pad by attribute": ('y = Pad <mode = "reflect", pads = [0, 0, 1, 2, 0, 0, 3, 0]> (x)', IMAGE, 10),
    "pad and crop": ("p = Constant <value_ints = [0, 1, -1, 0, 0, 0, 2, -2]> () y = Pad (x, p)", IMAGE, 13),
    "pad channels by edges": (
        'p = Constant <value_ints = [0, 2, 0, 0, 0, 1, 0, 0]> () y = Pad <mode = "edge"> (x, p)',
        IMAGE,
        13,
    ),
    "pad some axes": (
        "p = Constant <value_ints = [1, 2, 3, 4]> () v = Constant <value = float {2.5}> () "
        "a = Constant <value_ints = [-1, 1]> () y = Pad (x, p, v, a)",
        IMAGE,
        18,
    ),
    "pad around": (
        'p = Constant <value_ints = [0, 0, 2, 1, 0, 0, 1, 3]> () y = Pad <mode = "wrap"> (x, p)',
        IMAGE,
        19,
    ),
    "depth to space and back": (
        'a = DepthToSpace <blocksize = 2, mode = "CRD"> (x) b = SpaceToDepth <blocksize = 2> (a) '
        "y = DepthToSpace <blocksize = 2> (b)",
        IMAGE,
        13,
    ),
    # indexing
    "slice by attribute": ("y = Slice <starts = [1, -3], ends = [9, -1], axes = [1, 2]> (x)", IMAGE, 9),
    "slice backwards": (
        """s = Constant <value_ints = [-1, 4]> () e = Constant <value_ints = [-9223372036854775807, 0]> ()
           a = Constant <value_ints = [3, 2]> () t = Constant <value_ints = [-1, -2]> () y = Slice (x, s, e, a, t)""",
        IMAGE,
        13,
    ),
    "slice with steps": (
        """s = Constant <value_ints = [0, 1]> () e = Constant <value_ints = [9223372036854775807, 5]> ()
           a = Constant <value_ints = [1, -2]> () t = Constant <value_ints = [2, 3]> () y = Slice (x, s, e, a, t)""",
        IMAGE,
        13,
    ),
    "gather the last": ("i = Constant <value_int = -1> () y = Gather <axis = 1> (x, i)", IMAGE, 13),
    "gather a table": (
        "i = Constant <value = int64[2, 3] {0, -1, 2, 3, 3, 1}> () y = Gather <axis = -2> (x, i)",
        IMAGE,
        13,
    ),
    "gather by data": (
        "m = ArgMax <axis = 1, keepdims = 0> (x) t = Constant <value = float[8, 2] "
        "{0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5}> () y = Gather (t, m)",
        IMAGE,
        13,
    ),
    "gather elements by data": (
        "m = ArgMax <axis = 3, keepdims = 1> (x) o = Constant <value_int = 1> () k = Sub (m, o) "
        "y = GatherElements <axis = 3> (x, k)",
        IMAGE,
        13,
    ),
}


@pytest.mark.parametrize(("body", "inputs", "opset"), BODIES.values(), ids=BODIES)
def test_against_onnxruntime(body: str, inputs: str, opset: int) -> None:
    source = network(body, inputs, opset)
    assert difference(imported(source), source, batch=4) <= TOLERANCE


def test_embedding() -> None:
    """Tokens to vectors; negative tokens count from the end, as onnxruntime has it."""
    source = network("y = Gather (t, tokens)", "int64[B, 5] tokens", 13)
    table = np.random.default_rng(0).standard_normal((10, 3)).astype(np.float32)
    source.graph.initializer.append(numpy_helper.from_array(table, "t"))
    model = imported(source)
    tokens = np.array([[0, -1, 9, -10, 4], [3, 3, 3, 3, -2]])
    (found,) = run(model, {"tokens": tokens})
    assert apart([found.detach().numpy()], reference(source).run(None, {"tokens": tokens})) == 0
    found.sum().backward()
    assert model.module.t.grad[3, 0] == 4
    assert feed(model)["tokens"].max() < 10


@pytest.mark.parametrize("bounds", [(0.0, 6.0), (-1.0, 1.0)])
def test_clips_are_hardtanh(bounds: tuple[float, float]) -> None:
    """Its backward takes half the time of clamp's."""
    model = imported(network(f"y = Clip <min = {bounds[0]}, max = {bounds[1]}> (x)", IMAGE, 10))
    assert torch.nn.functional.hardtanh in {n.target for n in model.module.graph.nodes}
