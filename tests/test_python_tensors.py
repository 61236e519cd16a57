"""The Python form, in process: what goes in without a copy, what is converted, and what comes out."""

from __future__ import annotations

import array
import ctypes
import gc
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import zoo
from onnx import TensorProto, helper

import nnrp
from nnrp import errors

X = np.array([[1, 2, 3, 4]], np.float32)
DOUBLED = [[2, 4, 6, 8]]


@pytest.fixture(scope="module")
def echo(models: Path) -> Callable[..., nnrp.Model]:
    """``y = x`` of a datatype and a shape."""

    def make(datatype: str, shape: list[int | str] | None = None) -> nnrp.Model:
        return nnrp.load(zoo.identity(models / f"echo_{datatype.lower()}.onnx", datatype, shape))

    return make


# What goes in


def test_an_array_is_read_where_it_lies(models: Path) -> None:
    big = np.zeros((64, 4), np.float32)
    model = nnrp.load(zoo.slow(models / "slow.onnx"))
    turns = np.array(200, np.int64)

    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(lambda: nnrp.load(zoo.scale(models / "twice.onnx", 2.0))(big))
        assert not started.result()["y"].any()
    assert model(turns)["y"].shape == ()
    assert sys.getrefcount(turns) == sys.getrefcount(big) == 2


def test_a_view_of_memory_is_not_copied(echo: Callable[..., nnrp.Model]) -> None:
    """The engine's conversion gives back the very addresses that went in."""
    from nnrp.tensor import adapt

    memory = array.array("f", [1, 2, 3, 4])
    adapted = adapt(memory, "x", "FP32")
    assert isinstance(adapted, np.ndarray)
    assert adapted.ctypes.data == memory.buffer_info()[0]
    tensor = nnrp.Tensor("FP32", [1, 4], memory)
    assert tensor.numpy().ctypes.data == memory.buffer_info()[0]
    memory[0] = 7
    assert echo("FP32")(tensor)["y"].tolist() == [[7, 2, 3, 4]]


@pytest.mark.parametrize(
    "make",
    [
        lambda: X,
        lambda: memoryview(X),
        lambda: (ctypes.c_float * 4 * 1)((1, 2, 3, 4)),
        lambda: memoryview(array.array("f", [1, 2, 3, 4])).cast("B").cast("f", (1, 4)),
        lambda: nnrp.Tensor("FP32", [1, 4], X),
        lambda: Exporter(X),
        lambda: X.astype(">f4"),
        lambda: np.asfortranarray(np.repeat(X, 2, 0))[:1],
        lambda: np.repeat(X, 2, 1)[:, ::2],
        lambda: np.frombuffer(b"\0" + X.tobytes(), np.uint8)[1:].view(np.float32).reshape(1, 4),
        lambda: [[1, 2, 3, 4]],
        lambda: ((1.0, 2.0, 3.0, 4.0),),
        lambda: [X[0]],
    ],
    ids=["numpy", "memoryview", "ctypes", "cast", "Tensor", "dlpack", "big-endian", "fortran", "strided", "unaligned", "list", "tuple", "list of arrays"],
)
def test_whatever_holds_the_numbers_is_taken(double: nnrp.Model, make: Callable[[], Any]) -> None:
    assert double(make())["y"].tolist() == DOUBLED


class Exporter:
    """What PyTorch and JAX give: `__dlpack__` and nothing else."""

    def __init__(self, held: np.ndarray[Any, Any], device: tuple[int, int] = (1, 0)) -> None:
        self.held, self.device = held, device

    def __dlpack__(self, **request: Any) -> Any:
        return self.held.__dlpack__(**request)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device


def test_a_tensor_on_a_device_is_refused(double: nnrp.Model) -> None:
    with pytest.raises(errors.NotOffered, match="CPU memory"):
        double(Exporter(X, (2, 0)))


def test_a_producer_from_before_dlpack_had_versions_is_read(double: nnrp.Model) -> None:
    class Old(Exporter):
        def __dlpack__(self, stream: object = None) -> Any:  # type: ignore[override]
            return self.held.__dlpack__()

    assert double(Old(X))["y"].tolist() == DOUBLED


def test_a_strided_dlpack_tensor_is_copied_once(double: nnrp.Model) -> None:
    assert double(Exporter(np.repeat(X, 2, 1)[:, ::2]))["y"].tolist() == DOUBLED


