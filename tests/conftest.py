"""Small models that many tests share, written once a session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import zoo

import nnrp


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-table", action="store_true", help="write what real models do on each runtime into docs/runtimes/README.md")


def pytest_configure() -> None:
    # The servers of the tests are on this machine, whatever proxy leads out of it.
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1", "localhost")))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to write model files into."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def double_file(models: Path) -> Path:
    """``y = 2 x`` over FP32 [batch, 4]."""
    return zoo.scale(models / "double.onnx", 2.0)


@pytest.fixture(scope="session")
def slow_file(models: Path) -> Path:
    """``slow(n)`` takes about n milliseconds and gives a scalar."""
    return zoo.slow(models / "slow.onnx")


@pytest.fixture
def double(double_file: Path) -> nnrp.Model:
    """``y = 2 x``, in an engine of its own."""
    return nnrp.load(double_file)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[nnrp.Server]:
    """Every model of the zoo, behind REST and gRPC."""
    folder = zoo.repository(tmp_path_factory.mktemp("served"))
    with nnrp.serve(folder, http_port=0, grpc_port=0) as running:
        yield running
