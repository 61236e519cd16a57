"""The Python form, in process: what goes in without a copy, what comes out, what is refused, and what threads and event loops may do."""

from __future__ import annotations

import array
import asyncio
import copy
import ctypes
import gc
import os
import pickle
import subprocess
import sys
import threading
import weakref
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


# Calling


def test_a_model_is_called_by_position_by_name_and_with_a_mapping(models: Path) -> None:
    model = nnrp.load(zoo.two_by_two(models / "two.onnx"))
    a, b = np.array([2], np.int32), np.array([5], np.int32)

    for answer in (model(a, b), model(a, b=b), model(b=b, a=a), model.infer({"b": b, "a": a})):
        assert list(answer) == ["sum", "product"]
        assert (answer["sum"].item(), answer["product"].item()) == (7, 10)


def test_outputs_come_in_the_order_asked_for(models: Path) -> None:
    model = nnrp.load(zoo.two_by_two(models / "two.onnx"))
    inputs = {"a": np.array([2], np.int32), "b": np.array([5], np.int32)}

    assert list(model.infer(inputs, ["product", "sum"])) == ["product", "sum"]
    assert list(model.infer(inputs, outputs=["sum"])) == ["sum"]


def test_none_leaves_an_optional_input_out(models: Path) -> None:
    model = nnrp.load(zoo.optional_bias(models / "optional.onnx"))
    x = np.array([1, 2], np.float32)

    assert [spec.optional for spec in model.inputs] == [False, True]
    assert model(x)["y"].tolist() == model(x, None)["y"].tolist() == model(x, bias=None)["y"].tolist() == [11, 12]
    assert model(x, np.array([1], np.float32))["y"].tolist() == [2, 3]


def test_a_model_tells_what_it_is(double: nnrp.Model) -> None:
    assert (double.name, double.version) == ("double", "1")
    assert double.inputs == (nnrp.TensorSpec("x", "FP32", (-1, 4)),)
    assert double.outputs == (nnrp.TensorSpec("y", "FP32", (-1, 4)),)
    assert double.metadata()["platform"] == "onnxruntime_onnx"
    assert double.session is not None
    assert (double.session.runtime, double.session.device, double.session.exclusive) == ("onnxruntime", "cpu", False)
    assert repr(double) == "<nnrp.Model double version 1 (x: FP32[-1, 4]) → (y: FP32[-1, 4]), in process>"
    with pytest.raises(AttributeError):
        double.name = "other"  # type: ignore[misc]


def test_statistics_count_answers_and_failures_by_reason(double: nnrp.Model) -> None:
    for _ in range(5):
        double(X)
    with pytest.raises(errors.ShapeMismatch):
        double(X[0])

    told = double.statistics()

    assert told["success_count"] == 5
    assert told["failures"] == {"SHAPE_MISMATCH": 1}
    assert 0 < told["run_ns"] <= told["total_ns"]


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


# What is refused


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda model: model(), errors.MissingInput),
        (lambda model: model(X, X), errors.UnknownInput),
        (lambda model: model(X, x=X), errors.DuplicateInput),
        (lambda model: model(x=X, z=X), errors.UnknownInput),
        (lambda model: model(X.astype(np.float64)), errors.DatatypeMismatch),
        (lambda model: model(X.astype(">f8")), errors.DatatypeMismatch),
        (lambda model: model(X.astype(np.complex64)), errors.DatatypeMismatch),
        (lambda model: model(np.array([["a"] * 4])), errors.DatatypeMismatch),
        (lambda model: model(object()), errors.DatatypeMismatch),
        (lambda model: model({"x": X}), errors.DatatypeMismatch),
        (lambda model: model(np.array([[None] * 4])), errors.DatatypeMismatch),
        (lambda model: model(X[0]), errors.ShapeMismatch),
        (lambda model: model(X[:, :3]), errors.ShapeMismatch),
        (lambda model: model([[1, 2], [3]]), errors.ShapeMismatch),
        (lambda model: model.infer({"x": X}, ["z"]), errors.UnknownOutput),
        (lambda model: model.infer({"x": X}, ["y", "y"]), errors.DuplicateOutput),
        (lambda model: model.infer({"x": X}, timeout=-1), errors.InvalidParameter),
        (lambda model: model.infer({"x": X}, timeout=float("nan")), errors.InvalidParameter),
    ],
)
def test_a_request_that_does_not_fit_is_refused_by_its_own_class(double: nnrp.Model, call: Callable[[nnrp.Model], Any], kind: type[nnrp.NnrpError]) -> None:
    with pytest.raises(kind) as raised:
        call(double)
    assert type(raised.value) is kind
    assert isinstance(raised.value, ValueError)
    assert double(X)["y"].tolist() == DOUBLED


