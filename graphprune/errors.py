"""The few exceptions a user ever sees. Each message is one sentence: what, where, what to do."""

from __future__ import annotations


class GraphpruneError(Exception):
    """Base of every error raised on purpose. ``exit_code`` is what the command line returns."""

    exit_code = 2


class ModelError(GraphpruneError):
    """The model cannot be read, or holds something graphprune must refuse."""


class ConversionError(ModelError):
    """The model cannot be turned into a trainable PyTorch module; the message names node and operator."""


class OptionError(GraphpruneError):
    """An option or argument makes no sense, by itself or for this model."""


class DataError(GraphpruneError):
    """Training or evaluation data cannot be read, or does not fit the model."""


class TrainingError(GraphpruneError):
    """Training cannot go on: a loss that is not a number, or a checkpoint that the disk does not take."""


class Interrupted(GraphpruneError):
    """Training was stopped on purpose; the message tells how to go on.

    ``exit_code``: 128 and the number of the signal (130 for Ctrl-C).
    """

    def __init__(self, message: str, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class BudgetError(GraphpruneError):
    """The budget cannot be reached; the message names the best reachable value."""


class PlanError(GraphpruneError):
    """A plan is missing, malformed, or does not belong to the model."""


class FidelityError(GraphpruneError):
    """The pruned model does not equal the masked original: a bug of ours, nothing is written."""

    exit_code = 1


def own_bug(what: str) -> FidelityError:
    """What to raise where the result is wrong and the user can do nothing about it."""
    return FidelityError(f"{what}: this is a bug in graphprune, nothing was written, please report it")
