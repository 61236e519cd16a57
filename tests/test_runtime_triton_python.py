"""Models for Triton's Python back end, unchanged, behind the same calls as any other."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import magika
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
import zoo
from triton_models import write

import nnrp
from nnrp import errors, repository

A, B, X = np.float32([1, 2, 3, 4]), np.float32([10, 20, 30, 40]), np.float32([1, 2, 3])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of all the models, and one in ONNX."""
    folder = write(tmp_path_factory.mktemp("triton"))
    zoo.scale(folder / "scale" / "1" / "model.onnx", 3.0)
    return folder


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[nnrp.Server]:
    with nnrp.serve(home, http_port=0, grpc_port=0) as running:
        yield running


@pytest.fixture
def engine(server: nnrp.Server) -> nnrp.Engine:
    return server.engine


def plain(answer: Any) -> dict[str, Any]:
    return {name: value.tolist() for name, value in answer.items()}


def test_a_model_is_loaded_from_its_folder_and_answers_in_every_form(home: Path, server: nnrp.Server) -> None:
    expected = {"OUTPUT0": [11, 22, 33, 44], "OUTPUT1": [-9, -18, -27, -36]}
    here = nnrp.load(home / "add_sub")
    assert here.session is not None
    assert (here.session.runtime, here.session.format, here.session.exclusive) == ("triton-python", "triton_python", True)
    assert plain(here(A, B)) == expected
    assert plain(nnrp.load(home / "add_sub" / "1" / "model.py", "pair")(A, B)) == expected
    for url in (server.http_url, server.grpc_url):
        model = nnrp.connect(url or "", model="add_sub")
        assert plain(model(A, B)) == expected
        assert model.infer({"INPUT0": A, "INPUT1": B}, outputs=["OUTPUT1"]).keys() == {"OUTPUT1"}
        assert nnrp.connect(url or "", model="scale")(A[None])["y"].tolist() == [[3, 6, 9, 12]]


def test_tritons_own_client_asks_it(server: nnrp.Server) -> None:
    for kind, url in ((tritonclient.http, server.http_url), (tritonclient.grpc, server.grpc_url)):
        with kind.InferenceServerClient((url or "").partition("://")[2]) as client:
            texts = kind.InferInput("TEXT", [2, 1], "BYTES")
            texts.set_data_from_numpy(np.array([["straße"], ["b"]], object))
            answer = client.infer("shout", [texts])
            assert answer.as_numpy("TEXT").tolist() == [[b"STRASSE"], [b"B"]]
            assert answer.as_numpy("LENGTH").tolist() == [[7], [1]]


def test_the_batch_is_in_front_and_bounded(engine: nnrp.Engine) -> None:
    model = engine.model("shout")
    assert model.inputs == (nnrp.TensorSpec("TEXT", "BYTES", (-1, 1)),)
    assert model([["a"], ["b"]])["TEXT"].tolist() == [[b"A"], [b"B"]]
    with pytest.raises(errors.ShapeMismatch, match="at most 4, got 5"):
        model([["a"]] * 5)
    with pytest.raises(errors.ShapeMismatch, match="2 as for 'X', got 1"):
        engine.model("auto").infer({"X": np.ones((2, 3), np.int64), "BY": np.ones((1, 1), np.int64)})


def test_a_model_completes_its_configuration_and_may_write_to_its_inputs(engine: nnrp.Engine) -> None:
    model = engine.model("auto")
    assert [tuple(spec) for spec in model.inputs] == [("X", "INT64", (-1, -1), False), ("BY", "INT64", (-1, 1), True)]
    x = np.int64([[1, 2], [3, 4]])
    assert model(x)["Y"].tolist() == [[10, 20], [30, 40]]
    assert model(x, np.int64([[2], [3]]))["Y"].tolist() == [[2, 4], [9, 12]]
    assert x.tolist() == [[1, 2], [3, 4]]


def test_inputs_are_not_copied_where_that_is_asked_for(home: Path) -> None:
    model = nnrp.load(home / "auto", options={"read_only_inputs": True})
    with pytest.raises(errors.RunFailed, match="read-only"):
        model(np.int64([[1]]))


