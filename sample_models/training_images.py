"""CIFAR-10 training images without labels, for the demo: JPEG scans behind one shared header.

python -m sample_models.training_images --data ../shared/data    # writes cifar10_train_sample.npz
"""

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
STORED = HERE / "cifar10_train_sample.npz"
NORMALISATION = HERE / "cifar10_eval.npz"
COUNT = 1200


def decode(target: Path, source: Path = STORED) -> Path:
    """Write the images as ``--data`` reads them: uint8 ``input_u8`` [n, 3, 32, 32], ``mean`` and ``std``."""
    with np.load(source) as stored:
        header, scans = stored["header"].tobytes(), stored["scans"].tobytes()
        ends = np.cumsum(stored["lengths"], dtype=np.int64)
    starts = [0, *ends[:-1]]
    files = (io.BytesIO(header + scans[a:b]) for a, b in zip(starts, ends, strict=True))
    images = np.stack([np.asarray(Image.open(file)) for file in files]).transpose(0, 3, 1, 2)
    with np.load(NORMALISATION) as constants:
        np.savez(target, input_u8=images, mean=constants["mean"], std=constants["std"])
    return target


def store(data: Path, target: Path = STORED) -> None:
    """The first ``COUNT`` training images of the data folder, as they are stored there."""
    with np.load(data / "cifar10.npz") as whole:
        lengths = whole["len_train"][:COUNT]
        scans = whole["jpg_train"][: int(lengths.sum(dtype=np.int64))]
        np.savez(target, header=whole["header"], lengths=lengths, scans=scans)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with cifar10.npz")
    store(parser.parse_args().data)


if __name__ == "__main__":
    main()
