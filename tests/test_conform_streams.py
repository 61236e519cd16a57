"""The conformance suite asks for streams: what each check finds, and that a runtime without streams is told so and does not fail."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnrp
from nnrp.runtimes import Control, ModelSpec
from nnrp.testing import check_runtime
from nnrp.testing.streams import STREAMING

LINE = (("x", "FP32", (-1,)),)


class Line:
    """One answer to a request."""

    inputs = outputs = LINE
    exclusive = False

    def run(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> Any:
        return [2 * inputs["x"] + np.float32(1)]


class Each:
    """An answer for each element of x, and what one of the methods does wrong."""

    inputs = outputs = LINE
    exclusive = False

    def __init__(self, does: str) -> None:
        self.stream, self.kept = getattr(self, does), list[mmap.mmap]()

    def right(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> Iterator[Any]:
        for element in inputs["x"]:
            yield [(2 * element + np.float32(1)).reshape(1)]

    def backward(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> Iterator[Any]:
        return self.right({"x": inputs["x"][::-1]}, outputs, control)

    def forgetful(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> Iterator[Any]:
        return self.right({"x": inputs["x"][1:]}, outputs, control)

    def shared(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> Iterator[Any]:
        self.x = inputs["x"]
        for index in range(len(self.x)):
            threading.Event().wait(0.001)
            yield [2 * self.x[index : index + 1] + np.float32(1)]

    def blocked(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> Iterator[Any]:
        for answer in self.right(inputs, outputs, control):
            yield answer
            threading.Event().wait(3 if len(inputs["x"]) > 20 else 0)

    def talkative(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> Iterator[Any]:
        yield [inputs["x"].copy()]
        if not inputs["x"].all():
            raise nnrp.RuntimeFailure("Traceback (most recent call last): a bead fell off")

    def hoarding(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> Iterator[Any]:
        # Memory that no other test has left free.
        self.kept.append(mmap.mmap(-1, 1 << 19))
        self.kept[-1].write(bytes(1 << 19))
        return self.right(inputs, outputs, control)


class Beads:
    name = "beads"

    def info(self) -> dict[str, Any]:
        return {"version": "1", "devices": ["wood"]}

    def load(self, spec: ModelSpec) -> Line | Each:
        stem = Path(spec.path).stem
        return Line() if stem == "line" else Each(stem)


@pytest.fixture
def made(tmp_path: Path) -> Mapping[str, Path]:
    names = ["line", "right", "backward", "forgetful", "shared", "blocked", "talkative", "hoarding"]
    for name in names:
        (tmp_path / f"{name}.beads").touch()
    return {name: tmp_path / f"{name}.beads" for name in names}


ONE, ZERO = {"x": [1.0]}, {"x": [0.0]}
WRONG: Mapping[str, tuple[dict[str, Any], set[str]]] = {
    "right": ({}, set()),
    "backward": ({}, {"streams.order", "streams.refused", "streams.threads", "streams.left"}),
    "forgetful": ({}, {"streams.order", "streams.refused", "streams.threads", "streams.left"}),
    "shared": ({}, {"streams.threads"}),
    "blocked": ({}, {"streams.left", "streams.deadline"}),
    "talkative": ({"ask": ONE}, {"streams.fails"}),
}


@pytest.mark.parametrize("does", WRONG)
def test_what_a_stream_does_wrong_fails_its_checks_and_no_others(made: Mapping[str, Path], does: str) -> None:
    role, failing = WRONG[does]
    models = {"affine": made["line"], "stream": {"path": made[does], **role}, "stream_failing": {"path": made[does], "ask": ZERO, "then": ONE}}
    if does != "talkative":
        del models["stream_failing"]
    only = ["streams.one_answer", *STREAMING - {"streams.leak"}]
    report = check_runtime(Beads(), models=models, only=only)
    assert report.failures.keys() == failing, report.table()
    unseen = {one.id for one in report.outcomes if one.verdict == "na"}
    assert unseen == ({"streams.none", "streams.deadline"} if does == "talkative" else {"streams.fails"}), report.table()


def test_what_streams_leave_behind_is_found(made: Mapping[str, Path]) -> None:
    for does, failing in (("right", set[str]()), ("hoarding", {"streams.leak"})):
        report = check_runtime(Beads(), models={"affine": made["line"], "stream": made[does]}, only=["streams.leak"], loads=40)
        assert report.failures.keys() == failing, report.table()


def test_a_runtime_without_streams_is_told_so_and_one_that_claims_them_fails(made: Mapping[str, Path]) -> None:
    without = check_runtime(Beads(), models={"affine": made["line"]}, only=["streams"])
    assert without.passed
    assert {one.id for one in without.outcomes if one.verdict == "na"} == STREAMING
    assert all(one.text.startswith("not offered: ") for one in without.outcomes if one.verdict == "na")
    claims = check_runtime(Beads(), models={"affine": made["line"], "stream": made["line"]}, only=["streams"])
    assert claims.failures.keys() == STREAMING
    assert claims.failures["streams.order"].got == "one that gives one answer"
