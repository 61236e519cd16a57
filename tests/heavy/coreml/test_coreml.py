"""Core ML packages that coremltools wrote: our reader and every translation against another writer than ours, and packed weights against its own unpacking."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import mil_cases
import numpy as np
import pytest
from coremltools import optimize
from coremltools.converters.mil import Builder as mb  # noqa: N813 as everybody calls it
from coremltools.converters.mil.mil import types
from mil_case import Case

import nnrp
from nnrp.runtimes.coreml import CoreMl

Array = np.ndarray[Any, Any]
TARGETS = {15: ct.target.iOS15, 16: ct.target.iOS16, 17: ct.target.iOS17, 18: ct.target.iOS18}
#: What a program of coremltools takes; other types are cast to within it.
TAKEN = {"float32": types.fp32, "int32": types.int32, "float16": types.fp16}


@pytest.fixture(scope="module")
def engine() -> nnrp.Engine:
    engine = nnrp.Engine()
    engine.add_runtime(CoreMl())
    return engine


def ask(engine: nnrp.Engine, model: Any, folder: Path, inputs: dict[str, Array]) -> list[Array]:
    """Save, load, ask once, unload."""
    path = folder / "model.mlpackage"
    model.save(str(path))
    loaded = engine.load(path, "model", runtime="coreml")
    try:
        return list(loaded.infer(inputs).values())
    finally:
        engine.unload("model")


def convert(function: Callable[..., Any], names: list[str], specs: list[Any], target: Any, precision: Any = ct.precision.FLOAT32) -> Any:
    """Make a model of a function of the builder; its parameters are the names of the inputs."""
    scope: dict[str, Any] = {"function": function}
    exec(f"def traced({', '.join(names)}):\n    return function({', '.join(names)})", scope)
    program = mb.program(input_specs=specs, opset_version=target)(scope["traced"])
    return ct.convert(program, convert_to="mlprogram", compute_precision=precision, minimum_deployment_target=target, skip_model_load=True)


def taken(array: Array) -> Array:
    """An input as a program of coremltools takes it."""
    return array if array.dtype.name in TAKEN else array.astype(np.float32 if array.dtype == bool else np.int32)


def written(case: Case) -> Any:
    """The model of a case."""

    def build(*given: Any) -> Any:
        values = {}
        for (name, array), value in zip(case.inputs.items(), given, strict=True):
            values[name] = value if array.dtype.name in TAKEN else mb.cast(x=value, dtype=array.dtype.name)
        others = {key: tuple(values.pop(one.name) for one in told) if isinstance(told, tuple) else told for key, told in case.others.items()}
        answer = getattr(mb, case.kind)(**values, **others)
        answers = answer if isinstance(answer, (tuple, list)) else (answer,)
        return tuple(mb.cast(x=one, dtype="int32") if one.dtype in (types.bool, types.int8, types.uint8) else mb.identity(x=one) for one in answers)

    specs = [mb.TensorSpec(shape=array.shape, dtype=TAKEN[taken(array).dtype.name]) for array in case.inputs.values()]
    return convert(build, list(case.inputs), specs, TARGETS[case.since])


@pytest.mark.parametrize("case", mil_cases.CASES, ids=mil_cases.NAMES)
def test_an_operation_that_coremltools_wrote_gives_what_numpy_gives(engine: nnrp.Engine, tmp_path: Path, case: Case) -> None:
    answers = ask(engine, written(case), tmp_path, {name: taken(array) for name, array in case.inputs.items()})
    for got, expected in zip(answers, case.expected, strict=True):
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, rtol=case.tolerance, atol=case.tolerance)


# Packed weights

RANDOM = np.random.default_rng(3)
KERNEL = (RANDOM.normal(size=(64, 8, 3, 3)) / 5).astype(np.float32)
MATRIX = (RANDOM.normal(size=(32, 64 * 36)) / 20).astype(np.float32)
X = RANDOM.normal(size=(2, 8, 8, 8)).astype(np.float32)


def net(since: int, precision: Any = ct.precision.FLOAT32) -> Any:
    """A small net with weights worth packing."""

    def build(x: Any) -> Any:
        seen = mb.relu(x=mb.conv(x=x, weight=KERNEL, pad_type="valid"))
        return mb.softmax(x=mb.linear(x=mb.reshape(x=seen, shape=[2, -1]), weight=MATRIX), axis=-1)

    return convert(build, ["x"], [mb.TensorSpec(shape=X.shape)], TARGETS[since], precision)


def quantized(model: Any, **words: Any) -> Any:
    told = optimize.coreml.OpLinearQuantizerConfig(weight_threshold=100, **words)
    return optimize.coreml.linear_quantize_weights(model, optimize.coreml.OptimizationConfig(told), joint_compression="prune" in model.short_description)


def palettized(model: Any, **words: Any) -> Any:
    told = optimize.coreml.OpPalettizerConfig(weight_threshold=100, mode="uniform", **words)
    return optimize.coreml.palettize_weights(model, optimize.coreml.OptimizationConfig(told), joint_compression="prune" in model.short_description)


def pruned(model: Any) -> Any:
    told = optimize.coreml.OpMagnitudePrunerConfig(weight_threshold=100, target_sparsity=0.6)
    found = optimize.coreml.prune_weights(model, optimize.coreml.OptimizationConfig(told))
    found.short_description = "pruned"
    return found


#: How weights are packed: since which iOS, and by what.
PACKED: dict[str, tuple[int, Callable[[Any], Any]]] = {
    "int8": (16, lambda model: quantized(model, mode="linear_symmetric")),
    "int8 with zero": (16, lambda model: quantized(model, mode="linear")),
    "int8 by channel": (18, lambda model: quantized(model, mode="linear")),
    "uint4 by channel": (18, lambda model: quantized(model, mode="linear", dtype="uint4")),
    "int4 by block": (18, lambda model: quantized(model, mode="linear", dtype="int4", granularity="per_block", block_size=4)),
    "pruned": (16, pruned),
    "pruned by bits": (18, pruned),
    "pruned and int8": (18, lambda model: quantized(pruned(model), mode="linear_symmetric")),
    "pruned and palette": (18, lambda model: palettized(pruned(model), nbits=4)),
    "palettes by channels": (18, lambda model: palettized(model, nbits=4, granularity="per_grouped_channel", group_size=8)),
    **{f"palette of {bits} bits, 16": (16, lambda model, bits=bits: palettized(model, nbits=bits)) for bits in (1, 2, 4, 6, 8)},
    **{f"palette of {bits} bits, 18": (18, lambda model, bits=bits: palettized(model, nbits=bits)) for bits in (1, 2, 3, 4, 6, 8)},
}


@pytest.mark.parametrize("name", PACKED)
def test_packed_weights_are_what_coremltools_unpacks(engine: nnrp.Engine, tmp_path: Path, name: str) -> None:
    since, pack = PACKED[name]
    packed = pack(net(since))
    (got,) = ask(engine, packed, tmp_path, {"x": X})
    (expected,) = ask(engine, optimize.coreml.decompress_weights(packed), tmp_path / "plain", {"x": X})
    np.testing.assert_array_equal(got, expected)
    # And they are packed: otherwise nothing was tried.
    assert any(one.op_type.startswith("constexpr_") for one in packed._mil_program.functions["main"].operations)


def test_a_program_in_halves_is_near_the_one_in_singles(engine: nnrp.Engine, tmp_path: Path) -> None:
    (half,) = ask(engine, net(17, ct.precision.FLOAT16), tmp_path, {"x": X})
    (single,) = ask(engine, net(17), tmp_path / "single", {"x": X})
    assert 0 < np.abs(half - single).max() < 1e-3


def test_coremltools_itself_runs_nothing_here() -> None:
    """The reason for all this; where it fails, the native way can be tried at last."""
    if sys.platform == "darwin":
        pytest.skip("Core ML is there")
    with pytest.raises(Exception, match="macOS"):
        net(17).predict({"x": X})
