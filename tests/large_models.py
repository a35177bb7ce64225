"""Large models with external data, written in pieces so that making them costs no memory, and a process measured."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

_PIECE = 1 << 20
"""Numbers drawn at once."""

Shapes = dict[str, tuple[int, ...]]


@dataclass
class Parts:
    """A graph in the making: nodes, and the shapes of weights, biases and the like by name."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    shapes: Shapes = field(default_factory=dict)
    small: list[onnx.TensorProto] = field(default_factory=list)

    def node(self, op: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], output, **attributes))
        return output

    def weight(self, name: str, *shape: int) -> str:
        self.shapes[name] = shape
        return name

    def sizes(self, name: str, *numbers: int) -> str:
        self.small.append(helper.make_tensor(name, TensorProto.INT64, [len(numbers)], numbers))
        return name

    @property
    def bytes(self) -> int:
        """Of all weights in float32."""
        return sum(4 * math.prod(shape) for shape in self.shapes.values())


def transformer(width: int, layers: int, *, tokens: int = 16, head: int = 64) -> Parts:
    """A convolution in patches, then ``layers`` of attention and a feed-forward part (MatMul and Gemm), all residual.

    Every layer has 12 width^2 weights. Input ``x`` [1, 3, 4 tokens, 4], output ``y`` [1, 10].
    """
    p = Parts()
    grown = p.node("Conv", ["x", p.weight("stem.weight", 64, 3, 3, 3)], "stem", pads=[1] * 4)
    grown = p.node("Relu", [grown], "stem.relu")
    patches = p.node("Conv", [grown, p.weight("patch.weight", width, 64, 4, 4)], "patch", strides=[4, 4])
    flat = p.node("Reshape", [patches, p.sizes("flat.shape", 1, width, tokens)], "flat")
    stream = p.node("Transpose", [flat], "embedded", perm=[0, 2, 1])
    heads = p.sizes("heads.shape", 1, tokens, width // head, head)
    joined = p.sizes("joined.shape", 1, tokens, width)
    rows = p.sizes("rows.shape", tokens, width)
    for i in range(layers):
        stream = _attention(p, f"l{i}", stream, width, heads, joined, head)
        stream = _feed_forward(p, f"l{i}", stream, width, joined, rows)
    last = p.node("ReduceMean", [stream], "pooled", axes=[1], keepdims=0)
    p.node("Gemm", [last, p.weight("head.weight", 10, width), p.weight("head.bias", 10)], "y", transB=1)
    return p


def _norm(p: Parts, name: str, stream: str, width: int) -> str:
    weights = [p.weight(f"{name}.weight", width), p.weight(f"{name}.bias", width)]
    return p.node("LayerNormalization", [stream, *weights], name)


def _attention(p: Parts, name: str, stream: str, width: int, heads: str, joined: str, head: int) -> str:
    read = _norm(p, f"{name}.norm1", stream, width)
    parts = {}
    for kind, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        made = p.node("MatMul", [read, p.weight(f"{name}.{kind}.weight", width, width)], f"{name}.{kind}")
        split = p.node("Reshape", [made, heads], f"{name}.{kind}.heads")
        parts[kind] = p.node("Transpose", [split], f"{name}.{kind}.turned", perm=perm)
    products = p.node("MatMul", [parts["q"], parts["k"]], f"{name}.products")
    p.small.append(helper.make_tensor(f"{name}.scale", TensorProto.FLOAT, [], [head**-0.5]))
    scaled = p.node("Mul", [products, f"{name}.scale"], f"{name}.scaled")
    shares = p.node("Softmax", [scaled], f"{name}.shares", axis=-1)
    mixed = p.node("MatMul", [shares, parts["v"]], f"{name}.mixed")
    turned = p.node("Transpose", [mixed], f"{name}.back", perm=[0, 2, 1, 3])
    flat = p.node("Reshape", [turned, joined], f"{name}.joined")
    out = p.node("MatMul", [flat, p.weight(f"{name}.o.weight", width, width)], f"{name}.o")
    return p.node("Add", [stream, out], f"{name}.attended")


def _feed_forward(p: Parts, name: str, stream: str, width: int, joined: str, rows: str) -> str:
    read = _norm(p, f"{name}.norm2", stream, width)
    flat = p.node("Reshape", [read, rows], f"{name}.rows")
    inner = [flat, p.weight(f"{name}.up.weight", 4 * width, width), p.weight(f"{name}.up.bias", 4 * width)]
    up = p.node("Gemm", inner, f"{name}.up", transB=1)
    active = p.node("Relu", [up], f"{name}.relu")
    down = p.node("MatMul", [active, p.weight(f"{name}.down.weight", 4 * width, width)], f"{name}.down")
    back = p.node("Reshape", [down, joined], f"{name}.stacked")
    return p.node("Add", [stream, back], f"{name}.fed")


def wide(*sizes: int) -> Parts:
    """A few very large matrices: ``x`` [1, sizes[0]] through MatMul and Relu to ``y`` [1, sizes[-1]]."""
    p = Parts()
    last = "x"
    for i, (rows, columns) in enumerate(itertools.pairwise(sizes)):
        made = p.node("MatMul", [last, p.weight(f"w{i}", rows, columns)], f"m{i}")
        last = p.node("Relu", [made], "y" if i == len(sizes) - 2 else f"r{i}")
    return p


def large_transformer(path: Path, *, megabytes: int, width: int, holes: bool = False) -> Path:
    """``transformer`` with as many layers as make at least so many megabytes."""
    layers = math.ceil(megabytes * 1e6 / (48 * width**2))
    inputs, outputs = {"x": (1, 3, 64, 4)}, {"y": (1, 10)}
    return write(transformer(width, layers), path, inputs, outputs, holes=holes)


def large_matrices(path: Path, *sizes: int) -> Path:
    """``wide`` in a file."""
    return write(wide(*sizes), path, {"x": (1, sizes[0])}, {"y": (1, sizes[-1])})


def megabytes(path: Path) -> float:
    """Of a model and its data."""
    return sum(file.stat().st_size for file in (path, Path(f"{path}.data"))) / 1e6


def write(parts: Parts, path: Path, inputs: Shapes, outputs: Shapes, *, holes: bool = False) -> Path:
    """Write ``path`` and ``path``.data; with ``holes`` the data is a file of that length without any content."""
    stored, offset = [], 0
    with Path(f"{path}.data").open("wb") as file:
        for number, (name, shape) in enumerate(parts.shapes.items()):
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
            tensor.data_location = TensorProto.EXTERNAL
            length = 4 * math.prod(shape)
            for key, value in (("location", f"{path.name}.data"), ("offset", offset), ("length", length)):
                tensor.external_data.add(key=key, value=str(value))
            stored.append(tensor)
            offset += length
            if not holes:
                for piece in _numbers(name, shape, number):
                    file.write(piece)
        file.truncate(offset)
    graph = helper.make_graph(
        parts.nodes,
        "large",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        [*stored, *parts.small],
    )
    opsets = [helper.make_opsetid("", 17)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    return path


def _numbers(name: str, shape: tuple[int, ...], seed: int) -> Iterator[bytes]:
    """Normally distributed, so large that activations keep their size; some pieces larger than others."""
    rng = np.random.default_rng(seed)
    count = math.prod(shape)
    if len(shape) == 1:
        yield (np.full(shape, "norm" in name and name.endswith("weight"), np.float32)).tobytes()
        return
    inputs = count // shape[0] if len(shape) == 4 or "up" in name or "head" in name else shape[0]
    drawn = rng.standard_normal(2 * min(count, _PIECE), np.float32) / np.float32(math.sqrt(inputs))
    for start in range(0, count, _PIECE):
        first = int(rng.integers(drawn.size // 2))
        size = min(_PIECE, count - start)
        yield (drawn[first : first + size] * np.float32(rng.uniform(0.5, 1.5))).tobytes()


@dataclass(frozen=True)
class Usage:
    """What a process took: seconds, and megabytes at the peak, mapped files included (``peak``) or not (``own``)."""

    code: int
    seconds: float
    peak: float
    own: float
    output: str


_DRIVER = """
import json, sys, threading, time
from pathlib import Path

def status(key, file):
    lines = Path("/proc/self/" + file).read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key + ":")) / 1000 * 1.024

own, done = [0.0], threading.Event()

def watch():
    while not done.wait(0.02):
        own[0] = max(own[0], status("RssAnon", "status"))

thread = threading.Thread(target=watch, daemon=True)
thread.start()
start = time.perf_counter()
from graphprune.__main__ import command_line
code = command_line()(sys.argv[1:])
seconds = time.perf_counter() - start
done.set()
thread.join()
print("\\n" + json.dumps([code, seconds, status("VmHWM", "status"), own[0]]))
"""


def measured(*arguments: object) -> Usage:
    """The command line in a process of its own. Needs /proc (Linux)."""
    command = [sys.executable, "-c", _DRIVER, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    *output, figures = done.stdout.splitlines() or [""]
    assert figures.startswith("["), done.stderr
    return Usage(*json.loads(figures), "\n".join([*output, done.stderr]))
