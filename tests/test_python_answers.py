"""What a server answers, held against what it told of the model: a real server that speaks the protocol and contradicts itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import servers

import nnrp
from nnrp.errors import ConnectionFailed

X = np.ones((1, 2), np.float32)
Y = {"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
N = {"name": "n", "datatype": "INT64", "shape": [3], "data": [1, 2, 3]}
ANY = {"name": "any", "datatype": "FP32", "shape": [], "data": [5]}
OUTPUTS = [
    {"name": "y", "datatype": "FP32", "shape": [-1, 2]},
    {"name": "n", "datatype": "INT64", "shape": [3]},
    {"name": "any", "datatype": "FP32", "shape": [-1]},
]


class Liar(servers.Files):
    """A server whose model ``m`` has these metadata, and answers whatever a test says."""

    def tells(self, outputs: list[dict[str, Any]]) -> None:
        told = {"name": "m", "versions": ["1"], "platform": "any", "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}], "outputs": outputs}
        self.content["/v2/models/m"] = json.dumps(told).encode()

    def answers(self, *outputs: dict[str, Any]) -> None:
        self.content["/v2/models/m/infer"] = json.dumps({"model_name": "m", "model_version": "1", "outputs": outputs}).encode()


@pytest.fixture
def liar() -> Iterator[Liar]:
    with servers.serving(found := Liar({})):
        found.tells(OUTPUTS)
        yield found


def refused(model: nnrp.Model, *outputs: str) -> nnrp.NnrpError:
    """The error of every kind of call, which is the same."""
    calls = [lambda: model.infer({"x": X}, outputs or None), lambda: asyncio.run(model.infer_async({"x": X}, outputs or None))]
    found = []
    for call in calls if outputs else [*calls, lambda: model(X)]:
        with pytest.raises(ConnectionFailed) as raised:
            call()
        found.append(raised.value)
    assert len({str(one) for one in found}) == 1
    assert found[0].details["model"] == "m"
    return found[0]


WRONG = [
    ([Y | {"datatype": "FP64"}, N, ANY], "y", "FP32 [-1, 2]", "FP64 [1, 2]"),
    ([Y | {"datatype": "INT32"}, N, ANY], "y", "FP32 [-1, 2]", "INT32 [1, 2]"),
    ([Y | {"shape": [2]}, N, ANY], "y", "FP32 [-1, 2]", "FP32 [2]"),
    ([Y | {"shape": [2, 1]}, N, ANY], "y", "FP32 [-1, 2]", "FP32 [2, 1]"),
    ([Y, N | {"shape": [2], "data": [1, 2]}, ANY], "n", "INT64 [3]", "INT64 [2]"),
    ([Y, N, ANY | {"datatype": "BOOL", "data": [True]}], "any", "FP32", "BOOL []"),
    ([Y | {"name": "z"}, N, ANY], "y", "an output of this name", "none"),
    ([Y, N], "any", "an output of this name", "none"),
    ([], "y", "an output of this name", "none"),
    ([Y, N, ANY, Y | {"name": "more"}], "more", "no output that was not asked for", "one of this name"),
    ([Y, N, ANY, Y], "y", "no output that was not asked for", "one of this name"),
]


@pytest.mark.parametrize(("outputs", "name", "expected", "got"), WRONG)
def test_an_answer_that_contradicts_the_metadata_is_the_servers_fault(liar: Liar, outputs: list[dict[str, Any]], name: str, expected: str, got: str) -> None:
    model = nnrp.connect(f"{liar.url}/v2/models/m")
    liar.answers(*outputs)
    error = refused(model)
    assert (error.details["output"], error.details["expected"], error.details["got"]) == (name, expected, got)
    assert f"output '{name}': expected {expected}, got {got}" in error.message


def test_the_outputs_are_those_that_were_asked_for(liar: Liar) -> None:
    model = nnrp.connect(f"{liar.url}/v2/models/m")
    liar.answers(Y, N)
    assert refused(model, "n").details["output"] == "y"
    assert refused(model, "y", "any").details["output"] == "any"
    liar.answers(Y | {"name": "z"})
    assert refused(model, "z").details["expected"] == "one of y, n, any"


def test_what_fits_comes_in_the_order_asked_for_and_costs_no_other_request(liar: Liar) -> None:
    model = nnrp.connect(f"{liar.url}/v2/models/m")
    for any_shape in ([], [1], [1, 1, 1]):
        liar.answers(ANY | {"shape": any_shape}, N, Y)
        assert list(model(X)) == ["y", "n", "any"]
        assert list(asyncio.run(model.infer_async({"x": X}))) == ["y", "n", "any"]
    liar.answers(N, Y)
    answer = model.infer({"x": X}, ["y", "n"])
    assert [(name, value.tolist()) for name, value in answer.items()] == [("y", [[1, 2]]), ("n", [1, 2, 3])]
    assert [path for _, path, _ in liar.asked] == ["/v2/models/m"] + ["/v2/models/m/infer"] * 7


def test_a_server_that_tells_of_no_outputs_is_believed(liar: Liar) -> None:
    liar.tells([])
    model = nnrp.connect(f"{liar.url}/v2/models/m")
    liar.answers(Y, N)
    assert model(X)["n"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("dim", [1 << 63, -(1 << 64), "9" * 30, "9" * 5000])
def test_a_size_that_nothing_holds_is_no_metadata(liar: Liar, dim: int | str) -> None:
    liar.tells([{"name": "y", "datatype": "FP32", "shape": [dim]}])
    with pytest.raises(ConnectionFailed, match="cannot be read"):
        nnrp.connect(f"{liar.url}/v2/models/m")
