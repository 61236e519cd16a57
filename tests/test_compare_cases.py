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
from nnrp.compare.signature import Port
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

    assert [(case.name, sorted(case.inputs)) for case in cases.cases] == [("a", ["ids", "mask"]), ("b", ["ids"])]
    np.testing.assert_array_equal(cases.cases[1].inputs["ids"], ids)
    one = tmp_path / "one"
    one.mkdir()
    np.save(one / "c.npy", ids)
    np.testing.assert_array_equal(from_files(one, PORTS[:1]).cases[0].inputs["ids"], ids)


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

    inputs = first.cases[0].inputs
    assert {name: value.shape for name, value in inputs.items()} == {"ids": (2, 7), "attention_mask": (2, 7), "picture": (1, 3, 224, 224), "any": (8,)}
    assert (inputs["attention_mask"] == 1).all()
    assert 0 <= inputs["ids"].min() <= inputs["ids"].max() < 100
    assert first.digest() == again.digest() != other.digest()
    assert invent.sizes((picture,), [(Port("image", "FP32", (1, 3, 32, 48)),)], {}) == {"picture": (1, 3, 32, 48)}, "another file's fixed sizes hold here too"
    with pytest.raises(errors.InvalidOption, match="of one name alike"):
        invent.sizes(ports, [], {"ids": (2, 7), "attention_mask": (2, 8)})


@pytest.mark.parametrize("datatype", NAMES)
def test_every_datatype_has_random_values(datatype: str) -> None:
    (case,) = invent.random(1, 0, [Port("x", datatype, (2, 3))]).cases
    assert tuple(case.inputs["x"].shape) == (2, 3)


def test_a_range_holds_and_must_fit_its_datatype() -> None:
    port = Port("x", "UINT8", (1000,))
    values = invent.random(1, 0, [port], ranges={"x": (3, 5)}).cases[0].inputs["x"]
    assert set(values.tolist()) == {3, 4, 5}
    with pytest.raises(errors.InvalidOption, match="UINT8"):
        invent.random(1, 0, [port], ranges={"x": (0, 1000)})


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
