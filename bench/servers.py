"""The servers that are measured: ours, Triton and the bare floor, each a process tree with its own two ports."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shlex
import signal
import socket
import subprocess
import sysconfig
import time
import urllib.request
from pathlib import Path
from types import TracebackType

from .native import onnxruntime_library, server_floor
from .setting import OURS, PEERS, WORK, BenchFailure, Options

_TICK = os.sysconf("SC_CLK_TCK")
_TAG = "NN_BENCH_SERVER"
_numbers = itertools.count(1)


class Server:
    """A server process tree, found again through a tag in its environment, so that forks and daemons count.

    `with` starts it, waits until it is ready, and ends it.

    Args:
        name: how tables and messages call it.
        command: words to start it; the words {http} and {grpc} become its ports.
        environment: variables added to ours.
        grpc: whether it serves gRPC too.
    """

    def __init__(self, name: str, command: list[str], environment: dict[str, str] | None = None, grpc: bool = True):
        self.name = name
        self.http_port, self.grpc_port = _free_ports()
        self.grpc = grpc
        self._tag = f"{name}-{os.getpid()}-{next(_numbers)}"
        self.log = WORK / "logs" / f"{self._tag}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        ports = {"{http}": str(self.http_port), "{grpc}": str(self.grpc_port)}
        self._command = [ports.get(word, word) for word in command]
        self._environment = {**os.environ, **(environment or {}), _TAG: self._tag}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process; it is not ready yet."""
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=log, start_new_session=True)

    def __enter__(self) -> Server:
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def wait_ready(self, timeout_s: float = 120) -> None:
        """Wait until every model is ready and both ports accept."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end and self._running():
            try:
                with urllib.request.urlopen(f"{self.url}/v2/models/small/ready", timeout=2):
                    pass
                if self.grpc:
                    socket.create_connection(("127.0.0.1", self.grpc_port), 2).close()
                return
            except OSError:  # not listening yet, or 4xx and 5xx, while loading
                time.sleep(0.1)
        raise BenchFailure(f"{self.name} did not become ready; the end of {self.log}:\n{self._log_end()}")

    @property
    def url(self) -> str:
        """Address of the REST form."""
        return f"http://127.0.0.1:{self.http_port}"

    def cpu_s(self) -> float:
        """Give the CPU time of the whole tree so far, user and system, in seconds."""
        ticks = 0
        for pid in self._pids():
            try:
                # The command's name may contain blanks and brackets; the numbers start after its last bracket.
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            ticks += int(fields[11]) + int(fields[12])
        return ticks / _TICK

    def resident_mb(self) -> float:
        """Give the resident memory of the whole tree, in MiB."""
        kib = 0
        for pid in self._pids():
            try:
                found = re.search(r"^Rss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
            except OSError:
                continue
            kib += int(found[1]) if found else 0
        return kib / 1024

    def stop(self) -> None:
        """End every process of the tree: asked first, killed after five seconds."""
        for number, patience_s in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
            for pid in self._pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            end = time.monotonic() + patience_s
            while time.monotonic() < end:
                if not self._running() and not self._pids():
                    return
                time.sleep(0.05)

    def _running(self) -> bool:
        # Also takes leave of a child that ended: it is a zombie until it is waited for.
        return self._process is not None and self._process.poll() is None

    def _pids(self) -> list[int]:
        wanted = f"{_TAG}={self._tag}".encode()
        found = []
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:  # ended meanwhile, or not ours to read
                continue
        return found

    def _log_end(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]


def ours(options: Options, repository: Path) -> Server | None:
    """Give our server, or None when it is not built."""
    words = [word.replace("{repository}", str(repository)) for word in shlex.split(options.ours)]
    if options.ours == OURS and not Path(words[0]).exists():
        return None
    return Server("ours", words)


def triton(options: Options, repository: Path) -> Server | None:
    """Give Triton on a repository of its own kind, or None when it is left out."""
    if not options.triton:
        return None
    libraries = f"{sysconfig.get_config_var('LIBDIR')}:{PEERS / 'triton-libs'}"
    words = [
        f"{PEERS}/triton/bin/tritonserver",
        f"--model-repository={repository}",
        f"--backend-directory={PEERS}/backends",
        *("--http-address", "127.0.0.1", "--http-port", "{http}"),
        *("--grpc-address", "127.0.0.1", "--grpc-port", "{grpc}"),
        "--allow-metrics=false",
    ]
    return Server("triton", words, {"LD_LIBRARY_PATH": libraries})


def floor(repository: Path) -> Server:
    """Give the bare floor; it serves REST only."""
    return Server("floor", [str(server_floor()), str(onnxruntime_library()), str(repository), "{http}"], grpc=False)


def _free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]
