"""Train ResNet-20 on CIFAR-10 (one CPU core) and write the two files shipped with the samples.

    python -m sample_models.train_resnet20 --data ../shared/data --checkpoint /tmp/resnet20.pt

Writes `resnet20_cifar10.onnx` and `cifar10_eval.npz` next to this file. The run resumes from the
checkpoint if there is one. Needs Pillow (the data are stored as JPEG scans) and onnxruntime besides PyTorch.
"""

import argparse
import importlib.util
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from torch import Tensor, nn

from sample_models.export import export_module
from sample_models.resnet import ResNet, resnet20

HERE = Path(__file__).resolve().parent
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
PAD = 4
SIZE = 32
EVAL_IMAGES = 600

Images = npt.NDArray[np.uint8]


def load_cifar10(folder: Path) -> tuple[tuple[Images, Images], tuple[Images, Images]]:
    """(train images, labels), (test images, labels) by the reader `datasets.py` of the data folder."""
    spec = importlib.util.spec_from_file_location("datasets", folder / "datasets.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(folder / "datasets.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    result: tuple[tuple[Images, Images], tuple[Images, Images]] = module.cifar10()
    return result


def to_tensor(images: Images) -> Tensor:
    """Normalised float NCHW tensor of uint8 NHWC images."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255)
    return x.sub_(torch.tensor(MEAN).view(1, 3, 1, 1)).div_(torch.tensor(STD).view(1, 3, 1, 1))


def augment(padded: Tensor, generator: torch.Generator) -> Tensor:
    """A random 32x32 crop of each padded image, mirrored at random: one gather for the whole batch."""
    n = padded.shape[0]
    rows = torch.randint(0, 2 * PAD + 1, (n, 1), generator=generator) + torch.arange(SIZE)
    cols = torch.randint(0, 2 * PAD + 1, (n, 1), generator=generator) + torch.arange(SIZE)
    mirrored = torch.rand(n, 1, generator=generator) < 0.5
    cols = torch.where(mirrored, cols.flip(1), cols)
    index = torch.arange(n)
    crops = padded.permute(0, 2, 3, 1)[index[:, None, None], rows[:, :, None], cols[:, None, :]]
    return crops.permute(0, 3, 1, 2)


def learning_rate(step: int, total: int, peak: float, warmup: float) -> float:
    """One cycle: linear rise over the first `warmup` share of the steps, then a half cosine to zero."""
    rise = warmup * total
    if step < rise:
        return peak * (0.05 + 0.95 * step / rise)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rise) / (total - rise)))


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Top-1 accuracy in float32 evaluation mode."""
    model.eval()
    with torch.inference_mode():
        batches = zip(torch.split(x, 500), torch.split(y, 500), strict=True)
        return sum(int((model(images).argmax(1) == labels).sum()) for images, labels in batches) / len(y)


def make_optimizer(model: nn.Module, weight_decay: float) -> torch.optim.SGD:
    """Nesterov SGD, weight decay on the convolution and linear weights only."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain}]
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)


def train(args: argparse.Namespace, x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor) -> ResNet:
    """Train, or resume, for `args.epochs` epochs and return the model."""
    torch.manual_seed(args.seed)
    model: ResNet = resnet20().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make_optimizer(model, args.weight_decay)
    loss_function = nn.CrossEntropyLoss(label_smoothing=args.label_smoothing)
    first = 0
    if args.checkpoint.exists():
        state = torch.load(args.checkpoint)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["epoch"]
    elif args.init is not None:
        model.load_state_dict(torch.load(args.init)["model"])
    padded = nn.functional.pad(x, (PAD,) * 4, mode="reflect").bfloat16()
    padded = padded.contiguous(memory_format=torch.channels_last)
    steps = len(y) // args.batch
    for epoch in range(first, args.epochs):
        generator = torch.Generator().manual_seed(args.seed * 1000 + epoch)
        order = torch.randperm(len(y), generator=generator)
        model.train()
        start, running = time.time(), 0.0
        for step in range(steps):
            batch = order[step * args.batch : (step + 1) * args.batch]
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(epoch * steps + step, args.epochs * steps, args.lr, args.warmup)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(augment(padded[batch], generator))
            loss = loss_function(logits.float(), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            running += loss.item()
            if epoch == first and step == 49:
                print(f"estimate: {(time.time() - start) / 50 * steps:.0f} s an epoch", flush=True)
        seconds = time.time() - start
        last = epoch + 1 == args.epochs
        score = accuracy(model, x_test, y_test) if last or epoch % 5 == 4 else float("nan")
        print(f"epoch {epoch + 1} loss {running / steps:.4f} test {score:.4f} ({seconds:.0f} s)", flush=True)
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1}
        args.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        scratch = args.checkpoint.with_suffix(".tmp")
        torch.save(state, scratch)
        os.replace(scratch, args.checkpoint)
    return model


def onnx_accuracy(path: Path, x: npt.NDArray[np.float32], y: Images) -> float:
    """Top-1 accuracy of the exported file under onnxruntime."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    hits = 0
    for begin in range(0, len(y), 500):
        (logits,) = session.run(["logits"], {"input": x[begin : begin + 500]})
        hits += int((np.asarray(logits).argmax(1) == y[begin : begin + 500]).sum())
    return hits / len(y)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with datasets.py")
    parser.add_argument("--checkpoint", type=Path, default=Path("resnet20_cifar10.pt"))
    parser.add_argument("--init", type=Path, help="checkpoint whose weights begin a new cycle")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for the ONNX file and the test slice")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=0.3, help="peak learning rate")
    parser.add_argument("--warmup", type=float, default=0.25, help="share of the steps in which it rises")
    parser.add_argument("--weight-decay", type=float, default=5e-4)
    parser.add_argument("--label-smoothing", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    (train_u8, train_labels), (test_u8, test_labels) = load_cifar10(args.data)
    x_test, y_test = to_tensor(test_u8), torch.from_numpy(test_labels).long()
    model = train(args, to_tensor(train_u8), torch.from_numpy(train_labels).long(), x_test, y_test)

    path = args.out / "resnet20_cifar10.onnx"
    plain = resnet20()  # not channels_last
    plain.load_state_dict(model.state_dict())
    export_module(plain, path, x_test[:2], ("logits",))
    images = np.ascontiguousarray(test_u8[:EVAL_IMAGES].transpose(0, 3, 1, 2))
    np.savez_compressed(
        args.out / "cifar10_eval.npz",
        input_u8=images,
        labels=test_labels[:EVAL_IMAGES].astype(np.int64),
        mean=np.array(MEAN, np.float32).reshape(1, 3, 1, 1),
        std=np.array(STD, np.float32).reshape(1, 3, 1, 1),
    )
    test = x_test.numpy()
    print(f"PyTorch, test set: {accuracy(model, x_test, y_test):.4f}")
    print(f"onnxruntime, test set: {onnx_accuracy(path, test, test_labels):.4f}")
    score = onnx_accuracy(path, test[:EVAL_IMAGES], test_labels[:EVAL_IMAGES])
    print(f"onnxruntime, first {EVAL_IMAGES} of the test set: {score:.4f}")


if __name__ == "__main__":
    main()
