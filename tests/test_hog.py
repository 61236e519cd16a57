"""A quick model that some inputs make slow holds no thread which reads requests for long (spec §7.2)."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

import nnrp
from nnrp.errors import Draining, NnrpError, Unavailable

QUICK, FOREVER = np.array(0, np.int64), np.array(10**9, np.int64)


@pytest.mark.parametrize("form", ["http", "grpc"])
def test_runs_that_go_on_for_ever_leave_the_server_alive_and_end_with_it(slow_file: Path, form: str) -> None:
    said: list[NnrpError] = []
    with nnrp.serve(slow_file, http_port=0, grpc_port=0) as server:
        url = server.http_url if form == "http" else server.grpc_url
        assert url is not None
        models = [nnrp.connect(url, model="slow") for _ in range(6)]
        for _ in range(200):
            for model in models:
                model.infer({"n": QUICK})

        def ask(model: nnrp.Model) -> None:
            with pytest.raises(NnrpError) as caught:
                model.infer({"n": FOREVER})
            said.append(caught.value)

        askers = [threading.Thread(target=ask, args=(model,)) for model in models]
        for asker in askers:
            asker.start()
        until = time.monotonic() + 1
        while time.monotonic() < until:
            # Each on a connection of its own, so that every thread which reads requests is asked.
            assert nnrp.connect(url, model="slow").inputs
        server.stop(grace=0.5)
        for asker in askers:
            asker.join()

    assert all(isinstance(one, Unavailable) for one in said), said
    assert any(isinstance(one, Draining) for one in said), said