def test_an_error_says_where_expected_and_got_and_knows_the_request(double: nnrp.Model) -> None:
    with pytest.raises(errors.ShapeMismatch) as raised:
        double.infer({"x": X[0]}, id="r-7")
    error = raised.value
    assert (error.code, error.reason, error.retryable, error.request_id) == ("INVALID_ARGUMENT", "SHAPE_MISMATCH", False, "r-7")
    assert error.message == str(error) == "input 'x': expected shape [-1, 4], got [4]"
    assert error.details == {"input": "x", "expected": [-1, 4], "got": [4]}
    assert pickle.loads(pickle.dumps(error)).details == error.details


def test_parameters_are_bool_int_float_or_str(double: nnrp.Model) -> None:
    assert double.infer({"x": X}, parameters={"a": True, "b": 1, "c": 1 << 63, "d": 0.5, "e": "s"})["y"].tolist() == DOUBLED
    with pytest.raises(TypeError):
        double.infer({"x": X}, parameters={"a": [1]})  # type: ignore[dict-item]


def test_a_reason_that_is_not_in_the_table_becomes_its_codes_class() -> None:
    error = errors.from_core("UNAVAILABLE", "ON_HOLIDAY", "later", "{}")
    assert type(error) is errors.Unavailable
    assert (error.reason, error.retryable) == ("ON_HOLIDAY", True)


@pytest.mark.parametrize(
    ("content", "options", "kind"),
    [
        (None, None, FileNotFoundError),
        (b"", None, errors.InvalidModel),
        (b"not a model at all", None, errors.InvalidModel),
        ("double", {"no_such_option": 1}, errors.UnknownOption),
        ("double", {"intra_op_num_threads": "many"}, errors.InvalidOption),
        ("double", {"x": object()}, errors.InvalidOption),
    ],
)
def test_a_model_that_cannot_be_loaded_says_why_and_not_where(tmp_path: Path, double_file: Path, content: Any, options: Any, kind: type[Exception]) -> None:
    file = tmp_path / "secret-place.onnx"
    if content is not None:
        file.write_bytes(double_file.read_bytes() if content == "double" else content)
    with pytest.raises(kind) as raised:
        nnrp.load(file, options=options)
    assert isinstance(raised.value, nnrp.NnrpError)
    if content is not None:
        assert str(tmp_path) not in raised.value.message


def test_models_engines_and_tensors_are_not_pickled_or_copied(double: nnrp.Model) -> None:
    for thing in (double, double.engine, nnrp.Tensor("UINT8", [1], b"a")):
        for attempt in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError, match=r"cannot pickle|cannot be pickled"):
                attempt(thing)


# Engines


def test_an_engine_holds_versions_and_answers_with_the_latest(models: Path) -> None:
    engine = nnrp.Engine()
    for version, factor in (("2", 2.0), ("10", 10.0), ("9", 9.0)):
        engine.load(zoo.scale(models / f"by{version}.onnx", factor), name="scale", version=version)

    assert [(model.name, model.version) for model in engine.models()] == [("scale", "2"), ("scale", "9"), ("scale", "10")]
    assert engine.model("scale").version == "10"
    assert engine.infer("scale", {"x": X})["y"].tolist() == [[10, 20, 30, 40]]
    assert engine.infer("scale", {"x": X}, ["y"], version="2")["y"].tolist() == DOUBLED
    with pytest.raises(errors.ModelExists):
        engine.load(models / "by2.onnx", name="scale", version="2")
    latest = engine.model("scale")
    engine.unload("scale", "10")
    assert engine.model("scale").version == "9"
    with pytest.raises(errors.VersionNotFound):
        latest(X)
    engine.unload("scale")
    with pytest.raises(LookupError):
        engine.model("scale")


def test_a_draining_engine_takes_nothing_new(double: nnrp.Model) -> None:
    assert double.engine is not None
    double.engine.drain()
    assert not double.engine.ready
    with pytest.raises(errors.Draining) as raised:
        double(X)
    assert raised.value.retryable


def test_a_folder_with_one_version_is_loaded_by_its_name(tmp_path: Path) -> None:
    for version, factor in (("1", 1.0), ("2", 2.0)):
        zoo.scale(tmp_path / "scale" / version / "model.onnx", factor)
    with pytest.raises(errors.InvalidOption, match="one model version, got 2"):
        nnrp.load(tmp_path / "scale")
    model = nnrp.load(tmp_path / "scale", version="2")
    assert (model.name, model.version, model(X)["y"].tolist()) == ("scale", "2", DOUBLED)


def test_a_model_file_is_told_about_without_loading_it(double_file: Path) -> None:
    told = nnrp.inspect(double_file)
    assert told["format"] == "onnx"
    assert [spec["name"] for spec in told["signature"]["inputs"]] == ["x"]


# Threads, the interpreter lock, memory


def test_many_threads_at_once_get_their_own_answers(double: nnrp.Model) -> None:
    def work(seed: int) -> int:
        x = np.full((1, 4), seed, np.float32)
        return sum(not (double(x)["y"] == 2 * seed).all() for _ in range(5_000))

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, range(4))) == 0
    assert double.statistics()["success_count"] == 20_000


