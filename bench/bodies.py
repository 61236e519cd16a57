"""One request body for each model and form, as a client of the Open Inference Protocol sends it."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from tritonclient.grpc import service_pb2

from .models import SHAPES, example
from .setting import WORK

FOLDER = WORK / "bodies"


@dataclass(frozen=True)
class Body:
    """A request's body in a file; `json_byte_size` is the length of a binary body's JSON part, else None."""

    file: Path
    json_byte_size: int | None = None


@cache
def body(model: str, form: str) -> Body:
    """Write the body for a model's example in `json`, `binary` or `grpc` (one frame), and say where it is."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = FOLDER / f"{model}.{form}"
    if form == "json":
        file.write_bytes(json_body(model))
        return Body(file)
    if form == "binary":
        head = binary_head(model)
        file.write_bytes(head + example(model).tobytes())
        return Body(file, len(head))
    message = grpc_message(model)
    file.write_bytes(b"\0" + struct.pack(">I", len(message)) + message)
    return Body(file)


def json_body(model: str) -> bytes:
    """Give the request with its numbers as text, each the shortest that reads back bit for bit."""
    numbers = ",".join(np.format_float_positional(v, unique=True, trim="0") for v in example(model).ravel())
    tensor = f'{{"name":"input","shape":{json.dumps(SHAPES[model])},"datatype":"FP32","data":[{numbers}]}}'
    return f'{{"inputs":[{tensor}]}}'.encode()


def binary_head(model: str) -> bytes:
    """Give the JSON part of a binary request; the tensor's bytes follow it."""
    tensor = {
        "name": "input",
        "shape": SHAPES[model],
        "datatype": "FP32",
        "parameters": {"binary_data_size": example(model).nbytes},
    }
    request = {"inputs": [tensor], "outputs": [{"name": "output", "parameters": {"binary_data": True}}]}
    return json.dumps(request, separators=(",", ":")).encode()


def grpc_message(model: str) -> bytes:
    """Give the serialized ModelInferRequest, raw contents last."""
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name="input", datatype="FP32", shape=SHAPES[model])
    request.raw_input_contents.append(example(model).tobytes())
    serialized: bytes = request.SerializeToString()
    return serialized
