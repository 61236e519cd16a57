"""What goes into a comparison, and how two answers are measured: without runtimes."""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnrp import errors
from nnrp.compare import invent, tolerance
from nnrp.compare.cases import from_files
from nnrp.compare.difference import Difference, Tally
from nnrp.compare.signature import Port, pair
from nnrp.tensor import NAMES

ROOT = Path(__file__).resolve().parent.parent


# Cases


PORTS = (Port("ids", "INT64", ("batch", "sequence")), Port("mask", "INT64", ("batch", "sequence"), optional=True))


def npz(path: Path, **arrays: Any) -> None:
    np.savez(path, **arrays)


def test_cases_are_read_from_every_kind_of_file(tmp_path: Path) -> None:
    ids = np.arange(6).reshape(2, 3)
    npz(tmp_path / "a.npz", ids=ids, mask=ids)
    (tmp_path / "b.json").write_text('{"ids": [[0, 1, 2], [3, 4, 5]]}')
    (tmp_path / "notes.txt").write_text("not a case")

    cases = from_files(tmp_path, PORTS)

    assert [(case.name, sorted(case.inputs)) for case in cases] == [("a", ["ids", "mask"]), ("b", ["ids"])]
    np.testing.assert_array_equal(list(cases)[1].inputs["ids"], ids)
    one = tmp_path / "one"
    one.mkdir()
    np.save(one / "c.npy", ids)
    np.testing.assert_array_equal(next(iter(from_files(one, PORTS[:1]))).inputs["ids"], ids)


@pytest.mark.parametrize(
    ("write", "kind", "text"),
    [
        (lambda path: npz(path / "c.npz", idz=np.zeros((1, 1), np.int64)), errors.UnknownInput, "'idz'"),
        (lambda path: npz(path / "c.npz", mask=np.zeros((1, 1), np.int64)), errors.MissingInput, "'ids' is missing"),
        (lambda path: npz(path / "c.npz", ids=np.zeros((1, 1))), errors.DatatypeMismatch, r"astype\('int64'\)"),
        (lambda path: npz(path / "c.npz", ids=np.zeros(3, np.int64)), errors.ShapeMismatch, "batch, sequence"),
        (lambda path: npz(path / "c.npz", ids=np.array([{}], object)), errors.Malformed, "pickled"),
        (lambda path: (path / "c.npz").write_bytes(b"PK\x03\x04 oops"), errors.Malformed, "c.npz"),
        (lambda path: (path / "c.npy").write_bytes(b"\x93NUMPY"), errors.Malformed, "c.npy"),
        (lambda path: (path / "c.json").write_text("{"), errors.Malformed, "c.json"),
        (lambda path: (path / "c.json").write_text("[1]"), errors.MissingInput, "by name"),
        (lambda path: (path / "c.json").write_text('{"ids": [[1.5]]}'), errors.DatatypeMismatch, "c.json"),
        (lambda path: (path / "c.txt").write_text("[1]"), errors.FileNotFound, "no .npz"),
    ],
)
def test_a_bad_case_is_refused_by_name(tmp_path: Path, write: Callable[[Path], object], kind: type[Exception], text: str) -> None:
    write(tmp_path)
    with pytest.raises(kind, match=text):
        from_files(tmp_path, PORTS)


def test_a_case_that_unfolds_to_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("ids.npy", "w", force_zip64=True) as entry:
        for _ in range(65):
            entry.write(bytes(16 << 20))
    assert (tmp_path / "bomb.npz").stat().st_size < 4 << 20
    with pytest.raises(errors.Malformed, match="unfolds"):
        from_files(tmp_path, PORTS)


def test_random_sizes_agree_where_names_do_and_the_seed_repeats_them() -> None:
    picture = Port("picture", "FP32", (-1, 3, -1, -1))
    ports = (Port("ids", "INT64", ("batch", "sequence")), Port("attention_mask", "INT64", ("batch", "sequence")), picture, Port("any", "FP32", None))

    first, again, other = (invent.random(2, seed, ports, shapes={"ids": (2, 7)}) for seed in (0, 0, 1))

    inputs = next(iter(first)).inputs
    assert {name: value.shape for name, value in inputs.items()} == {"ids": (2, 7), "attention_mask": (2, 7), "picture": (1, 3, 224, 224), "any": (8,)}
    assert (inputs["attention_mask"] == 1).all()
    assert 0 <= inputs["ids"].min() <= inputs["ids"].max() < 100
    assert first.digest() == again.digest() != other.digest()
    assert invent.sizes((picture,), [(Port("image", "FP32", (1, 3, 32, 48)),)], {}) == {"picture": (1, 3, 32, 48)}, "another file's fixed sizes hold here too"
    with pytest.raises(errors.InvalidOption, match="of one name alike"):
        invent.sizes(ports, [], {"ids": (2, 7), "attention_mask": (2, 8)})


