"""One table of requests, good and bad, through every form: the same tensors, the same code, the same reason (spec §7.1)."""

from __future__ import annotations

import importlib.util
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from forms import Case, Refused, Wire, python, wire
from forms.c import CEngine
from zoo import ONNX_TYPES, repository

import nnrp

ROOT = Path(__file__).resolve().parent.parent
Form = Callable[[Case], dict[str, Wire]]

JSON_LESS = frozenset({"rest_json", "grpc_typed"})
DICT = frozenset({"python", "python_http", "python_grpc"})
#: Forms that give elements one by one cannot send a wrong number of bytes.
TYPED = frozenset({"rest_json", "grpc_typed"})


def floats(*values: float, shape: tuple[int, ...] | None = None) -> Wire:
    """An FP32 tensor, [1, n] unless told."""
    return "FP32", (1, len(values)) if shape is None else shape, struct.pack(f"<{len(values)}f", *values)


def ints(*values: int) -> Wire:
    """An INT32 tensor."""
    return "INT32", (len(values),), struct.pack(f"<{len(values)}i", *values)


def strings(*items: bytes) -> Wire:
    """A BYTES tensor [1, n]."""
    return "BYTES", (1, len(items)), wire.pack(list(items))


def _same(name: str, model: str, tensor: Wire, **more: object) -> Case:
    return Case(name, model, (("x", tensor),), {"y": tensor}, **more)  # type: ignore[arg-type]


def _sample(datatype: str) -> Wire:
    """Four elements with the extremes of their type."""
    if datatype == "BYTES":
        return strings(b"", b"plain", "žluť 犬".encode(), b"x" * 300)
    if datatype in ("FP16", "BF16"):
        return datatype, (1, 4), bytes([0, 0, 0, 0x3C, 0x01, 0x80, 0xFF, 0x7B if datatype == "FP16" else 0x7F][:8])
    kind = np.dtype(wire.NUMPY[datatype])
    if kind.kind == "f":
        info = np.finfo(kind)
        values = [info.max, -0.0, info.smallest_subnormal, 1 / 3]
    elif kind.kind == "b":
        values = [True, False, True, True]
    else:
        limits = np.iinfo(kind)
        values = [limits.min, limits.max, 0, 1]
    return datatype, (1, 4), np.asarray(values, kind).tobytes()


#: What asks for nothing that is not there.
FREE: dict[str, bool | int | float | str] = {
    "beam": 4,
    "sequence_id": 0,
    "priority": 0,
    "timeout": 0,
    "triton_enable_empty_final_response": False,
    "temperature": 0.5,
    "text": "žluť",
}

GOOD = [
    *(
        _same(
            f"{datatype} comes back bit for bit",
            f"identity_{datatype.lower()}",
            _sample(datatype),
            not_for=JSON_LESS if datatype in ("FP16", "BF16") else frozenset(),
        )
        for datatype in ONNX_TYPES
    ),
    _same("a scalar has no dimensions", "scalar", floats(2.5, shape=())),
    _same("an empty tensor is a tensor", "grid", floats(shape=(0, 3))),
    _same("both dimensions may be open", "grid", floats(1, 2, 3, 4, 5, 6, shape=(3, 2))),
    _same("strings keep their zero bytes", "identity_bytes", strings(b"a\0b", b"\0", b"", b"c\0")),
    Case("no version means the latest", "scale", (("x", floats(1, 2, 3, 4)),), {"y": floats(10, 20, 30, 40)}),
    Case("a version can be asked for", "scale", (("x", floats(1, 2, 3, 4)),), {"y": floats(2, 4, 6, 8)}, version="2"),
    Case("inputs come in any order", "two_by_two", (("b", ints(4, 5)), ("a", ints(2, 3))), {"sum": ints(6, 8), "product": ints(8, 15)}),
    Case("a symbol has one size", "product", (("a", floats(1, 2, shape=(2, 1))), ("b", floats(3, shape=(1, 1)))), {"y": floats(3, 6, shape=(2, 1))}),
    Case("outputs come in the order asked", "two_by_two", (("a", ints(2)), ("b", ints(3))), {"product": ints(6), "sum": ints(5)}, outputs=("product", "sum")),
    Case(
        "parameters that nobody gave a meaning are the model's", "scale", (("x", floats(1, 2, 3, 4)),), {"y": floats(2, 4, 6, 8)}, version="2", parameters=FREE
    ),
    Case("one output can be asked for", "two_by_two", (("a", ints(2)), ("b", ints(3))), {"product": ints(6)}, outputs=("product",)),
    Case("an optional input may be left out", "optional_bias", (("x", floats(1, 2, shape=(2,))),), {"y": floats(11, 12, shape=(2,))}),
    Case(
        "an optional input may be given", "optional_bias", (("bias", floats(5, shape=(1,))), ("x", floats(1, 2, shape=(2,)))), {"y": floats(6, 7, shape=(2,))}
    ),
]


