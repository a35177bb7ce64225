"""The paper's tables at a size that runs here: see README.md beside this file.

python -m tests.benchmarks.paper tune | table2 | ... [--hours H]     runs what is missing of an experiment
python -m tests.benchmarks.paper dense                               trains the networks that are pruned
python -m tests.benchmarks.paper row --network resnet20 ...          runs one row
python -m tests.benchmarks.paper tables                              writes README.md's tables and the figures
"""

from __future__ import annotations

import os
import sys

MALLOC = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=100000000000",
    "OMP_NUM_THREADS": "1",
}
"""Memory is kept instead of being given back after every step: 0.2 s instead of 1 s for one of ResNet-20."""


if __name__ == "__main__":
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**MALLOC, **os.environ})
    from tests.benchmarks.paper.commands import main

    main()