def test_cases_are_the_same_each_time_and_those_of_older_pins(tmp_path: Path) -> None:
    ports = (*PORTS[:1], Port("x", "FP32", (-1, 3)))
    made = invent.random(3, 7, ports)
    npz(tmp_path / "a.npz", ids=np.arange(6).reshape(2, 3), x=np.ones((2, 3), np.float32))
    for cases in (made, from_files(tmp_path, ports)):
        first, second = ([(case.name, {name: value.tolist() for name, value in case.inputs.items()}) for case in cases] for _ in range(2))
        assert first == second
        assert len(first) == len(cases)
    assert made.digest() == "f07359b2f97ab7f681ca11d9512635dd516773d4fe3301f1fecbc1f511909715"


@pytest.mark.parametrize("datatype", NAMES)
def test_every_datatype_has_random_values(datatype: str) -> None:
    (case,) = invent.random(1, 0, [Port("x", datatype, (2, 3))])
    assert tuple(case.inputs["x"].shape) == (2, 3)


def test_a_range_holds_and_must_fit_its_datatype() -> None:
    port = Port("x", "UINT8", (1000,))
    (case,) = invent.random(1, 0, [port], ranges={"x": (3, 5)})
    values = case.inputs["x"]
    assert set(values.tolist()) == {3, 4, 5}
    with pytest.raises(errors.InvalidOption, match="UINT8"):
        invent.random(1, 0, [port], ranges={"x": (0, 1000)})
    with pytest.raises(errors.InvalidOption, match="range x: expected an input of numbers"):
        invent.random(1, 0, [Port("x", "BYTES", (2,))], ranges={"x": (0, 1)})


@pytest.mark.parametrize("open_shape", [(-1, "n"), None])
def test_a_size_below_0_is_refused(open_shape: tuple[int | str, ...] | None) -> None:
    with pytest.raises(errors.InvalidOption, match="expected sizes from 0"):
        invent.random(1, 0, [Port("x", "FP32", open_shape)], shapes={"x": (2, -3)})


# Differences


def difference(reference: Any, got: Any, limit: float = 0.0) -> Difference:
    tally = Tally("y")
    tally.add("case", np.asarray(reference), np.asarray(got))
    return tally.result(limit, "FP32")


@pytest.mark.parametrize(
    ("reference", "got", "verdict"),
    [
        ([1.0, math.nan, math.inf], [1.0, math.nan, math.inf], "same"),
        ([1.0, 2.0], [1.0, math.nan], "differs"),
        ([1.0, math.nan], [1.0, 2.0], "differs"),
        ([math.inf], [-math.inf], "differs"),
        ([math.inf], [3e38], "differs"),
        ([0.0, 0.0], [0.0, 1e-9], "within"),
        ([100.0, 0.0], [100.0, 0.05], "within"),
        ([1.0, 0.0], [1.0, 0.05], "differs"),
        ([2**53], [2**53 + 1], "differs"),
        ([True], [False], "differs"),
        ([], [], "same"),
        (1.0, 2.0, "differs"),
        ([[1.0]], [1.0], "differs"),
        (np.array([b"a"], object), np.array([b"b"], object), "differs"),
        (np.array([b"a"], object), np.array([1.0]), "differs"),
    ],
)
def test_each_difference_has_its_verdict(reference: Any, got: Any, verdict: str) -> None:
    exact = np.asarray(reference).dtype.kind in "biuO"
    assert difference(reference, got, 0.0 if exact else 1e-3).verdict == verdict


def test_the_largest_error_is_found_with_its_index_and_values() -> None:
    found = difference([[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.5], [3.0, 4.25]])

    assert found.where is not None
    assert (found.where.index, found.where.reference, found.where.got) == ((0, 1), 2.0, 2.5)
    assert (found.max_abs, found.max_rel, found.mean_abs, found.differing, found.top1) == (0.5, 0.125, 0.1875, 2, 1.0)


