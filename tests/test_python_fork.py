"""The Python form and forks: what a process made, its forks refuse with an error and never wait for; what a fork makes itself works."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

#: Every thread that the package starts is running: the server's, the client's, the courier to event loops, the one that watches deadlines.
BEFORE = """
import asyncio, multiprocessing, os, signal, sys
from functools import partial
import numpy as np
import nnrp
from nnrp.errors import WrongState

FILE = sys.argv[1]
SECONDS = 60
X = {"x": np.array([[1, 2, 3, 4]], np.float32)}

def check(model):
    for _ in range(3):
        for answer in model(X["x"]), model.infer(X, timeout=SECONDS), asyncio.run(model.infer_async(X, timeout=SECONDS)):
            assert answer["y"].tolist() == [[2, 4, 6, 8]]

model = nnrp.load(FILE)
server = nnrp.serve(model, http_port=0, grpc_port=0)
remote = [nnrp.connect(url) for url in (server.http_url, server.grpc_url)]
for each in model, *remote:
    check(each)

def in_the_fork():
    signal.alarm(SECONDS)
    client, engine = remote[0]._home, model.engine
    calls = [call for each in (model, *remote) for call in (
        partial(each, X["x"]), partial(each.infer, X), lambda each=each: asyncio.run(each.infer_async(X)), each.metadata)]
    calls += [lambda: engine.load(FILE, "other"), lambda: engine.unload("double"), engine.models, engine.runtimes, lambda: engine.infer("double", X)]
    calls += [lambda: nnrp.serve(engine), lambda: nnrp.serve(model), lambda: engine.ready, engine.drain]
    calls += [client.models, client.live, lambda: client.model("double"), lambda: server.http_url, server.stop, server.wait]
    for call in calls:
        try:
            call()
        except WrongState as error:
            assert error.code == "FAILED_PRECONDITION" and "forked" in error.message
        else:
            raise AssertionError("a fork uses what is not its own")
    again = nnrp.load(FILE)
    check(again)
    with nnrp.serve(again, http_port=0, grpc_port=0) as other:
        for url in other.http_url, other.grpc_url:
            check(nnrp.connect(url))
"""

WORKERS = """
worker = multiprocessing.get_context("fork").Process(target=in_the_fork)
worker.start()
worker.join()
assert worker.exitcode == 0, worker.exitcode
check(model)
"""

# The fork leaves the server's block, frees what it has, and runs its exit handlers. Ending as programs do, it would wait for ever in ONNX Runtime's
# own (so does a fork of a program that only imports onnxruntime): os._exit, as workers of multiprocessing end.
PLAIN = """
import atexit, gc
with server:
    fork = os.fork()
    if fork == 0:
        in_the_fork()
    status = None if fork == 0 else os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1])
    for each in (model, *remote) if fork else ():
        check(each)
if fork == 0:
    del model, server, remote, each, X
    gc.collect()
    atexit._run_exitfuncs()
    os._exit(7)
assert status == 7, status
"""


@pytest.mark.parametrize("program", [WORKERS, PLAIN], ids=["multiprocessing", "fork"])
def test_a_fork_refuses_what_it_inherits_and_works_with_its_own(double_file: Path, program: str) -> None:
    done = subprocess.run([sys.executable, "-c", BEFORE + program, str(double_file)], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