@pytest.mark.parametrize("datatype", [name for name in zoo.ONNX_TYPES if name not in ("BF16", "BYTES")])
def test_every_numeric_datatype_comes_back_bit_for_bit(echo: Callable[..., nnrp.Model], datatype: str) -> None:
    from nnrp.tensor import numpy_type

    x = np.array([[0, 1, 1, 0]], numpy_type(datatype))
    y = echo(datatype)(x)["y"]
    assert y.dtype == x.dtype
    assert y.tobytes() == x.tobytes()


def test_the_integer_types_of_c_are_those_of_their_size(echo: Callable[..., nnrp.Model]) -> None:
    model = echo("INT64")
    for kind in (np.int64, np.longlong, np.dtype("long") if np.dtype("long").itemsize == 8 else np.int64):
        assert model(np.ones((1, 4), kind))["y"].dtype == np.int64


def test_bf16_goes_in_and_comes_out_as_ml_dtypes_has_it(echo: Callable[..., nnrp.Model]) -> None:
    x = np.array([[1.5, -2, 3, 0]], ml_dtypes.bfloat16)
    y = echo("BF16")(x)["y"]
    assert y.dtype == ml_dtypes.bfloat16
    assert y.tolist() == x.tolist()
    y[0, 0] = 9
    assert echo("BF16")(nnrp.Tensor("BF16", [1, 4], x.tobytes()))["y"].tolist() == x.tolist()


def test_without_ml_dtypes_bf16_comes_out_as_a_tensor(echo: Callable[..., nnrp.Model], monkeypatch: pytest.MonkeyPatch) -> None:
    model = echo("BF16")
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)

    y: Any = model(nnrp.Tensor("BF16", [1, 4], b"\x80\x3f" * 4))["y"]

    assert isinstance(y, nnrp.Tensor)
    assert (y.datatype, y.shape, y.tobytes()) == ("BF16", (1, 4), b"\x80\x3f" * 4)
    with pytest.raises(errors.NotOffered, match="ml_dtypes"):
        y.numpy()


@pytest.mark.parametrize(
    "value",
    [[["a", "žluť", "", "d"]], np.array([[b"a", "žluť".encode(), b"", b"d"]], object), np.array([["a", "žluť", "", "d"]])],
    ids=["list", "object", "str"],
)
def test_strings_go_in_and_bytes_come_out(echo: Callable[..., nnrp.Model], value: Any) -> None:
    y = echo("BYTES")(value)["y"]
    assert y.dtype == object
    assert y.tolist() == [[b"a", "žluť".encode(), b"", b"d"]]


def test_text_that_is_none_is_refused(echo: Callable[..., nnrp.Model]) -> None:
    with pytest.raises(errors.Malformed, match="input 'x'"):
        echo("BYTES")([["a", "\ud800", "c", "d"]])


def test_one_string_is_a_scalar(echo: Callable[..., nnrp.Model], models: Path) -> None:
    model = nnrp.load(zoo.identity(models / "word.onnx", "BYTES", []))
    for word in ("ab", b"ab", bytearray(b"ab")):
        assert model(word)["y"].item() == b"ab"
    assert nnrp.load(zoo.identity(models / "octets.onnx", "UINT8", ["n"]))(b"ab")["y"].tolist() == [97, 98]


def test_numbers_take_the_datatype_of_the_signature_when_they_fit(models: Path) -> None:
    model = nnrp.load(zoo.identity(models / "octet.onnx", "UINT8", []))
    assert model(200)["y"].item() == 200
    assert model(True)["y"].item() == 1
    for value in (256, -1):
        with pytest.raises(errors.ValueOutOfRange, match=r"'x'.*UINT8"):
            model(value)
    with pytest.raises(errors.DatatypeMismatch, match="UINT8, got values of type float64"):
        model(1.0)


def test_a_list_of_booleans_is_bool_where_the_signature_says_so(models: Path) -> None:
    model = nnrp.load(zoo.identity(models / "flags.onnx", "BOOL", ["n"]))
    for value in ([True, False], (True, False), [np.True_, np.False_]):
        assert model(value)["y"].tolist() == model.infer({"x": value})["y"].tolist() == [True, False]
    with pytest.raises(errors.DatatypeMismatch, match="BOOL, got values of type int64"):
        model([1, 0])


