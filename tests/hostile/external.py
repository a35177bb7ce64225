"""Weights in files beside the model: missing, short, elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from tests.conftest import small_network
from tests.hostile.kit import Made, node, refused, right, right_by_own_proof, weight_of


def outside(proto: onnx.ModelProto, folder: Path, **told: str) -> onnx.ModelProto:
    """conv2.weight in weights.bin, or wherever ``told`` says."""
    tensor = weight_of(proto, "conv2.weight")
    (folder / "weights.bin").write_bytes(bytes(64) + tensor.raw_data)
    size = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entries = {"location": "weights.bin", "offset": "64", "length": str(size)} | told
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return proto


@right
def external_data(folder: Path) -> Made:
    return outside(small_network(), folder)


@refused("'conv2.weight' is in weights.bin, which is missing")
def external_data_missing(folder: Path) -> Made:
    proto = outside(small_network(), folder)
    (folder / "weights.bin").unlink()
    return proto


@refused("weights.bin, which is too short")
def external_data_short(folder: Path) -> Made:
    proto = outside(small_network(), folder)
    os.truncate(folder / "weights.bin", 1000)
    return proto


@refused("weights.bin, which is too short")
def external_data_behind_the_end(folder: Path) -> Made:
    return outside(small_network(), folder, offset="65")


@refused("no number from 0")
def external_offset_negative(folder: Path) -> Made:
    return outside(small_network(), folder, offset="-4")


@refused("no number from 0")
def external_offset_huge(folder: Path) -> Made:
    return outside(small_network(), folder, offset="9" * 40)


@refused("no number from 0")
def external_offset_no_number(folder: Path) -> Made:
    return outside(small_network(), folder, offset="0x40")


@refused("no number from 0")
def external_length_no_number(folder: Path) -> Made:
    return outside(small_network(), folder, length="many")


@refused("needs 13824")
def external_length_wrong(folder: Path) -> Made:
    return outside(small_network(), folder, length="4")


@refused("no name")
def external_data_without_a_place(folder: Path) -> Made:
    return outside(small_network(), folder, location="")


@refused("outside the model's folder")
def external_data_absolute(folder: Path) -> Made:
    return outside(small_network(), folder, location="/etc/passwd", offset="0")


@refused("outside the model's folder")
def external_data_in_the_parent(folder: Path) -> Made:
    (folder / "inner").mkdir()
    proto = outside(small_network(), folder, location="../weights.bin")
    (folder / "inner" / "model.onnx").write_bytes(proto.SerializeToString())
    return folder / "inner" / "model.onnx"


@refused("outside the model's folder")
def external_data_behind_a_link(folder: Path) -> Made:
    (folder / "inner").mkdir()
    proto = outside(small_network(), folder)
    (folder / "inner" / "weights.bin").symlink_to(folder / "weights.bin")
    (folder / "inner" / "model.onnx").write_bytes(proto.SerializeToString())
    return folder / "inner" / "model.onnx"


@right_by_own_proof
def external_data_behind_a_link_inside(folder: Path) -> Made:
    proto = outside(small_network(), folder, location="link.bin")
    (folder / "link.bin").symlink_to("weights.bin")
    return proto


@refused("is a hard link")
def external_data_hard_link(folder: Path) -> Made:
    proto = outside(small_network(), folder)
    os.link(folder / "weights.bin", folder / "other.bin")
    return proto


@refused("no plain file")
def external_data_in_a_pipe(folder: Path) -> Made:
    proto = outside(small_network(), folder)
    (folder / "weights.bin").unlink()
    os.mkfifo(folder / "weights.bin")
    return proto


@refused("no plain file")
def external_data_in_a_folder(folder: Path) -> Made:
    return outside(small_network(), folder, location=".")


@right
def external_data_of_a_constant_node(folder: Path) -> Made:
    proto = outside(small_network(), folder)
    tensor = weight_of(proto, "conv2.weight")
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["conv2.weight"], value=tensor))
    proto.graph.initializer.remove(tensor)
    return proto


@refused("which is missing")
def external_data_of_a_function(folder: Path) -> Made:
    proto = outside(small_network(), folder, location="nowhere.bin")
    tensor = weight_of(proto, "conv2.weight")
    made = node("Constant", [], ["w"], value=tensor)
    proto.functions.append(
        helper.make_function("local", "Weight", [], ["w"], [made], [helper.make_opsetid("", 17)])
    )
    proto.opset_import.add(domain="local", version=1)
    proto.graph.node.insert(0, helper.make_node("Weight", [], ["conv2.weight"], domain="local"))
    proto.graph.initializer.remove(tensor)
    return proto