def test_a_nan_among_numbers_is_the_place_that_is_told() -> None:
    found = difference([1.0, 2.0, 3.0], [1.5, math.nan, 3.0])

    assert found.nonfinite == 1
    assert found.where is not None
    assert found.where.index == (1,)


def test_the_tolerances_of_the_guide_are_those_of_the_code() -> None:
    text = (ROOT / "docs/guide/migrate.md").read_text(encoding="utf-8")
    table: Mapping[str, float] = {m[1]: float(m[2]) for m in re.finditer(r"^\| (?:precision|datatype) `(\w+)` \| ([\d.e-]+) \|", text, re.MULTILINE)}
    code = {name: tolerance.default(["FP32"], [name]) for name in ("strict", "bf16", "fp16", "int8", "fast")}
    code |= {name: tolerance.default([name], ["strict"]) for name in ("FP64", "FP32", "FP16", "BF16", "FP8_E4M3", "FP8_E5M2")}
    assert table == code
    assert tolerance.default(["INT8", "INT8"], ["bf16"]) == 0


# Which output is which


def ports(**shapes: Any) -> list[Port]:
    """Ports of FP32, by their shapes, or as they are."""
    return [shape if isinstance(shape, Port) else Port(name, "FP32", shape) for name, shape in shapes.items()]


def test_others_names_are_matched_by_what_the_file_calls_them() -> None:
    ours = ports(note=Port("note", "FP32", (1, 88), tensor="call:1"), onset=Port("onset", "FP32", (1, 88), tensor="call:0"))
    found, how = pair(ours, ports(**{"call:0": (1, 88), "call:1": (1, 88)}), {}, "outputs")
    assert found == {"note": "call:1", "onset": "call:0"}
    assert how.startswith("outputs by the file's own names: ")
    assert pair(ports(**{"call:0": (1, 88), "call:1": (1, 88)}), ours, {}, "outputs")[0] == {"call:1": "note", "call:0": "onset"}


@pytest.mark.parametrize(
    ("ours", "theirs", "expected", "how"),
    [
        (ports(a=(1, 88), b=(1, 264)), ports(p=(1, 264), q=(1, 88)), {"a": "q", "b": "p"}, "by shape"),
        (ports(a=(-1, 2, 4), b=(-1, 2, -1)), ports(p=(-1, 2, 7), q=(-1, 2, -1)), {"a": "q", "b": "p"}, "by shape"),
        (ports(a=Port("a", "INT64", (1,)), b=(1,)), ports(p=(1,), q=Port("q", "INT64", (1,))), {"a": "q", "b": "p"}, "by shape"),
        (ports(a=Port("a", "FP16", (1,)), b=(1, 2)), ports(p=(1, 2), q=(1,)), {"a": "q", "b": "p"}, "by shape"),
        (ports(a=(1, 88), b=(1, 88), c=(1, 264)), ports(p=(1, 88), q=(1, 88), r=(1, 264)), {"a": "p", "b": "q", "c": "r"}, "by order"),
        (ports(a=(1, 88), b=(1, 264)), ports(b=(1, 264), q=(1, 88)), {"a": "q", "b": "b"}, "by order"),
        (ports(a=(1, 4)), ports(p=(4, 1)), {"a": "p"}, "by order"),
    ],
)
def test_others_names_are_matched_as_shapes_and_datatypes_allow(ours: list[Port], theirs: list[Port], expected: dict[str, str], how: str) -> None:
    found, told = pair(ours, theirs, {}, "outputs")
    assert found == expected
    assert how in told


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        # Two assignments fit, and not that by order.
        (ports(a=(1, 264), b=(1, 88), c=(1, 88)), ports(p=(1, 88), q=(1, 88), r=(1, 264))),
        (ports(a=(1, 2), b=(1, 3)), ports(p=(1, 3), q=(1, 4))),
        (ports(a=(1, 2), b=(1, 3)), ports(p=(1, 3))),
    ],
)
def test_what_cannot_be_matched_is_refused_with_what_to_do(ours: list[Port], theirs: list[Port]) -> None:
    with pytest.raises(errors.InvalidOption, match=r"cannot be matched.*--name THERE=HERE.*'outputs'"):
        pair(ours, theirs, {}, "outputs")
    if len(theirs) == len(ours):
        told = dict(zip((port.name for port in theirs), (port.name for port in ours), strict=True))
        assert pair(ours, theirs, told, "outputs")[0] == {name: there for there, name in told.items()}