def test_what_an_array_masks_is_not_passed_over(double: nnrp.Model) -> None:
    hidden = np.ma.masked_array(X, [[False, True, True, False]])
    for call in (double, lambda value: double(x=value), lambda value: double.infer({"x": value})):
        with pytest.raises(errors.DatatypeMismatch, match=r"'x'.* 2 are masked: \.filled\(value\)"):
            call(hidden)
        for whole in (hidden.filled(3), np.ma.masked_array(X), np.ma.masked_array(X, [[False] * 4]), np.ma.masked_array(X.T).T):
            assert call(whole)["y"].shape == (1, 4)
    assert double(np.ma.masked_array(X))["y"].tolist() == DOUBLED


def test_a_number_too_large_for_a_float_is_refused(double: nnrp.Model) -> None:
    with pytest.raises(errors.ValueOutOfRange):
        double([[1e300, 0, 0, 0]])


def test_empty_arrays_and_scalars_are_tensors(models: Path) -> None:
    grid = nnrp.load(zoo.identity(models / "grid.onnx", "FP32", ["rows", "columns"]))
    assert grid(np.zeros((0, 3), np.float32))["y"].shape == (0, 3)
    scalar = nnrp.load(zoo.identity(models / "scalar.onnx", "FP32", []))
    assert scalar(np.float32(2.5))["y"].shape == ()
    assert scalar(2)["y"].item() == 2.0


# What comes out


@pytest.mark.parametrize("rows", [1, 1000], ids=["small", "large"])
def test_an_output_owns_its_memory_and_may_be_written_to(double: nnrp.Model, rows: int) -> None:
    x = np.ones((rows, 4), np.float32)
    first, second = double(x)["y"], double(x)["y"]
    first[:] = 5
    assert first.flags.writeable
    assert first.flags.aligned
    assert (second == 2).all()
    assert (x == 1).all()


def test_a_large_output_is_not_copied_and_outlives_its_model(double_file: Path) -> None:
    model = nnrp.load(double_file)
    y = model(np.ones((100_000, 4), np.float32))["y"]
    assert not y.flags.owndata
    assert type(y.base).__name__ == "Tensor"
    del model
    gc.collect()
    assert (y == 2).all()


def test_an_output_that_is_an_input_or_a_constant_is_the_callers_own(models: Path) -> None:
    big = list(np.arange(1000, dtype=np.float32))
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1000]) for name in ("x", "c")]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["unused"])], "through", value[:1], value, [helper.make_tensor("c", TensorProto.FLOAT, [1000], big)]
    )
    file = models / "through.onnx"
    file.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString())
    model = nnrp.load(file)
    x = np.ones(1000, np.float32)

    answer = model(x)
    for output in answer.values():
        output[:] = -1

    assert (x == 1).all()
    assert (model(x)["c"] == big).all()


def test_a_tensor_crosses_to_numpy_by_dlpack_without_a_copy() -> None:
    x = np.arange(4, dtype=np.float32)
    tensor = nnrp.Tensor("FP32", [2, 2], x)
    y = np.from_dlpack(tensor)
    assert y.ctypes.data == x.ctypes.data
    assert not y.flags.writeable
    assert np.asarray(tensor).tolist() == [[0, 1], [2, 3]]
    with pytest.raises(BufferError):
        tensor.__dlpack__(copy=True)
    with pytest.raises(BufferError, match="no type for BYTES"):
        nnrp.Tensor("BYTES", [1], ["a"]).__dlpack__(max_version=(1, 0))


@pytest.mark.parametrize("datatype", ["INT4", "UINT4"])
def test_four_bit_integers_lie_two_to_a_byte_the_first_in_the_low_half(datatype: str) -> None:
    from nnrp.tensor import adapt, numpy_type

    values = [[-8, 7, 1]] if datatype == "INT4" else [[15, 7, 1]]
    packed = adapt(np.array(values, numpy_type(datatype)), "x", datatype)
    assert isinstance(packed, nnrp.Tensor)
    assert packed.tobytes() == (b"\x78\x01" if datatype == "INT4" else b"\x7f\x01")
    assert packed.numpy().tolist() == values


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (("FP99", [1], b""), errors.UnknownDatatype),
        (("FP32", [-1], b""), errors.InvalidShape),
        (("FP32", [1 << 62, 4], b""), errors.InvalidShape),
        (("FP32", [2], b"1234"), errors.ByteSizeMismatch),
        (("BYTES", [1], b"\xff\0\0\0ab"), errors.ByteSizeMismatch),
        (("BYTES", [1], ["a", "b"]), errors.ByteSizeMismatch),
    ],
)
def test_a_tensor_whose_bytes_do_not_fill_its_shape_is_refused(arguments: Any, kind: type[nnrp.NnrpError]) -> None:
    with pytest.raises(kind):
        nnrp.Tensor(*arguments)
