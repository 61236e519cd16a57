"""REST as JSON, REST as binary and gRPC, spoken without our own client."""

from __future__ import annotations

import http.client
import json
import struct
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

from forms import Case, Refused, Wire

NUMPY = {
    "BOOL": "bool",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP32": "<f4",
    "FP64": "<f8",
}
CODES = {code.value[0]: code for code in grpc.StatusCode}


def elements(data: bytes) -> list[bytes]:
    """The elements of a BYTES tensor, as far as their lengths go."""
    found, place = [], 0
    while place + 4 <= len(data):
        (size,) = struct.unpack_from("<I", data, place)
        found.append(data[place + 4 : place + 4 + size])
        place += 4 + size
    return found


def pack(items: list[bytes]) -> bytes:
    """The bytes of a BYTES tensor."""
    return b"".join(struct.pack("<I", len(item)) + item for item in items)


def _plain(wire: Wire) -> list[Any]:
    datatype, _, data = wire
    if datatype == "BYTES":
        return [item.decode() for item in elements(data)]
    plain: list[Any] = np.frombuffer(data, NUMPY[datatype]).tolist()
    return plain


def _from_plain(datatype: str, data: list[Any]) -> bytes:
    if datatype == "BYTES":
        return pack([item.encode() for item in data])
    return np.asarray(data, NUMPY[datatype]).tobytes()


def _post(address: tuple[str, int], case: Case, body: bytes, headers: dict[str, str]) -> tuple[bytes, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection(*address, timeout=60)
    version = f"/versions/{case.version}" if case.version else ""
    connection.request("POST", f"/v2/models/{case.model}{version}/infer", body, headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    if response.status != 200:
        error = json.loads(content)
        raise Refused(error["code"], error["reason"], error["error"])
    return content, response


def _parameters(case: Case) -> dict[str, bool | int | float | str]:
    # Not gRPC's own deadline, at which client and server answer at once.
    timeout = {} if case.timeout is None else {"timeout": int(case.timeout * 1e6)}
    return {**timeout, **case.parameters}


def _request(case: Case, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> dict[str, Any]:
    request: dict[str, Any] = {"inputs": inputs}
    if outputs:
        request["outputs"] = outputs
    if parameters := _parameters(case):
        request["parameters"] = parameters
    return request


def rest_json(address: tuple[str, int], case: Case) -> dict[str, Wire]:
    """Everything as JSON."""
    inputs = [{"name": name, "datatype": wire[0], "shape": wire[1], "data": _plain(wire)} for name, wire in case.inputs]
    body = json.dumps(_request(case, inputs, [{"name": name} for name in case.outputs])).encode()
    content, _ = _post(address, case, body, {"Content-Type": "application/json"})
    return {o["name"]: (o["datatype"], tuple(o["shape"]), _from_plain(o["datatype"], o["data"])) for o in json.loads(content)["outputs"]}


def rest_binary(address: tuple[str, int], case: Case) -> dict[str, Wire]:
    """Tensors behind the JSON, both ways."""
    inputs = [{"name": n, "datatype": w[0], "shape": w[1], "parameters": {"binary_data_size": len(w[2])}} for n, w in case.inputs]
    request = _request(case, inputs, [{"name": name} for name in case.outputs])
    request["parameters"] = {**request.get("parameters", {}), "binary_data_output": True}
    header = json.dumps(request).encode()
    body = header + b"".join(wire[2] for _, wire in case.inputs)
    content, response = _post(address, case, body, {"Inference-Header-Content-Length": str(len(header))})
    size = int(response.headers["Inference-Header-Content-Length"])
    answer, place = {}, size
    for output in json.loads(content[:size])["outputs"]:
        end = place + output["parameters"]["binary_data_size"]
        answer[output["name"]] = (output["datatype"], tuple(output["shape"]), content[place:end])
        place = end
    assert place == len(content)
    return answer


def grpc_raw(channel: grpc.Channel, case: Case) -> dict[str, Wire]:
    """``raw_input_contents`` both ways."""
    request = service_pb2.ModelInferRequest(model_name=case.model, model_version=case.version)
    for name, (datatype, shape, data) in case.inputs:
        request.inputs.add(name=name, datatype=datatype, shape=shape)
        request.raw_input_contents.append(data)
    return _call(channel, case, request)


def grpc_typed(channel: grpc.Channel, case: Case) -> dict[str, Wire]:
    """Typed ``contents``."""
    request = service_pb2.ModelInferRequest(model_name=case.model, model_version=case.version)
    for name, wire in case.inputs:
        tensor = request.inputs.add(name=name, datatype=wire[0], shape=wire[1])
        values = elements(wire[2]) if wire[0] == "BYTES" else _plain(wire)
        field = {"BOOL": "bool", "BYTES": "bytes", "UINT64": "uint64", "INT64": "int64", "FP32": "fp32", "FP64": "fp64"}.get(wire[0])
        field = field or ("uint" if wire[0].startswith("U") else "int")
        getattr(tensor.contents, f"{field}_contents").extend(values)
    return _call(channel, case, request)


def _call(channel: grpc.Channel, case: Case, request: Any) -> dict[str, Wire]:
    for name in case.outputs:
        request.outputs.add(name=name)
    kinds = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
    for name, value in _parameters(case).items():
        setattr(request.parameters[name], kinds[type(value)], value)
    call = channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=service_pb2.ModelInferRequest.SerializeToString,
        response_deserializer=service_pb2.ModelInferResponse.FromString,
    )
    try:
        answer = call(request, timeout=60)
    except grpc.RpcError as error:
        raise refused(error) from error
    return {o.name: (o.datatype, tuple(o.shape), raw) for o, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)}


def refused(error: Any) -> Refused:
    """The reason is in google.rpc.ErrorInfo: read without its package, by field number."""
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    reason = ""
    if details:
        info = [value for number, value in _fields(details) if number == 3]
        inner = [value for number, value in _fields(info[0]) if number == 2]
        reason = next(value.decode() for number, value in _fields(inner[0]) if number == 1)
    code = error.code()
    name = "RUNTIME_FAILURE" if code is grpc.StatusCode.UNKNOWN else code.name
    return Refused(name, reason, error.details())


def _fields(message: bytes) -> list[tuple[int, bytes]]:
    """The length-delimited fields of a protobuf message."""
    found, place = [], 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = message[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while place < len(message):
        key = varint()
        if key & 7 == 2:
            size = varint()
            found.append((key >> 3, message[place : place + size]))
            place += size
        else:
            varint()
    return found
