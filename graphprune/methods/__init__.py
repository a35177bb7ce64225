"""Methods that train masks or score units by gradients: one file each."""

from graphprune.methods import (  # noqa: F401 - importing registers
    acdc,
    awg,
    gmp,
    grasp,
    pas,
    pdp,
    pso,
    smart,
    snip,
    synflow,
    taylor,
)
from graphprune.methods.from_criteria import searching as searching
from graphprune.methods.registry import TrainedMethod as TrainedMethod
from graphprune.methods.registry import all_trained as all_trained
from graphprune.methods.registry import find_trained as find_trained
from graphprune.methods.registry import register as register
from graphprune.methods.registry import scored as scored