def test_a_model_asks_other_models_of_its_engine(engine: nnrp.Engine) -> None:
    for name in ("bls", "bls_async"):
        assert plain(engine.model(name)(A, B)) == {"OUTPUT0": [11, 22, 33, 44], "OUTPUT1": [-9, -18, -27, -36]}
    asked = {"INPUT0": A, "INPUT1": B}
    with pytest.raises(errors.NotFound, match="'nowhere'"):
        engine.model("bls").infer(asked, parameters={"model": "nowhere"})
    with pytest.raises(errors.InvalidArgument, match="INPUT0"):
        engine.model("bls").infer(asked, parameters={"model": "scale"})
    with pytest.raises(errors.NnrpError, match="called itself within a run"):
        engine.model("bls").infer(asked, parameters={"model": "bls"})


def test_a_request_tells_what_it_is_and_an_instance_what_it_was_given(home: Path, server: nnrp.Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "nnrp.models.facts")
    for url in (server.http_url, server.grpc_url):
        answer = nnrp.connect(url or "", model="facts").infer({"x": [[1], [2]]}, id="a-7", parameters={"seed": 5, "hot": True})["y"]
        assert answer.shape == (2, 1)
        told = json.loads(answer[0, 0])
        args = told["args"]
        config = json.loads(args.pop("model_config"))
        assert args.pop("model_instance_name") in {"facts_0_0", "facts_0_1"}
        assert args == {
            "model_instance_kind": "CPU",
            "model_instance_device_id": "0",
            "model_repository": str(home / "facts"),
            "model_version": "1",
            "model_name": "facts",
        }
        assert told["id"] == "a-7"
        assert told["parameters"] == {"seed": 5, "hot": True}
        assert (told["correlation"], told["outputs"], told["model"]) == (0, ["y"], "facts")
        assert told["tensor"] == ["x", [2], 11, True]
        assert (config["name"], config["max_batch_size"], config["input"][0]["dims"], config["backend"]) == ("facts", 8, [1], "python")
    assert [record.message for record in caplog.records if record.name == "nnrp.models.facts"] == ["asked for a-7"] * 2


def test_each_instance_takes_one_request_at_a_time(home: Path, engine: nnrp.Engine) -> None:
    facts = engine.model("facts").session
    assert facts is not None
    assert not facts.exclusive
    assert facts.settings["instances"] == 2
    model, answers = nnrp.load(home / "together", options={"instances": 3}), list[Any]()
    callers = [threading.Thread(target=lambda: answers.append(model(X)["y"].tolist())) for _ in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert answers == [X.tolist()] * 6


def test_a_run_is_told_that_nobody_waits_any_more(server: nnrp.Server) -> None:
    for model in (server.engine.model("patient"), *(nnrp.connect(url or "", model="patient") for url in (server.http_url, server.grpc_url))):
        with pytest.raises(errors.Deadline):
            model.infer({"x": X}, timeout=0.5)


CODES = {
    "UNKNOWN": errors.RunFailed,
    "INTERNAL": errors.RunFailed,
    "NOT_FOUND": errors.NotFound,
    "INVALID_ARG": errors.InvalidArgument,
    "UNAVAILABLE": errors.Unavailable,
    "UNSUPPORTED": errors.NotOffered,
    "ALREADY_EXISTS": errors.AlreadyExists,
    "CANCELLED": errors.Cancelled,
}


@pytest.mark.parametrize("code", CODES)
def test_an_error_of_the_models_is_the_same_class_in_every_form(server: nnrp.Server, code: str) -> None:
    for home in (server.engine.model("troubled"), *(nnrp.connect(url or "", model="troubled") for url in (server.http_url, server.grpc_url))):
        with pytest.raises(CODES[code], match="no bread today"):
            home.infer({"x": X}, parameters={"what": "code", "code": code})


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("raise", "TritonModelException: cannot open"),
        ("datatype", "output 'y': expected datatype FP32, got FP64"),
        ("rank", r"output 'y': expected shape \[-1\], got \[1, 3\]"),
        ("missing", r"output 'y': expected FP32 \[-1\], got none"),
        ("twice", "model 'troubled': output 'y' is there twice"),
        ("text", "expected an error of type TritonError, got str"),
        ("none", "expected a list of 1 InferenceResponse, got NoneType"),
        ("two", "got one of 2"),
        ("other", "got one of 1: dict"),
    ],
)
def test_a_run_that_goes_wrong_names_what_and_the_model_answers_on(engine: nnrp.Engine, what: str, says: str) -> None:
    model = engine.model("troubled")
    with pytest.raises(errors.RunFailed, match=says) as failed:
        model.infer({"x": X}, parameters={"what": what})
    assert "/srv" not in failed.value.message
    assert "Traceback" not in failed.value.message
    assert model(X)["y"].tolist() == [3, 5, 7]


