"""Command line: `python -m sample_models --list`, `... resnet50 -o out.onnx`, `... --all -o DIR`."""

import argparse
import logging
from pathlib import Path

from sample_models.zoo import SAMPLES, export


def main() -> None:
    """List the samples, or export one or all of them."""
    parser = argparse.ArgumentParser(
        prog="python -m sample_models", description="Export sample networks to ONNX."
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("name", nargs="?", choices=list(SAMPLES), help="sample to export")
    what.add_argument("--all", action="store_true", help="export every sample")
    what.add_argument("--list", action="store_true", help="show the names and input shapes")
    parser.add_argument("-o", "--output", type=Path, help="file, or a folder with --all (default: here)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--full", action="store_true", help="the paper's widths and input size")
    args = parser.parse_args()
    if args.list:
        for name, sample in SAMPLES.items():
            print(f"{name:18} {sample.input_shape()!s:15} full {sample.input_shape(full=True)}")
        return
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it reports that torchvision is not installed
    folder = args.output or Path(".")
    targets = {name: folder / f"{name}.onnx" for name in SAMPLES} if args.all else {}
    if args.name:
        targets[args.name] = args.output or Path(f"{args.name}.onnx")
    for name, path in targets.items():
        export(name, path, args.seed, args.full)
        print(f"{path} ({path.stat().st_size / 1e6:.2f} MB)")


if __name__ == "__main__":
    main()
