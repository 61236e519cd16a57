"""Decoupled models for Triton's Python back end: any number of responses to one request, from any thread."""

from __future__ import annotations

import gc
import queue
import sys
import threading
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as tgrpc
from triton_models import LINE

import nnrp
from nnrp.errors import Deadline, InvalidArgument, NotOffered, RunFailed

DECOUPLED = LINE + "model_transaction_policy { decoupled: True }\n"
X = np.float32([3, 1, 2])

# As the example of a decoupled model is written: threads send, and finalize waits for them.
REPEAT = """
    import threading
    import time

    import numpy as np
    import triton_python_backend_utils as pb_utils


    class TritonPythonModel:
        @staticmethod
        def auto_complete_config(config):
            config.set_model_transaction_policy({"decoupled": True})
            return config

        def initialize(self, args):
            self.inflight, self.lock = 0, threading.Lock()

        def execute(self, requests):
            for request in requests:
                with self.lock:
                    self.inflight += 1
                sender = request.get_response_sender()
                thread = threading.Thread(target=self.respond, args=(sender, request.inputs()[0].as_numpy()), daemon=True)
                thread.start()
            return None

        def respond(self, sender, x):
            for value in x:
                sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("y", np.array([value], np.float32))]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            with self.lock:
                self.inflight -= 1

        def finalize(self):
            while self.inflight:
                time.sleep(0.001)
    """
# Sends from within execute, the last response with the flag; what it sends and how depends on the first element.
WITHIN = """
    import json

    import triton_python_backend_utils as pb_utils

    FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


    class TritonPythonModel:
        {kind}def execute(self, requests):
            for request in requests:
                sender = request.get_response_sender()
                what = json.loads(request.parameters()).get("what", "")
                x = request.inputs()[0].as_numpy()
                for index in range(len(x)):
                    sent = pb_utils.InferenceResponse([pb_utils.Tensor("y", x[index : index + 1])])
                    sender.send(sent, FINAL if index == len(x) - 1 and not what else 0)
                if what == "raise":
                    raise ValueError("cannot open /srv/secret/weights.bin")
                if what == "error":
                    error = pb_utils.TritonError("enough", pb_utils.TritonError.INVALID_ARG)
                    sender.send(pb_utils.InferenceResponse(error=error), FINAL)
                if what == "twice":
                    sender.send(flags=FINAL)
                    sender.send(flags=FINAL)
                if what == "value":
                    return [sent]
    """


def put(folder: Path, name: str, source: str, config: str = DECOUPLED) -> Path:
    (folder / name / "1").mkdir(parents=True)
    (folder / name / "config.pbtxt").write_text(config)
    (folder / name / "1" / "model.py").write_text(dedent(source))
    return folder / name


def values(answers: Any) -> list[float]:
    return [float(answer["y"][0]) for answer in answers]


SOURCES = {"threads": REPEAT, "within": WITHIN.format(kind=""), "async": WITHIN.format(kind="async ")}


@pytest.fixture(params=SOURCES)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> nnrp.Model:
    return nnrp.load(put(tmp_path, "repeat", SOURCES[request.param], LINE if request.param == "threads" else DECOUPLED))


def test_a_decoupled_model_gives_its_responses_in_order(model: nnrp.Model) -> None:
    assert model.session is not None
    assert model.session.streams
    assert model.session.settings["decoupled"]
    for _ in range(20):
        assert values(model.stream(x=X)) == [3, 1, 2]
    with pytest.raises(NotOffered):
        model(X)


@pytest.mark.parametrize("source", SOURCES)
def test_tritons_own_client_streams_it(tmp_path: Path, source: str) -> None:
    put(tmp_path / "home", "repeat", SOURCES[source])
    got: queue.Queue[Any] = queue.Queue()
    with (
        nnrp.serve(tmp_path / "home", http_port=0, grpc_port=0) as server,
        tgrpc.InferenceServerClient((server.grpc_url or "").removeprefix("grpc://")) as client,
    ):
        x = tgrpc.InferInput("x", [3], "FP32")
        x.set_data_from_numpy(X)
        client.start_stream(lambda result, error: got.put((result, error)))
        for id in ("a", "b"):
            client.async_stream_infer("repeat", [x], request_id=id, enable_empty_final_response=True)
        told: dict[str, list[float]] = {"a": [], "b": []}
        for _ in range(8):
            result, error = got.get(timeout=60)
            assert error is None
            response, y = result.get_response(), result.as_numpy("y")
            assert response.parameters["triton_final_response"].bool_param == (y is None)
            told[response.id] += [] if y is None else y.tolist()
        client.stop_stream()
        assert told == {"a": [3, 1, 2], "b": [3, 1, 2]}
        remote = nnrp.connect(server.grpc_url or "", model="repeat")
        assert values(remote.stream(x=X)) == [3, 1, 2]


