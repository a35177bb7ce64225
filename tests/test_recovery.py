"""What training takes from pruning without training: where masks start, refitted weights, what trains on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("torch", reason="trained masks need torch")

import torch
from conftest import Run, small_network

import graphprune
from graphprune import Plan, Search, TrainingOptions, prune
from graphprune.calibration.channels import compensated
from graphprune.calibration.distances import output_distance
from graphprune.calibration.inputs import calibration_feeds
from graphprune.calibration.pairs import channel_pairs
from graphprune.calibration.refit import in_units_of
from graphprune.calibration.statistics import Statistics
from graphprune.choosing import PruneOptions, requested_budget
from graphprune.errors import Interrupted, OptionError
from graphprune.frontends.onnx import build_graph
from graphprune.pruning import analyze
from graphprune.recipes.recipe import Recipe
from graphprune.recipes.training import Progress
from graphprune.search.reconstructing import refit
from graphprune.surgery import apply
from graphprune.training import loop
from graphprune.training.averaging import Average
from graphprune.training.layerwise import observe
from graphprune.training.losses import find_loss
from graphprune.training.recovery import check_refit, trainable
from graphprune.writeback import stored_arrays, with_tensors

ROOT = Path(__file__).resolve().parents[1]
RESNET = ROOT / "sample_models" / "resnet20_cifar10.onnx"
EVAL = ROOT / "sample_models" / "cifar10_eval.npz"
QUICK = Recipe(search_epochs=2, finetune_epochs=1, batch_size=16, device="cpu", threads=1)
RNG = np.random.default_rng


class Watch:
    """Remembers what it is told; may raise at a step."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.steps: list[Progress] = []
        self.metrics: dict[str, float] = {}
        self.notes: list[str] = []
        self.stop_at = stop_at

    def step(self, progress: Progress) -> None:
        self.steps.append(progress)
        if progress.step == self.stop_at:
            raise KeyboardInterrupt

    def metric(self, when: str, name: str, value: float) -> None:
        self.metrics[when] = value

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


def normalised_network(*, matmul: bool = False) -> onnx.ModelProto:
    """conv (16) -> BatchNormalization -> Relu -> conv (24) -> BatchNormalization -> Relu -> mean -> fc (5)."""
    rng = RNG(0)

    def weight(name: str, *shape: int, low: float | None = None) -> onnx.TensorProto:
        array = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) or 1)
        return numpy_helper.from_array(
            (array if low is None else low + np.abs(array)).astype(np.float32), name
        )

    nodes, weights, before = [], [], "x"
    for i, (outputs, inputs) in enumerate([(16, 3), (24, 16)], 1):
        names = [f"norm{i}.{n}" for n in ("scale", "bias", "mean", "var")]
        nodes += [
            helper.make_node("Conv", [before, f"conv{i}.weight"], [f"c{i}"], f"conv{i}", pads=[1] * 4),
            helper.make_node("BatchNormalization", [f"c{i}", *names], [f"n{i}"], f"norm{i}"),
            helper.make_node("Relu", [f"n{i}"], [f"r{i}"], f"relu{i}"),
        ]
        weights += [
            weight(f"conv{i}.weight", outputs, inputs, 3, 3),
            weight(names[0], outputs, low=0.5),
            weight(names[1], outputs),
            weight(names[2], outputs),
            weight(names[3], outputs, low=0.5),
        ]
        before = f"r{i}"
    nodes += [
        helper.make_node("GlobalAveragePool", ["r2"], ["e"], "mean"),
        helper.make_node("Flatten", ["e"], ["f"], "flatten"),
    ]
    if matmul:
        nodes += [
            helper.make_node("MatMul", ["f", "fc.weight"], ["m"], "fc"),
            helper.make_node("Add", ["m", "fc.bias"], ["y"], "add"),
        ]
        weights += [weight("fc.weight", 24, 5), weight("fc.bias", 5)]
    else:
        nodes.append(helper.make_node("Gemm", ["f", "fc.weight", "fc.bias"], ["y"], "fc", transB=1))
        weights += [weight("fc.weight", 5, 24), weight("fc.bias", 5)]
    graph = helper.make_graph(
        nodes,
        "normalised",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def normalised(tmp_path: Path) -> Path:
    path = tmp_path / "normalised.onnx"
    onnx.save(normalised_network(), path)
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = RNG(0)
    path = tmp_path / "images.npz"
    np.savez(path, x=rng.standard_normal((96, 3, 8, 8)).astype(np.float32), labels=rng.integers(0, 5, 96))
    return path


@pytest.fixture(scope="module")
def photos() -> np.ndarray:
    """CIFAR-10 images as ResNet-20 takes them."""
    with np.load(EVAL) as stored:
        x = stored["input_u8"][:96].astype(np.float32) / 255
        return np.ascontiguousarray((x - stored["mean"]) / stored["std"], np.float32)


def tensors(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def values(model: ir.Model, x: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    """Inner values of a model of one input."""
    proto = ir.to_proto(model)
    known = {o.name for o in proto.graph.output}
    proto.graph.output.extend(helper.make_empty_tensor_value_info(n) for n in names if n not in known)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: x}), strict=True))


