"""Core ML's operations, each as a package of its own, against what NumPy says of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mil
import mil_cases
import numpy as np
import pytest

import nnrp
from nnrp.runtimes.coreml import CoreMl
from nnrp.runtimes.coreml.ops import TABLE
from nnrp.testing.formats.coreml import Blob, Package, Step, Tensor, Var, kind_of

Array = np.ndarray[Any, Any]
FLAG: Tensor = ("bool", ())
COUNT: Tensor = ("int32", ())
PAIR: Tensor = ("fp32", (2,))


@pytest.fixture(scope="module")
def engine() -> nnrp.Engine:
    engine = nnrp.Engine()
    engine.add_runtime(CoreMl())
    return engine


def ask(engine: nnrp.Engine, package: Path | Package, folder: Path, **inputs: Array) -> dict[str, Array]:
    """Load, ask once, unload."""
    path = package.save(folder / "model.mlpackage") if isinstance(package, Package) else package
    model = engine.load(path, "model", runtime="coreml")
    try:
        return model.infer(inputs)
    finally:
        engine.unload("model")


@pytest.mark.parametrize("case", mil_cases.CASES, ids=mil_cases.NAMES)
def test_an_operation_gives_what_numpy_gives(engine: nnrp.Engine, tmp_path: Path, case: mil_cases.Case) -> None:
    answer = ask(engine, mil.one(tmp_path / "one.mlpackage", case.kind, case.inputs, case.others, case.expected), tmp_path, **case.inputs)
    for index, expected in enumerate(case.expected):
        got = answer[f"y{index}"]
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
        np.testing.assert_allclose(got, expected, rtol=case.tolerance, atol=case.tolerance)


def test_every_operation_that_has_a_translation_is_tried() -> None:
    text = Path(__file__).read_text()
    untried = {kind for kind in TABLE if kind not in {case.kind for case in mil_cases.CASES} and f'"{kind}"' not in text}
    assert not untried


# Shapes that are known when the model runs


def test_shapes_that_the_program_computes(engine: nnrp.Engine, tmp_path: Path) -> None:
    x, some = Var("x"), ("fp32", (-1, 3))
    steps: list[Step] = [
        ("shape", {"x": x}, {"s": ("int32", (2,))}),
        ("gather", {"x": Var("s"), "indices": 0, "axis": 0}, {"n": COUNT}),
        ("range_1d", {"start": 0, "end": Var("n"), "step": 1}, {"row": ("int32", (-1,))}),
        ("fill", {"shape": Var("s"), "value": 0.5}, {"halves": some}),
        ("add", {"x": x, "y": Var("halves")}, {"more": some}),
        ("const", {"val": 3}, {"three": COUNT}),
        ("stack", {"values": (Var("n"), Var("three")), "axis": 0}, {"target": ("int32", (2,))}),
        ("reshape", {"x": Var("more"), "shape": Var("target")}, {"y": some}),
        ("concat", {"values": (Var("n"), Var("three")), "axis": 0}, {"joined": ("int32", (2,))}),
        ("slice_by_size", {"x": x, "begin": [0, 1], "size": Var("target")}, {"cut": ("fp32", (-1, -1))}),
        ("tile", {"x": x, "reps": Var("target")}, {"tiled": ("fp32", (-1, -1))}),
        ("pad", {"x": x, "pad": [0, 1, 2, 0], "mode": "constant"}, {"padded": ("fp32", (-1, 5))}),
        ("slice_by_index", {"x": x, "begin": Var("s"), "end": [0, 0], "squeeze_mask": [False, False], "stride": [-1, -1]}, {"back": ("fp32", (-1, -1))}),
    ]
    package = Package({"x": some}, steps, ["row", "y", "tiled", "padded", "back", "joined"])
    for rows in (2, 4):
        given = np.arange(3 * rows, dtype=np.float32).reshape(rows, 3)
        answer = ask(engine, package, tmp_path, x=given)
        assert answer["row"].tolist() == list(range(rows))
        assert (answer["y"] == given + 0.5).all()
        assert answer["joined"].tolist() == [rows, 3]
        assert (answer["tiled"] == np.tile(given, (rows, 3))).all()
        assert (answer["padded"] == np.pad(given, ((0, 1), (2, 0)))).all()
        assert (answer["back"] == given[rows:0:-1, 3:0:-1]).all()


# Branches and loops


def test_a_branch_is_taken_by_what_is_true(engine: nnrp.Engine, tmp_path: Path) -> None:
    double = ({}, [("mul", {"x": Var("x"), "y": 2.0}, {"twice": PAIR})], ["twice"])
    same = ({}, [("identity", {"x": Var("x")}, {"itself": PAIR})], ["itself"])
    steps: list[Step] = [("greater", {"x": Var("n"), "y": 0}, {"p": FLAG}), ("cond", {"pred": Var("p"), "blocks": [double, same]}, {"y": PAIR})]
    package = Package({"x": PAIR, "n": COUNT}, steps, ["y"])
    for count, factor in ((1, 2), (0, 1), (-1, 1)):
        answer = ask(engine, package, tmp_path, x=np.float32([1, 3]), n=np.array(count, np.int32))
        assert answer["y"].tolist() == [factor, 3 * factor]


def test_a_loop_asks_before_its_first_turn(engine: nnrp.Engine, tmp_path: Path) -> None:
    held: dict[str, Tensor] = {"i": COUNT, "v": PAIR}
    going = (held, [("greater", {"x": Var("i"), "y": 0}, {"go": FLAG})], ["go"])
    turn = (held, [("sub", {"x": Var("i"), "y": 1}, {"less": COUNT}), ("mul", {"x": Var("v"), "y": Var("x")}, {"more": PAIR})], ["less", "more"])
    loop = ("while_loop", {"loop_vars": (Var("n"), Var("x")), "blocks": [going, turn]}, {"left": COUNT, "y": PAIR})
    package = Package({"x": PAIR, "n": COUNT}, [loop], ["left", "y"])
    for count in (0, 1, 4):
        answer = ask(engine, package, tmp_path, x=np.float32([2, 3]), n=np.array(count, np.int32))
        assert answer["left"].item() == 0
        assert answer["y"].tolist() == [2 ** (count + 1), 3 ** (count + 1)]


def test_a_classifier_gives_a_label_and_its_probabilities(tmp_path: Path) -> None:
    package = Package({"x": ("fp32", (1, 3))}, [("classify", {"probabilities": Var("x"), "classes": np.array(["cat", "dog", "ä"], object)}, {})], [])
    message = package.message()
    block = message.mlProgram.functions[0].value.blocks[0].value
    block.operations[0].outputs.add(name="label").type.tensorType.dataType = 2
    block.operations[0].outputs.add(name="label_probs").type.dictionaryType = b""
    block.outputs.extend(["label", "label_probs"])
    file = tmp_path / "classes.mlmodel"
    file.write_bytes(message.SerializeToString())
    model = nnrp.load(file, runtime="coreml")
    answer = model(np.float32([[0.1, 0.2, 0.7]]))
    assert answer["label"].item() == "ä".encode()
    assert answer["label_probs"].tolist() == pytest.approx([0.1, 0.2, 0.7])
    assert model.session.settings["classes"] == {"label_probs": ["cat", "dog", "ä"]}


# Packed weights


def packed(values: Array, bits: int) -> bytes:
    """Elements of a few bits each, the least significant first, written bit by bit."""
    stream = [(int(one) >> bit) & 1 for one in values.reshape(-1) for bit in range(bits)]
    stream += [0] * (-len(stream) % 8)
    return bytes(sum(bit << at for at, bit in enumerate(stream[start : start + 8])) for start in range(0, len(stream), 8))


def narrow(values: Array, kind: str) -> Blob:
    """Elements of a type that NumPy has no word for."""
    return Blob(values, kind, packed(values, int("".join(filter(str.isdigit, kind)))))


RANDOM = np.random.default_rng(5)
SCALE, OFFSET = RANDOM.random((2, 2)).astype(np.float32), RANDOM.integers(-8, 8, (2, 2)).astype(np.int8)
FOURS = RANDOM.integers(-8, 8, (4, 6)).astype(np.int8)
TABLE16 = RANDOM.random(4).astype(np.float16)
PLACES = RANDOM.integers(0, 4, (3, 5)).astype(np.uint8)
TABLES = RANDOM.random((2, 1, 4, 1)).astype(np.float32)
PLACES2 = RANDOM.integers(0, 4, (6, 2)).astype(np.uint8)
VECTORS = RANDOM.random((1, 1, 2, 3)).astype(np.float32)
ONES = RANDOM.integers(0, 2, (2, 4)).astype(np.uint8)
MASK = RANDOM.integers(0, 2, (4, 6)).astype(np.uint8)
NONZERO = RANDOM.integers(1, 7, int(MASK.sum())).astype(np.int8)
BYTES = RANDOM.integers(0, 255, (4, 6)).astype(np.uint8)


def dense(mask: Array, values: Array) -> Array:
    filled = np.zeros(mask.shape, values.dtype)
    filled[mask != 0] = values
    return filled


def wide(small: Array, shape: Sequence[int]) -> Array:
    return np.kron(small, np.ones([whole // part for whole, part in zip(shape, small.shape, strict=True)]))


#: What is packed, how, and what it is unpacked.
WEIGHTS: dict[str, tuple[list[Step], Array]] = {
    "affine": (
        [
            (
                "constexpr_affine_dequantize",
                {"quantized_data": Blob(BYTES), "scale": np.float32([0.5, 2, 1, 3]), "zero_point": np.uint8([1, 2, 3, 4]), "axis": 0},
                {},
            )
        ],
        (BYTES.astype(float) - np.array([1, 2, 3, 4])[:, None]) * np.array([0.5, 2, 1, 3])[:, None],
    ),
    "cast": ([("constexpr_cast", {"source_val": Blob(TABLE16), "output_dtype": "fp32"}, {})], TABLE16.astype(np.float32)),
    "table": (
        [("constexpr_lut_to_dense", {"indices": np.frombuffer(packed(PLACES, 2), np.uint8), "lut": TABLE16, "shape": np.uint32([3, 5])}, {})],
        TABLE16[PLACES],
    ),
    "tables": (
        [("constexpr_lut_to_dense", {"indices": narrow(PLACES2, "uint2"), "lut": TABLES}, {})],
        np.where(np.arange(6)[:, None] < 3, TABLES[0, 0, :, 0][PLACES2], TABLES[1, 0, :, 0][PLACES2]),
    ),
    "vectors": (
        [("constexpr_lut_to_dense", {"indices": narrow(ONES, "uint1"), "lut": VECTORS, "vector_axis": 1}, {})],
        VECTORS[0, 0][ONES].reshape(2, 12),
    ),
    "vectors-first": (
        [("constexpr_lut_to_dense", {"indices": narrow(ONES, "uint1"), "lut": VECTORS, "vector_axis": 0}, {})],
        VECTORS[0, 0][ONES].transpose(0, 2, 1).reshape(6, 4),
    ),
    "blocks": (
        [("constexpr_blockwise_shift_scale", {"data": narrow(FOURS, "int4"), "scale": SCALE, "offset": narrow(OFFSET, "int4")}, {})],
        (FOURS - wide(OFFSET, (4, 6))) * wide(SCALE, (4, 6)),
    ),
    "sparse-bytes": (
        [
            (
                "constexpr_sparse_to_dense",
                {"nonzero_data": NONZERO.astype(np.float32), "mask": np.frombuffer(packed(MASK, 1), np.uint8), "shape": np.uint32([4, 6])},
                {},
            )
        ],
        dense(MASK, NONZERO.astype(np.float32)),
    ),
    "sparse-blocks": (
        [
            ("constexpr_sparse_blockwise_shift_scale", {"data_mask": narrow(MASK, "uint1"), "nonzero_data": NONZERO, "scale": SCALE, "offset": OFFSET}, {}),
            ("constexpr_sparse_to_dense", {"nonzero_data": Var("first1"), "mask": Var("first0")}, {}),
        ],
        ((dense(MASK, NONZERO) - wide(OFFSET, (4, 6))) * wide(SCALE, (4, 6))) * MASK,
    ),
    "sparse-table": (
        [
            (
                "constexpr_lut_to_sparse",
                {"indices_mask": narrow(MASK, "uint1"), "indices_nonzero_data": narrow(NONZERO % 4, "uint2"), "lut": TABLES[:1].reshape(1, 1, 4, 1)},
                {},
            ),
            ("constexpr_sparse_to_dense", {"nonzero_data": Var("first1"), "mask": Var("first0")}, {}),
        ],
        dense(MASK, TABLES[0, 0, :, 0][NONZERO % 4]),
    ),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_packed_weights_are_unpacked(engine: nnrp.Engine, tmp_path: Path, name: str) -> None:
    (*before, (kind, taken, _)), expected = WEIGHTS[name]
    last = expected.astype(np.float16 if name == "table" else np.float32)
    steps: list[Step] = [(one, told, {"first0": ("uint1", MASK.shape), "first1": ("fp32", NONZERO.shape)}) for one, told, _ in before]
    steps += [(kind, taken, {"w": (kind_of(last), last.shape)}), ("add", {"x": Var("x"), "y": Var("w")}, {"y": (kind_of(last), last.shape)})]
    answer = ask(engine, Package({"x": (kind_of(last), last.shape)}, steps, ["y"]), tmp_path, x=np.zeros(last.shape, last.dtype))
    np.testing.assert_allclose(answer["y"], last, rtol=1e-6)


def test_weights_of_old_packages_are_attributes(engine: nnrp.Engine, tmp_path: Path) -> None:
    """As coremltools writes them for iOS 16: not among the inputs."""
    package = Package(
        {"x": ("fp32", (4, 6))},
        [(*WEIGHTS["affine"][0][0][:2], {"w": ("fp32", (4, 6))}), ("add", {"x": Var("x"), "y": Var("w")}, {"y": ("fp32", (4, 6))})],
        ["y"],
    )
    folder = package.save(tmp_path / "old.mlpackage")
    message = package.message()
    operation = message.mlProgram.functions[0].value.blocks[0].value.operations[0]
    for one in operation.inputs:
        operation.attributes.add(key=one.key, value=one.value.arguments[0].value)
    del operation.inputs[:]
    (folder / "Data/com.apple.CoreML/model.mlmodel").write_bytes(message.SerializeToString())
    (folder / "Data/com.apple.CoreML/weights/weight.bin").write_bytes(package.weights)
    np.testing.assert_allclose(ask(engine, folder, tmp_path, x=np.zeros((4, 6), np.float32))["y"], WEIGHTS["affine"][1], rtol=1e-6)


#: Loads a package, asks it, and says how many bytes the process grew to at most meanwhile.
GROWTH = """
import resource, sys, numpy as np, nnrp
nnrp.load(sys.argv[1], runtime="coreml")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = nnrp.load(sys.argv[2], runtime="coreml")
answer = model(np.ones((1, 2048), np.float32))["y"]
assert (answer[0, :2] == [2048, 4096]).all() and (answer[0, 2:] == 0).all(), answer
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


def test_long_weights_are_loaded_without_copies_of_them_all(tmp_path: Path) -> None:
    """Three of 16 MB each: they are written one by one."""
    weight = np.eye(2048, dtype=np.float32)
    last = np.zeros((2048, 2048), np.float32)
    last[:, 0], last[:, 1] = 1, 2
    row: Tensor = ("fp32", (1, 2048))
    steps: list[Step] = [
        ("matmul", {"x": Var("x"), "y": Blob(weight)}, {"a": row}),
        ("matmul", {"x": Var("a"), "y": Blob(2 * weight)}, {"b": row}),
        ("matmul", {"x": Var("b"), "y": Blob(last / 2)}, {"y": row}),
    ]
    big = Package({"x": row}, steps, ["y"]).save(tmp_path / "big.mlpackage")
    small = Package({"x": row}, [("relu", {"x": Var("x")}, {"y": row})], ["y"]).save(tmp_path / "small.mlpackage")
    done = subprocess.run([sys.executable, "-c", GROWTH, small, big], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2 * 3 * weight.nbytes