def test_a_slow_run_lets_other_threads_work(slow_file: Path) -> None:
    model = nnrp.load(slow_file)
    started, counted = threading.Event(), 0

    def run() -> None:
        started.set()
        model(np.array(300, np.int64))

    thread = threading.Thread(target=run)
    thread.start()
    started.wait()
    while thread.is_alive():
        counted += 1
    assert counted > 1_000


def test_calls_leak_neither_objects_nor_memory(double: nnrp.Model) -> None:
    x, name = np.ones((256, 4), np.float32), "x"
    wrong = x.astype(np.float64)

    def calls(count: int) -> None:
        for _ in range(count):
            double(x)
            double.infer({name: x}, id="i", parameters={"p": 1})
        for _ in range(count // 20):
            with pytest.raises(errors.DatatypeMismatch):
                double(wrong)

    calls(1_000)
    before = sys.getrefcount(x), sys.getrefcount(wrong), sys.getrefcount(name), _resident()
    calls(20_000)
    after = sys.getrefcount(x), sys.getrefcount(wrong), sys.getrefcount(name), _resident()
    assert after[:3] == before[:3]
    assert after[3] - before[3] < 16 << 20


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if sys.platform == "linux" else 0


def test_a_model_is_freed_with_its_last_reference(double_file: Path) -> None:
    model = nnrp.load(double_file)
    gone = weakref.ref(model)
    model(X)
    del model
    gc.collect()
    assert gone() is None


# Event loops


def test_answers_come_to_the_event_loop_side_by_side(double: nnrp.Model, slow_file: Path) -> None:
    slow = nnrp.load(slow_file)

    async def main() -> None:
        waiting = asyncio.create_task(slow.infer_async({"n": np.array(300, np.int64)}))
        answers = await asyncio.gather(*(double.infer_async({"x": X * n}) for n in range(50)))
        assert not waiting.done()
        assert [answer["y"][0, 0] for answer in answers] == [2 * n for n in range(50)]
        assert list(await waiting) == ["y"]

    asyncio.run(main())


def test_inputs_are_kept_until_the_answer_is_there(slow_file: Path) -> None:
    slow = nnrp.load(slow_file)

    async def main() -> None:
        n = np.array(100, np.int64)
        held = weakref.ref(n)
        task = asyncio.create_task(slow.infer_async({"n": n}))
        del n
        await asyncio.sleep(0)
        assert held() is not None
        await task

    asyncio.run(main())


def test_cancelling_the_task_cancels_the_request(slow_file: Path) -> None:
    slow = nnrp.load(slow_file)

    async def main() -> None:
        task = asyncio.create_task(slow.infer_async({"n": np.array(600_000, np.int64)}))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # Were the run still going on, this one would wait ten minutes behind it or beside it.
        assert list(await slow.infer_async({"n": np.array(1, np.int64)}, timeout=60)) == ["y"]
        while "CLIENT_CANCELLED" not in slow.statistics()["failures"]:
            await asyncio.sleep(0.005)

    asyncio.run(main())


def test_a_deadline_ends_a_run(slow_file: Path) -> None:
    slow = nnrp.load(slow_file)
    n = {"n": np.array(600_000, np.int64)}
    with pytest.raises(TimeoutError) as raised:
        slow.infer(n, timeout=0.05)
    assert isinstance(raised.value, nnrp.DeadlineExceeded)
    with pytest.raises(nnrp.DeadlineExceeded):
        asyncio.run(slow.infer_async(n, timeout=0.05))


def test_an_error_reaches_the_task_that_asked(double: nnrp.Model, models: Path) -> None:
    failing = nnrp.load(zoo.failing(models / "failing.onnx"))

    async def main() -> None:
        with pytest.raises(errors.ShapeMismatch):
            await double.infer_async({"x": X[0]}, id="a")
        with pytest.raises(errors.RunFailed) as raised:
            await failing.infer_async({"shape": np.array([4, 5])}, id="b")
        assert raised.value.request_id == "b"

    asyncio.run(main())


# The package


def test_importing_the_package_loads_no_runtime_and_no_numpy() -> None:
    code = "import sys, nnrp; nnrp.Engine(); nnrp.serve; print({'numpy', 'onnxruntime', 'onnx', 'asyncio'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_every_public_name_has_a_docstring_that_says_what_it_gives() -> None:
    for name in nnrp.__all__:
        thing = getattr(nnrp, name)
        if callable(thing):
            assert thing.__doc__, name
            for method, value in vars(thing).items() if isinstance(thing, type) else ():
                if callable(value) and not method.startswith("_"):
                    assert value.__doc__, f"{name}.{method}"


def test_the_stubs_name_what_the_module_has() -> None:
    import ast

    from nnrp import _nnrp

    tree = ast.parse(Path(_nnrp.__file__).with_name("_nnrp.pyi").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            told = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
            kind = getattr(_nnrp, node.name)
            has = {name for name in vars(kind) if name in {"__new__", "__call__"} or not name.startswith("__")}
            assert told == has, node.name