def kept_part(array: np.ndarray, removed: dict[int, list[int]]) -> np.ndarray:
    for axis, indices in removed.items():
        array = np.delete(array, indices, int(axis))
    return array


# -- the refit towards another model's activations ------------------------------------------------------------


def measured(proto: onnx.ModelProto, x: np.ndarray) -> Statistics:
    model = ir.from_proto(proto)
    options = PruneOptions(
        requested_budget("channel", "2:4", {"sparsity": 0.5}), multiple_of=1, input_shapes={"x": x.shape}
    )
    return Statistics(model, analyze(model, "model", options), options, [{"x": x}])


@pytest.mark.parametrize("matmul", [False, True])
def test_a_trained_student_is_fitted_to_the_original(matmul: bool) -> None:
    """Its weights, biases and BatchNormalizations are others; every layer comes nearer to the original's."""
    rng = RNG(1)
    x = rng.standard_normal((64, 3, 8, 8)).astype(np.float32)
    proto = normalised_network(matmul=matmul)
    statistics = measured(proto, x)
    arrays = tensors(proto)
    changed = {
        n: (a * rng.uniform(0.6, 1.4, a.shape) + (0.1 if "var" in n else 0.0)).astype(np.float32)
        for n, a in arrays.items()
    }
    student = with_tensors(statistics.model, changed)
    alive = np.ones(statistics.analysis.coupling.count, bool)
    found = compensated(statistics, alive, "lstsq", changed)
    names = ["n1", "r2", "y"]
    wanted, before, after = (values(m, x, names) for m in (statistics.model, student, found))
    for name in names:
        error = [float(np.square(part[name] - wanted[name]).mean()) for part in (before, after)]
        assert error[1] < 0.1 * error[0], name
    now = stored_arrays(found, arrays)
    scales = [n for n in arrays if n.startswith("norm") and not n.endswith("bias")]
    assert all(np.array_equal(now[n], changed[n]) for n in scales)


def test_what_stays_of_a_student_is_fitted_and_what_goes_is_not() -> None:
    """A quarter of conv1 goes; what is left of the student comes nearer to the original than the original cut."""
    x = RNG(1).standard_normal((32, 3, 8, 8)).astype(np.float32)
    proto = normalised_network()
    statistics = measured(proto, x)
    student = {n: (1.3 * a + 0.1).astype(np.float32) for n, a in tensors(proto).items()}
    alive = np.ones(statistics.analysis.coupling.count, bool)
    group = next(g for g in statistics.analysis.groups if g.prunable)
    alive[group.channels[:4]] = False
    found = compensated(statistics, alive, "lstsq", student)
    arrays = stored_arrays(found, student)
    kept = student["conv1.weight"] == arrays["conv1.weight"]
    assert kept.all(axis=(1, 2, 3)).sum() == 4
    analysis = analyze(found, "model", statistics.options)
    small, whole = apply(found, analysis.coupling, alive).model, statistics.model
    bare = apply(whole, statistics.analysis.coupling, alive).model
    error = [np.square(values(m, x, ["y"])["y"] - values(whole, x, ["y"])["y"]).mean() for m in (bare, small)]
    assert error[1] < 0.5 * error[0]