def _bad(name: str, reason: str, *inputs: tuple[str, Wire], model: str = "identity_fp32", code: str = "INVALID_ARGUMENT", **more: object) -> Case:
    return Case(name, model, inputs, None, (code, reason), **more)  # type: ignore[arg-type]


OK = ("x", floats(1, 2, 3, 4))
BAD = [
    _bad("a model that is not there", "MODEL_NOT_FOUND", OK, model="nowhere", code="NOT_FOUND"),
    _bad("a version that is not there", "VERSION_NOT_FOUND", OK, version="9", code="NOT_FOUND"),
    _bad("a version that is no number", "VERSION_NOT_FOUND", OK, version="abc", code="NOT_FOUND"),
    _bad("no inputs at all", "MISSING_INPUT"),
    _bad("an input too few", "MISSING_INPUT", ("a", ints(1)), model="two_by_two"),
    _bad("an input nobody knows", "UNKNOWN_INPUT", OK, ("z", floats(1))),
    _bad("an input twice", "DUPLICATE_INPUT", OK, OK, not_for=DICT),
    _bad("an output nobody knows", "UNKNOWN_OUTPUT", OK, outputs=("z",)),
    _bad("an output twice", "DUPLICATE_OUTPUT", OK, outputs=("y", "y")),
    _bad("another datatype", "DATATYPE_MISMATCH", ("x", ("FP64", (1, 4), bytes(32)))),
    _bad("a dimension too many", "SHAPE_MISMATCH", ("x", floats(1, 2, 3, 4, shape=(1, 4, 1)))),
    _bad("a dimension of another size", "SHAPE_MISMATCH", ("x", floats(1, 2, 3))),
    _bad("a symbol of two sizes", "SHAPE_MISMATCH", ("a", floats(1, 2, 3, shape=(1, 3))), ("b", floats(1, 2, 3, 4, shape=(4, 1))), model="product"),
    _bad("a negative dimension", "INVALID_SHAPE", ("x", floats(1, 2, 3, 4, shape=(-1, 4)))),
    _bad("a shape whose product overflows", "INVALID_SHAPE", ("x", floats(1, 2, 3, 4, shape=(1 << 62, 4)))),
    _bad("fewer elements than the shape says", "BYTE_SIZE_MISMATCH", ("x", floats(1, 2, 3, shape=(1, 4))), not_for=frozenset({"c"})),
    _bad("more elements than the shape says", "BYTE_SIZE_MISMATCH", ("x", floats(1, 2, 3, 4, 5, shape=(1, 4))), not_for=frozenset({"c"})),
    _bad("a BOOL that is neither", "VALUE_OUT_OF_RANGE", ("x", ("BOOL", (1, 4), b"\0\1\2\1")), model="identity_bool", not_for=TYPED),
    _bad("a BYTES length past the end", "BYTE_SIZE_MISMATCH", ("x", ("BYTES", (1, 4), b"\xff\0\0\0ab")), model="identity_bytes", not_for=TYPED),
    _bad("a BYTES element too few", "BYTE_SIZE_MISMATCH", ("x", ("BYTES", (1, 4), wire.pack([b"a"]))), model="identity_bytes"),
    _bad(
        "a deadline that passes during the run",
        "DEADLINE",
        ("n", ("INT64", (), struct.pack("<q", 60_000))),
        model="slow",
        code="DEADLINE_EXCEEDED",
        timeout=0.2,
    ),
    _bad(
        "a timeout that passes during the run",
        "DEADLINE",
        ("n", ("INT64", (), struct.pack("<q", 60_000))),
        model="slow",
        code="DEADLINE_EXCEEDED",
        parameters={"timeout": 200_000},
    ),
    _bad("a timeout that is negative", "INVALID_PARAMETER", OK, parameters={"timeout": -1}),
    _bad("a timeout with a fraction", "INVALID_PARAMETER", OK, parameters={"timeout": 1.5}),
    _bad("a timeout that is text", "INVALID_PARAMETER", OK, parameters={"timeout": "soon"}),
    _bad("a reserved name", "INVALID_PARAMETER", OK, parameters={"headers": "a"}),
    _bad("a name of Triton's own", "INVALID_PARAMETER", OK, parameters={"triton_final_response": True}),
    _bad("a sequence", "NOT_OFFERED", OK, code="UNIMPLEMENTED", parameters={"sequence_id": 7}),
    _bad("a priority", "NOT_OFFERED", OK, code="UNIMPLEMENTED", parameters={"priority": 1}),
    _bad("a run that fails inside the runtime", "RUN_FAILED", ("shape", ("INT64", (2,), struct.pack("<2q", 4, 5))), model="failing", code="RUNTIME_FAILURE"),
]
FORMS = ("python", "python_http", "python_grpc", "rest_json", "rest_binary", "grpc_raw", "grpc_typed", "c")


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Form]]:
    """Every form over the same models: one server, one engine in process, one engine behind the C ABI."""
    folder = repository(tmp_path_factory.mktemp("forms"))
    spec = importlib.util.find_spec("onnxruntime")
    assert spec is not None
    assert spec.origin is not None
    engine = CEngine(ROOT / "target" / "release" / "libnnrp.so", Path(spec.origin).parent / "capi", folder)
    local = nnrp.Engine()
    for file in folder.glob("*/*/model.onnx"):
        local.load(file, name=file.parts[-3], version=file.parts[-2])
    with nnrp.serve(str(folder), http_port=0, grpc_port=0) as server:
        host, port = server.http_url.removeprefix("http://").split(":")
        with grpc.insecure_channel(server.grpc_url.removeprefix("grpc://")) as channel:
            yield {
                "python": lambda case: python.local(local, case),
                "python_http": lambda case: python.remote(server.http_url, case),
                "python_grpc": lambda case: python.remote(server.grpc_url, case),
                "rest_json": lambda case: wire.rest_json((host, int(port)), case),
                "rest_binary": lambda case: wire.rest_binary((host, int(port)), case),
                "grpc_raw": lambda case: wire.grpc_raw(channel, case),
                "grpc_typed": lambda case: wire.grpc_typed(channel, case),
                "c": engine.infer,
            }
    engine.close()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
def test_every_form_gives_the_same_tensors(case: Case, form: str, forms: dict[str, Form]) -> None:
    if form in case.not_for:
        assert form in JSON_LESS, "only FP16 and BF16, which have no text form, may be left out"
        return
    answer = forms[form](case)
    assert answer == case.answer
    assert list(answer) == list(case.answer or {})


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", BAD, ids=lambda case: case.name)
def test_every_form_refuses_for_the_same_reason(case: Case, form: str, forms: dict[str, Form]) -> None:
    if form in case.not_for:
        return
    with pytest.raises(Refused) as refused:
        forms[form](case)
    assert (refused.value.code, refused.value.reason) == case.refused
    for leak in ("/", "Traceback", ".cc", ".rs"):
        assert leak not in refused.value.message
