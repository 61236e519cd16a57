"""The C form: libnnrp through its header's structs, as a foreign language would bind it."""

from __future__ import annotations

import ctypes as ct
import json
import tomllib
from pathlib import Path
from typing import Any

from forms import Case, Refused, Wire

ROOT = Path(__file__).resolve().parents[2]
DATATYPES = list(tomllib.loads((ROOT / "spec" / "datatypes.toml").read_text()).items())


class DLTensor(ct.Structure):
    _fields_ = (
        ("data", ct.c_void_p),
        ("device_type", ct.c_int32),
        ("device_id", ct.c_int32),
        ("ndim", ct.c_int32),
        ("code", ct.c_uint8),
        ("bits", ct.c_uint8),
        ("lanes", ct.c_uint16),
        ("shape", ct.POINTER(ct.c_int64)),
        ("strides", ct.c_void_p),
        ("byte_offset", ct.c_uint64),
    )


class Managed(ct.Structure):
    _fields_ = (
        ("major", ct.c_uint32),
        ("minor", ct.c_uint32),
        ("manager_ctx", ct.c_void_p),
        ("deleter", ct.c_void_p),
        ("flags", ct.c_uint64),
        ("dl_tensor", DLTensor),
    )


class Tensor(ct.Structure):
    _fields_ = (
        ("struct_size", ct.c_size_t),
        ("name", ct.c_char_p),
        ("tensor", ct.POINTER(Managed)),
        ("datatype", ct.c_int32),
        ("ndim", ct.c_int32),
        ("shape", ct.POINTER(ct.c_int64)),
    )


class Request(ct.Structure):
    _fields_ = (
        ("struct_size", ct.c_size_t),
        ("model", ct.c_char_p),
        ("version", ct.c_char_p),
        ("id", ct.c_char_p),
        ("parameters_json", ct.c_char_p),
        ("inputs", ct.POINTER(ct.POINTER(Tensor))),
        ("n_inputs", ct.c_size_t),
        ("output_names", ct.POINTER(ct.c_char_p)),
        ("n_outputs", ct.c_size_t),
        ("deadline_ns", ct.c_uint64),
        ("cancel", ct.c_void_p),
    )


class Response(ct.Structure):
    _fields_ = (
        ("struct_size", ct.c_size_t),
        ("model", ct.c_char_p),
        ("version", ct.c_char_p),
        ("id", ct.c_char_p),
        ("outputs", ct.POINTER(ct.POINTER(Tensor))),
        ("n_outputs", ct.c_size_t),
        ("owner", ct.c_void_p),
    )


class Error(ct.Structure):
    _fields_ = (
        ("struct_size", ct.c_size_t),
        ("code", ct.c_int32),
        ("retryable", ct.c_int32),
        ("reason", ct.c_char_p),
        ("message", ct.c_char_p),
        ("details_json", ct.c_char_p),
    )


class EngineOptions(ct.Structure):
    _fields_ = (("struct_size", ct.c_size_t), ("settings_json", ct.c_char_p))


class ModelSpec(ct.Structure):
    _fields_ = (
        ("struct_size", ct.c_size_t),
        ("name", ct.c_char_p),
        ("version", ct.c_char_p),
        ("path", ct.c_char_p),
        ("runtime", ct.c_char_p),
        ("options_json", ct.c_char_p),
        ("device", ct.c_char_p),
        ("precision", ct.c_char_p),
    )


def _sized(kind: Any, **fields: Any) -> Any:
    return kind(struct_size=ct.sizeof(kind), **fields)


class CEngine:
    """An engine of libnnrp with a repository loaded."""

    def __init__(self, library: Path, onnxruntime: Path, repository: Path) -> None:
        self._lib = ct.CDLL(str(library))
        self._lib.nnrp_status_name.restype = ct.c_char_p
        self._lib.nnrp_now_ns.restype = ct.c_uint64
        self._engine = ct.c_void_p()
        settings = json.dumps({"runtimes": {"onnxruntime": {"library": str(onnxruntime)}}}).encode()
        self._check(lambda error: self._lib.nnrp_engine_create(ct.byref(_sized(EngineOptions, settings_json=settings)), ct.byref(self._engine), error))
        for file in sorted(repository.glob("*/*/model.onnx")):
            spec = _sized(ModelSpec, name=file.parts[-3].encode(), version=file.parts[-2].encode(), path=str(file).encode())
            self._check(lambda error, spec=spec: self._lib.nnrp_load(self._engine, ct.byref(spec), error))

    def close(self) -> None:
        """End the engine."""
        self._lib.nnrp_engine_free(self._engine)

    def _check(self, call: Any) -> None:
        error = _sized(Error)
        status = call(ct.byref(error))
        if status:
            refused = Refused(self._lib.nnrp_status_name(status).decode(), error.reason.decode(), error.message.decode())
            self._lib.nnrp_error_clear(ct.byref(error))
            raise refused

    def infer(self, case: Case) -> dict[str, Wire]:
        """Run one case."""
        kept: list[Any] = []
        tensors = [ct.pointer(_tensor(name, wire, kept)) for name, wire in case.inputs]
        names = (ct.c_char_p * max(len(case.outputs), 1))(*(name.encode() for name in case.outputs))
        request = _sized(
            Request,
            model=case.model.encode(),
            version=case.version.encode(),
            parameters_json=json.dumps(case.parameters).encode() if case.parameters else None,
            inputs=(ct.POINTER(Tensor) * max(len(tensors), 1))(*tensors),
            n_inputs=len(tensors),
            output_names=names if case.outputs else None,
            n_outputs=len(case.outputs),
            deadline_ns=0 if case.timeout is None else self._lib.nnrp_now_ns() + int(case.timeout * 1e9),
        )
        response = _sized(Response)
        self._check(lambda error: self._lib.nnrp_infer(self._engine, ct.byref(request), ct.byref(response), error))
        answer = dict(_wire(response.outputs[index].contents) for index in range(response.n_outputs))
        self._lib.nnrp_response_clear(ct.byref(response))
        return answer


def _tensor(name: str, wire: Wire, kept: list[Any]) -> Tensor:
    datatype, shape, data = wire
    number = next((i for i, (known, _) in enumerate(DATATYPES, 1) if known == datatype), 99)
    code, bits = DATATYPES[number - 1][1].get("dlpack", (1, 8)) if number != 99 else (1, 8)
    logical = (ct.c_int64 * max(len(shape), 1))(*shape)
    stored = (ct.c_int64 * 1)(len(data)) if datatype == "BYTES" else logical
    content = ct.create_string_buffer(data, max(len(data), 1))
    inner = DLTensor(
        data=ct.cast(content, ct.c_void_p), device_type=1, ndim=1 if datatype == "BYTES" else len(shape), code=code, bits=bits, lanes=1, shape=stored
    )
    managed = Managed(major=1, minor=0, dl_tensor=inner)
    kept += [logical, stored, content, managed]
    return Tensor(struct_size=ct.sizeof(Tensor), name=name.encode(), tensor=ct.pointer(managed), datatype=number, ndim=len(shape), shape=logical)


def _wire(tensor: Tensor) -> tuple[str, Wire]:
    name, spec = DATATYPES[tensor.datatype - 1]
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    inner = tensor.tensor.contents.dl_tensor
    count = 1
    for i in range(inner.ndim):
        count *= inner.shape[i]
    size = count if name == "BYTES" else count * spec["bits"] // 8
    return tensor.name.decode(), (name, shape, ct.string_at(inner.data, size) if size else b"")