def test_without_a_student_targets_are_left_alone() -> None:
    x = RNG(1).standard_normal((8, 3, 8, 8)).astype(np.float32)
    statistics = measured(normalised_network(matmul=True), x)
    graph, coupling = statistics.analysis.graph, statistics.analysis.coupling
    kept = coupling.kept(np.ones(coupling.count, bool))
    for pair in channel_pairs(graph, graph, coupling, kept):
        y = RNG(0).standard_normal((3, pair.outputs.size)).astype(np.float32)
        assert in_units_of(pair, y) is y


# -- --refit -----------------------------------------------------------------------------------------------


def hardened(method: str, photos: np.ndarray, **words) -> Search:
    batches = [(torch.from_numpy(photos[i : i + 32]),) for i in (0, 32, 64)]
    search = Search(RESNET, method=method, sparsity=0.5, multiple_of=1, batches=batches, **words)
    search.harden()
    return search


@pytest.mark.parametrize("moved", [0.0, 0.1])
def test_the_refit_lowers_the_loss_right_after_hardening(moved: float, photos: np.ndarray) -> None:
    """And the network computes in training, by the statistics of the batch, what it does in evaluation.

    moved: what training has done to weights, scales and biases until then, relative to them.
    """
    search = hardened("magnitude", photos)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in search.weights().values():
            p.mul_(1 + moved * torch.randn(p.shape, generator=generator))
    x = torch.from_numpy(photos)

    def outputs(module: torch.nn.Module, *, training: bool) -> dict[str, np.ndarray]:
        with torch.no_grad():
            return {"y": module.train(training)(x).numpy()}

    wanted = outputs(search.original, training=False)
    before = output_distance([wanted], [outputs(search.module.eval(), training=False)])
    refit(search)
    after = outputs(search.module, training=False)
    assert output_distance([wanted], [after]) < 0.2 * before
    assert output_distance([after], [outputs(search.module, training=True)]) < 0.05
    search.module.eval()
    assert search.result().fidelity.holds


def test_the_refit_serves_blocks_and_rows(normalised: Path, images: Path) -> None:
    for words in ({"structure": "block", "block": "4x4", "sparsity": 0.5}, {"structure": "nm", "nm": "2:4"}):
        loss = []
        for fitted in (False, True):
            watch = Watch()
            recipe = replace(QUICK, refit=fitted, finetune_epochs=0.34, lr=0.0)
            options = TrainingOptions(str(images), recipe, watcher=watch)
            prune(normalised, method="magnitude", training=options, **words)
            loss.append(watch.steps[0].loss)
        assert loss[1] < 0.5 * loss[0], words


