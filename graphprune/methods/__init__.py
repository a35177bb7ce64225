"""Methods that train masks or score units by gradients: one file each."""

from graphprune.methods import gmp, grasp, smart, snip, synflow, taylor  # noqa: F401 - importing registers
from graphprune.methods.registry import TrainedMethod as TrainedMethod
from graphprune.methods.registry import all_trained as all_trained
from graphprune.methods.registry import find_trained as find_trained