def test_a_slow_reader_holds_the_model_back_and_one_that_leaves_lets_it_end(model: nnrp.Model) -> None:
    before = threading.active_count()
    many = np.arange(10_000, dtype=np.float32)
    answers = model.stream(x=many)
    assert [next(answers)["y"][0] for _ in range(3)] == [0, 1, 2]
    answers.close()
    del answers
    gc.collect()
    assert values(model.stream(x=X)) == [3, 1, 2]
    with pytest.raises(Deadline):
        values(model.stream(x=np.zeros(300_000, np.float32), timeout=0.5))
    assert values(model.stream(x=X)) == [3, 1, 2]
    assert threading.active_count() <= before + 4


# Tells the test what it does and in which order; `execute` goes on until the test lets it end, whoever left.
ORDERLY = """
    import nnrp_test_orderly as test
    import triton_python_backend_utils as pb_utils


    class TritonPythonModel:
        def execute(self, requests):
            requests[0].get_response_sender().send(pb_utils.InferenceResponse([pb_utils.Tensor("y", requests[0].inputs()[0].as_numpy())]))
            assert test.may_end.wait(60)
            test.said.append("execute")

        def finalize(self):
            test.said.append("finalize")
            test.finalized.set()
    """


@pytest.mark.parametrize("patience", [60.0, 0.0])
def test_a_model_is_not_finalized_beside_its_execute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: float) -> None:
    test = SimpleNamespace(said=[], may_end=threading.Event(), finalized=threading.Event())
    monkeypatch.setitem(sys.modules, "nnrp_test_orderly", test)
    monkeypatch.setattr("nnrp.runtimes.triton_python.session.PATIENCE", patience)
    engine = nnrp.Engine()
    model = engine.load(put(tmp_path, "orderly", ORDERLY))
    answers = model.stream(x=X)
    assert next(answers)["y"].tolist() == [3, 1, 2]
    answers.close()
    del answers, model
    unloading = threading.Thread(target=engine.unload, args=("orderly",))
    unloading.start()
    assert not test.finalized.wait(0.2)
    test.may_end.set()
    assert test.finalized.wait(60)
    unloading.join(60)
    assert test.said == ["execute", "finalize"]


def test_every_stream_has_its_own_responses(tmp_path: Path) -> None:
    model = nnrp.load(put(tmp_path, "repeat", REPEAT), options={"instances": 3})
    got: dict[int, list[float]] = {}

    def ask(number: int) -> None:
        got[number] = values(model.stream(x=np.float32([number, number + 1])))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert got == {number: [number, number + 1] for number in range(12)}


@pytest.mark.parametrize(
    ("what", "kind", "says"),
    [
        ("raise", RunFailed, "ValueError: cannot open"),
        ("error", InvalidArgument, "enough"),
        ("twice", None, ""),
        ("value", RunFailed, "expected None of a decoupled model, got list"),
        ("drop", RunFailed, "let go before the final response"),
    ],
)
@pytest.mark.parametrize("way", ["within", "async"])
def test_what_goes_wrong_ends_the_stream_after_what_was_sent(tmp_path: Path, way: str, what: str, kind: type[nnrp.NnrpError] | None, says: str) -> None:
    model = nnrp.load(put(tmp_path, "m", SOURCES[way]))
    got: list[float] = []
    answers = model.stream(x=X, parameters={"what": what})
    if kind is None:
        assert values(answers) == [3, 1, 2]
    else:
        with pytest.raises(kind, match=says) as failed:
            got.extend(float(answer["y"][0]) for answer in answers)
        assert "/srv" not in failed.value.message
    assert values(model.stream(x=X)) == [3, 1, 2]


def test_a_model_asks_a_decoupled_one(tmp_path: Path) -> None:
    asks = """
        import numpy as np
        import triton_python_backend_utils as pb_utils


        class TritonPythonModel:
            def execute(self, requests):
                (request,) = requests
                asked = pb_utils.InferenceRequest(model_name="repeat", requested_output_names=["y"], inputs=request.inputs())
                got = []
                for answer in asked.exec(decoupled=True):
                    if answer.has_error():
                        return [pb_utils.InferenceResponse(error=answer.error())]
                    got.append(answer.output_tensors()[0].as_numpy())
                return [pb_utils.InferenceResponse([pb_utils.Tensor("y", np.concatenate(got))])]
        """
    engine = nnrp.Engine()
    engine.load(put(tmp_path, "asks", asks, LINE))
    engine.load(put(tmp_path, "repeat", REPEAT))
    engine.load(put(tmp_path, "failing", WITHIN.format(kind="").replace(".inputs()[0]", ".inputs()[7]")))
    assert engine.model("asks")(X)["y"].tolist() == X.tolist()
    itself = asks.replace('"repeat"', '"itself"').replace("return [pb_utils.InferenceResponse(error=answer.error())]", "raise RuntimeError(answer.error())")
    with pytest.raises(RunFailed, match="asked itself for a stream"):
        engine.load(put(tmp_path, "itself", itself, LINE))(X)
    with pytest.raises(RunFailed, match="list index out of range"):
        values(engine.model("failing").stream(x=X))