@pytest.mark.parametrize("stop_at", [11, 12, 15])
@pytest.mark.parametrize(
    "changes",
    [
        {"ema": 0.9, "optimizer": "muon"},
        {"init_from": "reconstruct", "trainable": "biases-and-norms", "augment": "light"},
    ],
    ids=["average", "everything"],
)
def test_resume_continues_bit_for_bit_and_refits_once(
    stop_at: int,
    changes: dict,
    normalised: Path,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    monkeypatch.setattr(loop, "refit", lambda search: (calls.append(search), refit(search)))
    recipe = replace(QUICK, refit=True, **changes)

    def run(**more) -> dict[str, np.ndarray]:
        options = TrainingOptions(str(images), recipe, eval_data=str(images), **more)
        found = prune(normalised, method="smart", sparsity=0.5, multiple_of=1, training=options)
        return tensors(found.model.to_onnx())

    whole = run()
    checkpoint = tmp_path / "run.checkpoint"
    with pytest.raises(Interrupted):
        run(checkpoint=checkpoint, watcher=Watch(stop_at))
    calls.clear()
    resumed = run(checkpoint=checkpoint, resume=True)
    assert len(calls) == (stop_at <= 12)  # the refit comes between steps 12 and 13
    assert whole.keys() == resumed.keys()
    assert all(np.array_equal(whole[n], resumed[n]) for n in whole)


def test_another_refit_is_another_run(normalised: Path, images: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.checkpoint"

    def run(recipe: Recipe, **more) -> None:
        options = TrainingOptions(str(images), recipe, checkpoint=checkpoint, **more)
        prune(normalised, method="smart", sparsity=0.5, training=options)

    with pytest.raises(Interrupted):
        run(QUICK, watcher=Watch(2))
    with pytest.raises(OptionError, match="--refit"):
        run(replace(QUICK, refit=True), resume=True)


def test_averages_begin_again() -> None:
    module = torch.nn.Linear(2, 2)
    average = Average(module, 0.9)
    average.update()
    with torch.no_grad():
        module.weight.fill_(3.0)
    average.restart()
    assert average.steps == 0
    assert (average.averages["weight"] == 3).all()


def test_nothing_to_refit() -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(OptionError, match="--refit: no contraction stores its weight"):
        check_refit(build_graph(ir.from_proto(model), {}))


# -- --init-from -------------------------------------------------------------------------------------------


def test_masks_start_with_the_decision_of_reconstruct(photos: np.ndarray) -> None:
    few = photos[:32]
    batches = [(torch.from_numpy(few),)]
    words = {"sparsity": 0.2, "multiple_of": 1, "only": ["node_Conv_32*"]}
    search = Search(RESNET, init_from="reconstruct", batches=batches, **words)
    logits = search.masking.masks.logits.detach().numpy()
    assert logits.std() == pytest.approx(1, abs=1e-3)
    plan, _ = search.finish()
    alone = prune(RESNET, method="reconstruct", data=[{"input": few}], **words)
    assert plan.removed == alone.plan.removed
    keep = search.masking.hard.keep
    assert logits[keep].min() > logits[~keep].max()


@pytest.mark.parametrize(
    "words",
    [
        {"sparsity": 0.4},
        {"params": 0.5},
        {"macs": 0.3},
        {"sparsity": 0.5, "multiple_of": 8},
        {"sparsity": 0.5, "allocation": "uniform"},
    ],
)
def test_the_decision_under_other_budgets(words: dict, normalised: Path) -> None:
    x = RNG(3).standard_normal((32, 3, 8, 8)).astype(np.float32)
    words = {"multiple_of": 1, **words}
    search = Search(normalised, init_from="reconstruct", batches=[(torch.from_numpy(x),)], **words)
    alone = prune(normalised, method="reconstruct", data=[{"x": x}], **words)
    assert search.finish()[0].removed == alone.plan.removed


def test_blocks_start_with_the_decision_of_reconstruct(normalised: Path) -> None:
    x = RNG(3).standard_normal((32, 3, 8, 8)).astype(np.float32)
    words = {"structure": "block", "block": "4x4", "sparsity": 0.5}
    search = Search(normalised, init_from="reconstruct", batches=[(torch.from_numpy(x),)], **words)
    alone = prune(normalised, method="reconstruct", allocation="global", data=[{"x": x}], **words)
    assert search.finish()[0].blocks == alone.plan.blocks


def test_training_looks_at_what_reconstruct_does(normalised: Path, images: Path) -> None:
    """Data by its name: at most 256 samples in the order of the seed, whatever the batch size."""
    found = []

    def feeds(self: loop.Training) -> list:
        found.extend(given(self))
        return found

    given = loop.Training._feeds
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Training, "_feeds", feeds)
        recipe = replace(QUICK, init_from="reconstruct", max_steps=2)
        prune(normalised, method="smart", sparsity=0.5, seed=3, training=TrainingOptions(str(images), recipe))
    wanted = calibration_feeds(images, graphprune.load(normalised).ir, 256, seed=3)
    assert [f["x"].shape[0] for f in found] == [64, 32]
    assert all(np.array_equal(a["x"], b["x"]) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"structure": "nm"}, "--init-from reconstruct is for --structure channel and block"),
        ({"method": "pdp", "sparsity": 0.5}, "--method pdp has none: leave it out"),
        ({"method": "pas", "sparsity": 0.5}, "--method pas has none"),
        ({"method": "magnitude", "sparsity": 0.5}, "--method magnitude has none"),
        ({"sparsity": 0.5}, "--init-from and --refit look at inputs: give data"),
    ],
)
def test_refused_starts(words: dict, sentence: str, normalised: Path) -> None:
    with pytest.raises(OptionError, match=sentence):
        Search(normalised, init_from="reconstruct", **words)


