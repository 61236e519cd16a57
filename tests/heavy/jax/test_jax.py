"""What jax.export writes, behind the same calls as ONNX Runtime."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import package
import page
import pytest
from jax import export

import nnrp
from nnrp import errors
from nnrp.testing import check_runtime

MAGIKA = package.file("magika/models/standard_v3_3/model.onnx")
QUIRKS = dict.fromkeys(("shapes.empty", "shapes.batch"), "an open dimension is 1 at least")


def ints(values: Any) -> list[int]:
    return [int(value) for value in np.atleast_1d(values)]


def convolve(x: Any, weight: Any, *bias: Any, pads: list[int] | None = None, **_: Any) -> Any:
    half = len(pads or ()) // 2
    padding = [*zip((pads or [])[:half], (pads or [])[half:], strict=True)] or [(0, 0)] * (x.ndim - 2)
    y = jax.lax.conv_general_dilated(x, weight, (1,) * (x.ndim - 2), padding)
    return y + bias[0].reshape(1, -1, *[1] * (x.ndim - 2)) if bias else y


def cut(x: Any, starts: Any, ends: Any, axes: Any, *_: Any) -> Any:
    return x[tuple(dict(zip(ints(axes), map(slice, ints(starts), ints(ends)), strict=True)).get(axis, slice(None)) for axis in range(x.ndim))]


#: The operations of the file-type model, as JAX traces them.
OPERATIONS: dict[str, Callable[..., Any]] = {
    "Add": jnp.add,
    "Cast": lambda x, to: x.astype(onnx.helper.tensor_dtype_to_np_dtype(to)),
    "Concat": lambda *xs, axis: (np if all(isinstance(x, np.ndarray) for x in xs) else jnp).concatenate(xs, axis),
    "Conv": convolve,
    "Div": jnp.divide,
    "Equal": lambda a, b: a == b,
    "Exp": jnp.exp,
    "Expand": lambda x, shape: jnp.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(ints(shape)))),
    "GlobalMaxPool": lambda x: x.max(tuple(range(2, x.ndim)), keepdims=True),
    "MatMul": jnp.matmul,
    "Max": jnp.maximum,
    "Mul": jnp.multiply,
    "Reciprocal": lambda x: 1 / x,
    "ReduceMax": lambda x, axes, keepdims=1: x.max(tuple(axes), keepdims=bool(keepdims)),
    "ReduceSum": lambda x, axes, keepdims=1, **_: x.sum(tuple(ints(axes)), keepdims=bool(keepdims)),
    "Reshape": lambda x, shape: jnp.reshape(x, ints(shape)),
    "Shape": lambda x: np.array(x.shape),
    "Slice": cut,
    "Sqrt": jnp.sqrt,
    "Squeeze": lambda x, axes: jnp.squeeze(x, tuple(ints(axes))),
    "Sub": jnp.subtract,
    "Tanh": jnp.tanh,
    "Transpose": lambda x, perm: jnp.transpose(x, perm),
    "Unsqueeze": lambda x, axes: jnp.expand_dims(x, tuple(ints(axes))),
}


def traced(x: Any) -> dict[str, Any]:
    """The file-type model, node by node."""
    graph = onnx.load(MAGIKA).graph
    values = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer} | {"bytes": x}
    for node in graph.node:
        words = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        values[node.output[0]] = OPERATIONS[node.op_type](*[values[name] for name in node.input], **words)
    return {graph.output[0].name: values[graph.output[0].name]}


def write(path: Path, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Path:
    with jax.enable_x64(True):
        path.write_bytes(export.export(jax.jit(function))(*args, **kwargs).serialize())
    return path


#: Dimensions of one name are one dimension only within a scope.
SCOPE = export.SymbolicScope()


def port(shape: str, dtype: Any = jnp.float32) -> Any:
    return jax.ShapeDtypeStruct(export.symbolic_shape(shape, scope=SCOPE), dtype)


def test_it_keeps_the_contract_but_for_dimensions_of_none() -> None:
    report = check_runtime("jax", isolate=True, quirks=QUIRKS)
    assert report.passed, report.table()
    assert {one.id for one in report.outcomes if one.verdict == "quirk"} == QUIRKS.keys()


def test_a_real_model_gives_the_same_numbers_as_onnxruntime(tmp_path: Path) -> None:
    here = nnrp.load(write(tmp_path / "magika.bin", traced, jax.ShapeDtypeStruct((2, 2048), jnp.int32)))
    assert [tuple(spec[:3]) for spec in (*here.inputs, *here.outputs)] == [("arg0", "INT32", (2, 2048)), ("target_label", "FP32", (2, 214))]
    x = np.random.default_rng(7).integers(0, 257, (2, 2048)).astype(np.int32)
    np.testing.assert_allclose(here(x)["target_label"], nnrp.load(MAGIKA)(x)["target_label"], atol=1e-5, rtol=0)


def test_names_are_the_functions_own_and_may_be_others(tmp_path: Path) -> None:
    def function(weights: Any, x: Any, *, bias: Any) -> Any:
        return {"y": weights["w"] * x + bias, "parts": (x, [bias])}

    path = write(tmp_path / "named.jax", function, {"w": port("")}, port("n"), bias=port(""))
    model = nnrp.load(path)
    assert [spec.name for spec in model.inputs] == ["arg0.w", "arg1", "bias"]
    assert [spec.name for spec in model.outputs] == ["parts.0", "parts.1.0", "y"]
    answer = model(**{"arg0.w": np.float32(2), "arg1": np.float32([1, 2]), "bias": np.float32(3)})
    assert answer["y"].tolist() == [5, 7]
    renamed = nnrp.load(path, inputs={"arg0.w": "w", "arg1": "x", "bias": "b"})
    assert renamed(w=np.float32(2), x=np.float32([1]), b=np.float32(0))["y"].tolist() == [2]


def test_what_has_64_bits_keeps_them(tmp_path: Path) -> None:
    model = nnrp.load(write(tmp_path / "wide.jax", lambda x, k: (x + 1, k + 1), port("n", jnp.float64), port("n", jnp.int64)))
    x, k = np.float64([1e-16, 2 / 3]), np.int64([2**53 + 1, -(2**62)])
    assert [array.tolist() for array in model(x, k).values()] == [(x + 1).tolist(), (k + 1).tolist()]
    with pytest.raises(errors.DatatypeMismatch):
        model(x.astype(np.float32), k)


def test_dimensions_of_one_name_that_differ_are_a_shape_mismatch(tmp_path: Path) -> None:
    model = nnrp.load(write(tmp_path / "two.jax", lambda a, b: a + b, port("n"), port("n")))
    assert model(np.float32([1]), np.float32([2]))["out"].tolist() == [3]
    for sizes in ((2, 3), (0, 0)):
        with pytest.raises(errors.ShapeMismatch):
            model(*[np.ones(size, np.float32) for size in sizes])


def test_many_threads_with_shapes_of_their_own_get_their_own_answers(tmp_path: Path) -> None:
    model = nnrp.load(write(tmp_path / "line.jax", lambda x: 2 * x + 1, port("n")))

    def wrong(thread: int) -> int:
        xs = (np.full(1 + (turn + thread) % 3, 1_000 * thread + turn, np.float32) for turn in range(240))
        return sum(not np.array_equal(model(x)["out"], 2 * x + 1) for x in xs)

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(wrong, range(4))) == 0


def test_a_file_that_is_cut_off_is_no_model(tmp_path: Path) -> None:
    whole = write(tmp_path / "line.jax", lambda x: 2 * x + 1, port("n")).read_bytes()
    found = []
    for end in range(0, len(whole) - 8, 97):
        (tmp_path / "cut.jax").write_bytes(whole[:end])
        with pytest.raises(errors.NnrpError) as refused:
            nnrp.load(tmp_path / "cut.jax", runtime="jax")
        found.append(refused.value)
    assert {error.reason for error in found} <= {"INVALID_MODEL", "LOAD_FAILED"}
    assert not any(str(tmp_path) in error.message for error in found)


def test_a_model_for_other_devices_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gpu.jax"
    path.write_bytes(export.export(jax.jit(lambda x: x), platforms=["cuda"])(port("n")).serialize())
    with pytest.raises(errors.DeviceNotFound, match="exported for cuda"):
        nnrp.load(path, runtime="jax")
    with pytest.raises(errors.DeviceNotFound, match="available to jax: cpu"):
        nnrp.load(path, runtime="jax", device="cuda:0")
    with pytest.raises(errors.NotOffered):
        nnrp.load(path, runtime="jax", precision="bf16")


def test_inspect_says_what_a_file_is_and_that_jax_runs_it(tmp_path: Path) -> None:
    path = write(tmp_path / "line.bin", lambda x: 2 * x + 1, port("n"))
    done = subprocess.run([Path(sys.executable).with_name("nnrp"), "inspect", path, "--json"], capture_output=True, text=True, timeout=120, check=True)
    about = json.loads(done.stdout)
    assert (about["format"], about["runtimes"]) == ("jax_export", ["jax"])


def test_the_page_runs_as_written(tmp_path: Path) -> None:
    assert page.run("jax", "jax", tmp_path) == 2
