"""What crosses to a model in a process of its own without a copy, and what neither side can do to the other through the memory that both have."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from test_isolation import kill, load_into, patiently, process
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse

import nnrp
from nnrp.errors import InvalidOption, RunFailed, RuntimeCrashed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a process for a model needs Linux")

#: 2.4 MB, more than comes at once on any form.
LARGE = np.full(600_000, 0.5, np.float32)


def test_requests_over_64_kb_are_read_where_the_server_gathered_them() -> None:
    engine = nnrp.Engine()
    model = load_into(engine, "whereabouts")
    with nnrp.serve(engine, http_port=0, grpc_port=0) as server:
        for url in (server.http_url, server.grpc_url):
            place, total = nnrp.connect(url or "", "whereabouts")(LARGE)["y"]
            # What is copied begins a page; what lies where it came lies behind the rest of its message.
            assert place > 0, url
            assert total == LARGE.sum()
    place, total = model(LARGE)["y"]
    assert (place, total) == (0, LARGE.sum())


def test_a_request_that_could_still_be_another_models_is_gathered_in_nobodys_memory() -> None:
    engine = nnrp.Engine()
    options = {"inputs": {"x": ["FP32", [-1]]}, "outputs": {"y": ["FP32", [-1]]}}
    for version in ("1", "2"):
        engine.load("prone:whereabouts", "whereabouts", version, runtime="callable", options=options, isolation="process")
    with nnrp.serve(engine, http_port=None, grpc_port=0) as server, grpc.insecure_channel((server.grpc_url or "").removeprefix("grpc://")) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        name, rest = ModelInferRequest(model_name="whereabouts"), request()

        def place(*parts: ModelInferRequest) -> float:
            answer = ModelInferResponse.FromString(infer(b"".join(part.SerializeToString() for part in parts)))
            gathered, total = np.frombuffer(answer.raw_output_contents[0], np.float32)
            assert total == LARGE.sum()
            return float(gathered)

        versions = [ModelInferRequest(model_version=version) for version in ("1", "2")]
        assert place(name, versions[0], rest) > 0
        # What is copied begins a page.
        assert place(name, rest) == place(name, rest, versions[0]) == 0
        for twice in ((name, versions[1], rest, versions[0]), (name, rest, name)):
            with pytest.raises(grpc.RpcError, match="expected one model name and one version") as raised:
                place(*twice)
            assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def request() -> ModelInferRequest:
    """Ask with LARGE, of no model yet."""
    asked = ModelInferRequest(raw_input_contents=[LARGE.tobytes()])
    asked.inputs.add(name="x", datatype="FP32", shape=LARGE.shape)
    return asked


def test_what_a_process_writes_over_its_inputs_is_its_own_end() -> None:
    engine = nnrp.Engine()
    model = load_into(engine, "scribbling")
    with pytest.raises(RuntimeCrashed, match="SIGSEGV"):
        model(-LARGE)
    assert np.array_equal(patiently(lambda: model(LARGE))["y"], 2 * LARGE)


def test_large_requests_come_through_a_restart_and_nothing_else_is_lost() -> None:
    engine = nnrp.Engine()
    model = load_into(engine, "crashing")
    clients, turns = 4, 12
    with nnrp.serve(engine, http_port=0, grpc_port=None) as server:

        def ask(client: int) -> bool:
            remote = nnrp.connect(server.http_url or "", "crashing")
            for turn in range(turns):
                if (client, turn) == (0, turns // 2):
                    kill(model)
                x = LARGE * (client * turns + turn)
                if not np.array_equal(patiently(lambda x=x: remote(x))["y"], 2 * x):
                    return False
            return True

        with ThreadPoolExecutor(clients) as pool:
            assert all(pool.map(ask, range(clients)))
    assert process(model)["restarts"] == 1


def test_outputs_beyond_the_setting_are_refused_and_cost_nothing_afterwards() -> None:
    engine = nnrp.Engine(max_output_bytes=1 << 20)
    model = load_into(engine, "large")
    for _ in range(3):
        with pytest.raises(RunFailed, match="expected at most the 1048576") as raised:
            model(np.float32([(1 << 18) + 1]))
        assert (raised.value.details["expected"], raised.value.details["got"]) == (1 << 20, (1 << 20) + 4)
        assert model(np.float32([1 << 18]))["y"].sum() == 1 << 18
    for wrong in (0, -1, 1 << 64):
        with pytest.raises(InvalidOption, match="max_output_bytes"):
            nnrp.Engine(max_output_bytes=wrong)


def peak_mb(model: nnrp.Model) -> float:
    """The most memory that the process of a model has had."""
    status = Path(f"/proc/{process(model)['id']}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def test_outputs_beyond_the_setting_are_there_once_at_most_and_of_fixed_shapes_not_at_all() -> None:
    engine = nnrp.Engine(max_output_bytes=1 << 20)
    model = load_into(engine, "large")
    before = peak_mb(model)
    with pytest.raises(RunFailed, match="expected at most the 1048576"):
        model(np.float32([64 << 20]))
    assert 256 <= peak_mb(model) - before < 384

    fixed = load_into(engine, "crashing", outputs={"y": ["FP32", [1 << 19]]})
    with pytest.raises(RunFailed, match="outputs of 2097152 bytes: expected at most the 1048576"):
        fixed(np.float32([]))
    assert process(fixed)["restarts"] == 0
