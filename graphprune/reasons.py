"""Why channels stay: the enumerated human reasons that ``analyze`` prints."""

from __future__ import annotations

from enum import Enum


class Reason(Enum):
    """Each member's value is the sentence a user reads; the report appends the node's name."""

    OUTPUT = "the model's output has these channels"
    UNKNOWN_OPERATOR = "no rule for this operator"
    UNKNOWN_SHAPE = "the tensor's shape is not known"
    CONTROL_FLOW = "a sub-graph (If, Loop, Scan) reads it"
    CROSS_CHANNEL = "the operator mixes channels in its statistics; --allow-inexact prunes through it"
    COMPETING = "the operator compares these positions with each other (softmax, argmax, sort)"
    DATA_DEPENDENT = "positions are chosen at run time"
    FIXED_OPERAND = "it meets a tensor whose channels cannot be removed"
    SPACE = "the labels vary along an axis that the operator treats as space or batch"
    SINGLE_POSITION = "one fixed position is picked out"
    DYNAMIC_WEIGHT = "the weight is computed at run time"
    MODE = "this mode of the operator reads across channels"
    STATE = "the recurrent state comes from or goes to the outside"
    REARRANGED = "positions move in a way that cannot be written as one selection"
    TOO_LARGE = "the axis is too large to label"
    SHARED_LAYOUT = "one stored tensor is read in two incompatible ways"
    LAST = "only one channel: an axis is never emptied"