def test_a_traced_module_starts_and_is_refitted() -> None:
    """Of PyTorch, with a depthwise convolution and BatchNormalizations of its own."""
    nn = torch.nn
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16), nn.Hardswish()),
        *(nn.Conv2d(16, 32, 1), nn.BatchNorm2d(32), nn.ReLU6()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5)),
    )
    x = torch.randn(64, 3, 8, 8)
    net.train()(x)
    words = {"sparsity": 0.4, "multiple_of": 1, "init_from": "reconstruct", "batches": [(x,)]}
    search = Search(net.eval(), (x[:2],), **words)
    search.harden()

    def error() -> float:
        with torch.no_grad():
            return float((search.module.eval()(x) - search.original(x)).square().mean())

    before = error()
    refit(search)
    assert error() < 0.5 * before
    assert search.result().fidelity.holds


# -- --trainable -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "search_epochs"), [("magnitude", 2), ("smart", 2)])
def test_only_biases_and_norms_train_on(
    method: str, search_epochs: float, normalised: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit: after hardening no weight of a contraction moves, and all the others do."""
    seen: list[dict[str, np.ndarray]] = []
    harden = Search.harden

    def watched(self: Search) -> float:
        found = harden(self)
        seen.append({n: a.copy() for n, a in self.trained().items()})
        return found

    monkeypatch.setattr(Search, "harden", watched)
    watch = Watch()
    recipe = replace(QUICK, trainable="biases-and-norms", search_epochs=search_epochs, weight_decay=0.01)
    options = TrainingOptions(str(images), recipe, watcher=watch)
    result = prune(normalised, method=method, sparsity=0.5, multiple_of=1, training=options)
    removed = result.plan.removed
    for name, array in tensors(result.model.to_onnx()).items():
        same = np.array_equal(array, kept_part(seen[-1][name], removed.get(name, {})))
        assert same == name.endswith(".weight"), name
    assert [n for n in watch.notes if "parameters train" in n] == [
        "once the masks are fixed, 85 of 4,093 parameters train (2.1 %): biases-and-norms"
    ]


def written_out_norm() -> onnx.ModelProto:
    """A LayerNormalization in single operators, a bias behind a Reshape, a temperature and a table."""
    w = {
        "table": (7, 6), "gamma": (6,), "beta": (6,), "w": (6, 4), "bias": (4,), "epsilon": (), "slope": (4,),
    }  # fmt: skip
    arrays = [numpy_helper.from_array(np.full(s, 0.5, np.float32), n) for n, s in w.items()]
    arrays.append(numpy_helper.from_array(np.array([1, 4]), "shape"))
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["a"]),
        helper.make_node("Mul", ["a", "gamma"], ["b"]),
        helper.make_node("Add", ["b", "beta"], ["c"]),
        helper.make_node("Add", ["c", "epsilon"], ["d"]),
        helper.make_node("MatMul", ["d", "w"], ["e"]),
        helper.make_node("Reshape", ["bias", "shape"], ["f"]),
        helper.make_node("Add", ["e", "f"], ["g"]),
        helper.make_node("PRelu", ["g", "slope"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.INT64, [3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 4])],
        arrays,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_which_parameters_are_biases_and_norms() -> None:
    def chosen(proto: onnx.ModelProto) -> set[str]:
        graph = build_graph(ir.from_proto(proto), {})
        return trainable("biases-and-norms", dict.fromkeys(tensors(proto)), graph)  # type: ignore[arg-type]

    assert chosen(written_out_norm()) == {"gamma", "beta", "bias"}
    assert chosen(small_network(layer_norm=True)) == {
        "conv1.bias", "conv2.bias", "norm.weight", "norm.bias", "fc.bias",
    }  # fmt: skip


def test_no_bias_and_no_norm(tmp_path: Path, images: Path) -> None:
    proto = small_network()
    for node in proto.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            del node.input[2:]
    path = tmp_path / "bare.onnx"
    onnx.save(proto, path)
    options = TrainingOptions(str(images), replace(QUICK, trainable="biases-and-norms"))
    with pytest.raises(OptionError, match="the model has no bias and no normalisation, so use all"):
        prune(path, method="smart", sparsity=0.5, training=options)


# -- recipe and command line ----------------------------------------------------------------------------------


def test_misspelled_values() -> None:
    with pytest.raises(OptionError, match=r"--init-from reconstrct: .*reconstruct"):
        Recipe(init_from="reconstrct")
    with pytest.raises(OptionError, match=r"--trainable biases: .*biases-and-norms"):
        Recipe(trainable="biases")
    with pytest.raises(OptionError, match="--refit 'yes': give true or false"):
        Recipe(refit="yes")  # type: ignore[arg-type]


def test_the_command_line(normalised: Path, images: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "small.onnx"
    flags = ["--init-from", "reconstruct", "--refit", "--trainable", "biases-and-norms", "--max-steps", "4"]
    given = [
        "prune",
        normalised,
        "--sparsity",
        "0.5",
        "--method",
        "smart",
        "--data",
        images,
        "--batch-size",
        "16",
    ]
    code, _, err = run(*given, *flags, "-o", out)
    assert code == 0, err
    assert "85 of 4,093 parameters train" in err
    written = (tmp_path / "small.recipe.toml").read_text()
    assert 'init-from = "reconstruct"' in written
    assert "refit = true" in written
    assert 'trainable = "biases-and-norms"' in written
    again = tmp_path / "again.onnx"
    code, _, err = run("prune", normalised, "--recipe", tmp_path / "small.recipe.toml", "-o", again)
    assert code == 0, err
    first, second = (tensors(onnx.load(p)) for p in (out, again))
    assert all(np.array_equal(first[n], second[n]) for n in first)
    assert Plan.load(tmp_path / "small.plan.json").method == "smart"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--refit"], "--refit goes with a method that trains: give --data too"),
        (["--method", "reconstruct", "--data", "x.npz", "--refit"], "--refit is for training"),
        (["--init-from", "reconstruct"], "--init-from goes with a method that trains"),
        (["--trainable", "all"], "--trainable goes with a method that trains"),
    ],
)
def test_flags_of_training(arguments: list[str], sentence: str, normalised: Path, run: Run) -> None:
    code, _, err = run("prune", normalised, "--sparsity", "0.5", *arguments)
    assert code == 2
    assert sentence in err


# -- --loss layers -----------------------------------------------------------------------------------------


def linear_network() -> onnx.ModelProto:
    """x (16) -> Gemm (12) -> Gemm (5): least squares knows the best second layer."""
    rng = RNG(1)
    sizes = {"a.weight": (12, 16), "a.bias": (12,), "b.weight": (5, 12), "b.bias": (5,)}
    weights = [
        numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in sizes.items()
    ]
    nodes = [
        helper.make_node("Gemm", ["x", "a.weight", "a.bias"], ["h"], "a", transB=1),
        helper.make_node("Gemm", ["h", "b.weight", "b.bias"], ["y"], "b", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_one_layer_trained_by_gradients_comes_to_least_squares(tmp_path: Path) -> None:
    """And all layers together come below: the first one then helps, too."""
    path = tmp_path / "linear.onnx"
    onnx.save(linear_network(), path)
    rng = RNG(2)
    x = (rng.standard_normal((256, 16)) @ rng.standard_normal((16, 16))).astype(np.float32)
    words = {"method": "magnitude", "sparsity": 0.5, "multiple_of": 1}
    fitted = prune(path, data=[{"x": x}], compensate="lstsq", **words)
    errors = [apart(path, r.model.to_onnx(), x) for r in (fitted, prune(path, **words))]
    for trained in (["b.weight", "b.bias"], ["a.weight", "a.bias", "b.weight", "b.bias"]):
        search = Search(path, **words)
        search.harden()
        train_layers(search, trained, torch.from_numpy(x))
        search.finish()
        assert search.result().plan.removed == fitted.plan.removed
        errors.append(apart(path, search.result().model.to_onnx(), x))
    ridge, plain, one, both = errors
    weights = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    h = np.float64(x) @ weights["a.weight"].T + weights["a.bias"]
    y = h @ weights["b.weight"].T + weights["b.bias"]
    kept = np.delete(h, fitted.plan.removed["a.weight"]["0"], axis=1)
    design = np.hstack([kept, np.ones((256, 1))])
    least = np.square(y - design @ np.linalg.lstsq(design, y)[0]).mean()
    assert one == pytest.approx(least, rel=1e-3)
    assert least < ridge < 1.05 * least
    assert plain > 1.5 * least
    assert both < least


def train_layers(search: Search, names: list[str], x: torch.Tensor) -> None:
    """To the minimum of the loss over the weights ``names``."""
    loss = find_loss("layers", search.imported.graph, nodes=search.imported.nodes)
    theirs = observe(search.original, loss.observed, (x,))
    weights = [search.weights()[n] for n in names]
    optimizer = torch.optim.LBFGS(weights, max_iter=400, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(observe(search.module, loss.observed, (x,)), theirs, None)
        value.backward()
        return value

    optimizer.step(closure)


def test_the_command_trains_layers(normalised: Path, tmp_path: Path, run: Run) -> None:
    np.savez(tmp_path / "x.npz", x=RNG(0).standard_normal((64, 3, 8, 8)).astype(np.float32))
    words = ["--method", "magnitude", "--sparsity", 0.5, "--data", tmp_path / "x.npz", "--loss", "layers"]
    words += ["--finetune-epochs", 20, "--batch-size", 16, "--lr", 3e-3, "--threads", 1]
    assert run("prune", normalised, *words, "-o", tmp_path / "out.onnx")[0] == 0
    plain = prune(normalised, sparsity=0.5)
    x = np.load(tmp_path / "x.npz")["x"]
    found = [apart(normalised, m, x) for m in (onnx.load(tmp_path / "out.onnx"), plain.model.to_onnx())]
    assert found[0] < 0.5 * found[1]


def apart(path: Path, pruned: onnx.ModelProto, x: np.ndarray) -> float:
    """Mean squared difference of the outputs."""
    found = [
        ort.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        for m in (onnx.load(path), pruned)
    ]
    return float(np.square(found[0] - found[1]).mean())


def test_layers_are_compared_with_the_originals(normalised: Path) -> None:
    """Without masks a module equals its original in every layer; a moved weight shows in its own layer and later."""
    search = Search(normalised, method="magnitude", sparsity=0.5, deferred=True)
    loss = find_loss("layers", search.imported.graph, nodes=search.imported.nodes)
    assert len(loss.observed) == 3
    x = (torch.randn(2, 3, 8, 8),)
    theirs = observe(search.original, loss.observed, x)
    search.module.eval()
    weights = search.weights()
    with torch.no_grad():
        assert float(loss(observe(search.module, loss.observed, x), theirs, None)) < 1e-9
        weights["conv2.weight"].mul_(2.0)
        ours = observe(search.module, loss.observed, x)
    assert torch.equal(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], 2 * theirs[1])
    terms = [float((a - b).square().mean() / b.square().mean()) for a, b in zip(ours, theirs, strict=True)]
    assert float(loss(ours, theirs, None)) == pytest.approx(np.mean(terms), rel=1e-5)
    assert terms[1] == pytest.approx(1, rel=1e-5)