def test_one_response_may_take_the_way_of_a_sender(engine: nnrp.Engine) -> None:
    model = engine.model("sender")
    assert model(X)["y"].tolist() == [2, 3, 4]
    with pytest.raises(errors.RunFailed, match="one response to a request, got 2"):
        model.infer({"x": X}, parameters={"times": 2})


@pytest.mark.skipif(sys.platform != "linux", reason="isolation is Linux's")
def test_a_model_may_have_a_process_of_its_own(home: Path) -> None:
    facts = nnrp.load(home / "facts", isolation="process")
    told = json.loads(facts.infer({"x": [[1]]}, id="a-8", parameters={"seed": 5})["y"][0, 0])
    assert (told["id"], told["parameters"]) == ("a-8", {"seed": 5})
    with pytest.raises(errors.Unavailable, match="no bread today"):
        nnrp.load(home / "troubled", isolation="process").infer({"x": X}, parameters={"what": "code", "code": "UNAVAILABLE"})


def test_magika_behind_its_own_preprocessing(tmp_path: Path) -> None:
    write_magika(tmp_path)
    engine = nnrp.Engine()
    repository.load(engine, [tmp_path])
    contents = [
        b"#!/usr/bin/env python3\nimport os\n\n\ndef main():\n    print(os.environ)\n" * 4,
        json.dumps({f"key {number}": [number, None] for number in range(99)}).encode(),
    ]
    model = engine.model("filetype")
    assert model(np.array([[one] for one in contents], object))["LABEL"].tolist() == [[b"python"], [b"json"]]


def write_magika(folder: Path) -> None:
    """Magika's own model beside a model.py that prepares its input and names its answer."""
    home = Path(magika.__file__).parent / "models" / "standard_v3_3"
    (folder / "net" / "1").mkdir(parents=True)
    (folder / "net" / "1" / "model.onnx").write_bytes((home / "model.onnx").read_bytes())
    (folder / "filetype" / "1").mkdir(parents=True)
    (folder / "filetype" / "1" / "labels.json").write_text(json.dumps(json.loads((home / "config.min.json").read_text())["target_labels_space"]))
    (folder / "filetype" / "1" / "features.py").write_text(FEATURES)
    (folder / "filetype" / "config.pbtxt").write_text(FILETYPE)
    (folder / "filetype" / "1" / "model.py").write_text(FILETYPE_MODEL)


FILETYPE = """
max_batch_size: 16
input [ { name: "CONTENT" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "LABEL" data_type: TYPE_STRING dims: [ 1 ] } ]
"""
FEATURES = """
import numpy as np


def features(content):
    made = np.full(2048, 256, np.int32)
    head, tail = content[:4096].lstrip()[:1024], content[-4096:].rstrip()[-1024:]
    made[: len(head)], made[2048 - len(tail) :] = list(head), list(tail)
    return made
"""
FILETYPE_MODEL = """
import json
import os

import numpy as np
import triton_python_backend_utils as pb_utils
from features import features


class TritonPythonModel:
    def initialize(self, args):
        with open(os.path.join(args["model_repository"], args["model_version"], "labels.json")) as file:
            self.labels = np.array([label.encode() for label in json.load(file)], object)

    def execute(self, requests):
        responses = []
        for request in requests:
            contents = pb_utils.get_input_tensor_by_name(request, "CONTENT").as_numpy()
            x = pb_utils.Tensor("bytes", np.stack([features(content) for content in contents[:, 0]]))
            answer = pb_utils.InferenceRequest(model_name="net", requested_output_names=["target_label"], inputs=[x]).exec()
            if answer.has_error():
                raise pb_utils.TritonModelException(answer.error().message())
            scores = pb_utils.get_output_tensor_by_name(answer, "target_label").as_numpy()
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("LABEL", self.labels[scores.argmax(1)][:, None])]))
        return responses
"""
