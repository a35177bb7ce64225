"""Which channel counts onnxruntime's CPU kernels run well: the ground of ``multiple_of`` in cpu-ort.toml.

Time for a multiply-accumulate at a channel count, relative to that at the width it is near to. Counts
take turns, so that a busy machine slows all of them; what is printed is the median of the paired ratios.
Time is that of the calling thread, on which a session with one thread computes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphprune.targets.target import find_target

WIDTHS = (32, 64, 128)
OFFSETS = (-1, 1, 4, 8, 16, 32)
TURNS = 25
LAYERS = 4


def convolutions(channels: int, kernel: int, side: int) -> Callable[[], float]:
    """A chain of ``LAYERS`` convolutions with ReLU, and what one run of it takes in seconds."""
    rng = np.random.default_rng(0)
    nodes, weights = [], []
    for i in range(LAYERS):
        array = rng.standard_normal((channels, channels, kernel, kernel)) / np.sqrt(channels * kernel**2)
        weights.append(numpy_helper.from_array(array.astype(np.float32), f"w{i}"))
        nodes.append(helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"c{i}"], pads=[kernel // 2] * 4))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"x{i + 1}"]))
    shape = [1, channels, side, side]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"x{LAYERS}", TensorProto.FLOAT, shape)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {"x0": rng.standard_normal(shape).astype(np.float32)}

    def once() -> float:
        start = time.thread_time()
        session.run(None, feed)
        return time.thread_time() - start

    once()
    return once


def relative_times(width: int, kernel: int) -> dict[int, float]:
    """Channel count -> time for a multiply-accumulate, relative to ``width``."""
    counts = [width, *(width + offset for offset in OFFSETS)]
    side = {32: 56, 64: 28, 128: 14}[width]
    runs = {count: convolutions(count, kernel, side) for count in counts}
    ratios: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(TURNS):
        # the least of three is the run that was disturbed least
        spent = {count: min(run() for _ in range(3)) / count**2 for count, run in runs.items()}
        for count in counts:
            ratios[count].append(spent[count] / spent[width])
    return {count: statistics.median(found) for count, found in ratios.items()}


@pytest.mark.parametrize("kernel", [3, 1])
def test_time_for_a_multiply_accumulate(kernel: int) -> None:
    multiple = find_target("cpu-ort").multiple_of
    assert multiple is not None
    print(f"\n{kernel}x{kernel} convolutions, onnxruntime {ort.__version__}, one thread, time for a MAC:")
    aligned, others = [], []
    for width in WIDTHS:
        found = relative_times(width, kernel)
        print("  " + "  ".join(f"{count}: {ratio:.2f}" for count, ratio in sorted(found.items())))
        for count, ratio in found.items():
            if count != width:
                (others if count % multiple else aligned).append(ratio)
    print(
        f"  multiples of {multiple}: {statistics.median(aligned):.2f}, others {statistics.median(others):.2f}"
    )
    assert statistics.median(aligned) < statistics.median(others)
