"""What a session does beside running, and what a run is told of its request."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from abacus import Session, X, engine_of, gives, model_of

import nnrp
from nnrp.errors import InvalidOption, ModelNotFound, NotOffered, RunFailed, UnknownOption
from nnrp.runtimes import Control


def told_of(model: nnrp.Model) -> nnrp.Session:
    session = model.session
    assert session is not None
    return session


class Counting(Session):
    """A session with every verb, of which only one is ever at work."""

    def __init__(self) -> None:
        super().__init__(self.count)
        self.settings = {"beads": 3}
        self.runs, self.together, self.lock = 0, 0, threading.Lock()
        self.entered, self.go = threading.Event(), threading.Event()
        self.go.set()

    def count(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> Any:
        assert self.lock.acquire(blocking=False), "another verb is at work"
        try:
            self.entered.set()
            assert self.go.wait(30)
            self.runs += 1
            return inputs["x"]
        finally:
            self.lock.release()

    def warm_up(self) -> None:
        self.count({"x": X}, ("y",), Control())

    def stats(self) -> Mapping[str, Any]:
        with self.lock:
            return {"runs": self.runs, "memory": {"byte_size": 12}}

    def set_option(self, name: str, value: Any) -> None:
        if value == 13:
            raise ValueError("13 beads, as /etc/superstition says")
        self.beads = value


def test_a_session_in_python_warms_up_tells_what_it_uses_and_takes_options() -> None:
    session = Counting()
    model = engine_of(model=session).model("model")
    told_of(model).warm_up()
    assert told_of(model).stats() == {"runs": 1, "memory": {"byte_size": 12}}
    assert told_of(model).settings == {"beads": 3, "device": "cpu"}
    told_of(model).set_option("beads", 8)
    assert session.beads == 8
    assert told_of(model).settings == {"beads": 8, "device": "cpu"}


def test_a_session_under_a_description_has_every_verb() -> None:
    engine = engine_of(model=Counting())
    model = engine.load("abacus:model", version="2", runtime="abacus", inputs=["given"])
    told_of(model).warm_up()
    assert told_of(model).stats()["runs"] == 1
    told_of(model).set_option("beads", 8)
    assert told_of(model).settings["beads"] == 8
    assert model(given=X)["y"].tolist() == X.tolist()


def test_an_option_is_checked_and_a_verb_that_fails_is_the_runtimes_failure() -> None:
    model = engine_of(model=Counting()).model("model")
    for name, value, kind in (("beads", 0, InvalidOption), ("beads", "eight", InvalidOption), ("pearls", 1, UnknownOption), ("beads", {1}, InvalidOption)):
        with pytest.raises(kind):
            told_of(model).set_option(name, value)
    with pytest.raises(RunFailed, match="13 beads") as failed:
        told_of(model).set_option("beads", 13)
    assert "/etc" not in failed.value.message
    assert told_of(model).settings == {"beads": 3, "device": "cpu"}


def test_a_verb_that_a_session_does_not_have_is_not_offered(double: nnrp.Model) -> None:
    for model in (model_of(gives(X)), double):
        session = told_of(model)
        for verb in (session.warm_up, session.stats, lambda session=session: session.set_option("beads", 1)):
            with pytest.raises(NotOffered, match="does not offer"):
                verb()


def test_the_verbs_of_an_exclusive_session_wait_for_their_turn() -> None:
    session = Counting()
    engine = engine_of(model=session)
    model = engine.model("model")
    session.go.clear()
    runner = threading.Thread(target=model, args=(X,))
    runner.start()
    assert session.entered.wait(30)
    waiting = [threading.Thread(target=verb) for verb in (told_of(model).warm_up, told_of(model).warm_up)]
    for thread in waiting:
        thread.start()
    session.go.set()
    for thread in (runner, *waiting):
        thread.join(30)
    assert told_of(model).stats()["runs"] == 3
    held = told_of(model)
    engine.unload("model")
    with pytest.raises(ModelNotFound):
        held.stats()


def test_a_run_is_told_its_requests_id_and_the_parameters_that_are_the_models() -> None:
    seen: list[tuple[str | None, dict[str, Any]]] = []

    def run(inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> Any:
        seen.append((control.id, dict(control.parameters)))
        return inputs["x"]

    parameters: dict[str, Any] = {"seed": 7, "large": 2**63, "hot": True, "temperature": 0.5, "language": "nl", "timeout": 60_000_000}
    own = {name: value for name, value in parameters.items() if name != "timeout"}
    for told in ({}, {"cancellable": True}):
        engine = engine_of(model=Session(run, **told))
        with nnrp.serve(engine, http_port=0, grpc_port=0) as server:
            for home in (engine.model("model"), *(nnrp.connect(url or "") for url in (server.http_url, server.grpc_url))):
                home(X)
                home.infer({"x": X}, id="a-1", parameters=parameters)
                assert seen == [(None, {}), ("a-1", own)]
                assert {name: type(value) for name, value in seen[1][1].items()} == {name: type(value) for name, value in own.items()}
                seen.clear()


def test_the_answer_of_a_run_that_is_told_more_is_the_same() -> None:
    model = model_of(lambda inputs, outputs, control: inputs["x"] * np.float32(control.parameters.get("factor", 1)))
    assert model.infer({"x": X}, parameters={"factor": 3})["y"].tolist() == (X * 3).tolist()
    assert model(X)["y"].tolist() == X.tolist()
