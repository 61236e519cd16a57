"""Real models on every runtime that reads them: the answer is right, or the refusal is typed and as docs/runtimes/README.md tells it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from real import table
from real.models import Real, reals

import nnrp

RUNTIMES = {
    "onnxruntime": {"onnx"},
    "openvino": {"onnx", "tflite", "saved_model"},
    "litert": {"tflite"},
    "tract": {"onnx"},
    "coreml": {"mlpackage"},
    "reference": {"onnx"},
}
#: The rows, known before there is a folder to make models in.
ROWS = list(table.read())


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Real]:
    return {(real.name, real.format): real for real in reals(tmp_path_factory.mktemp("real"))}


@pytest.fixture(scope="module")
def seen(pytestconfig: pytest.Config) -> Iterator[table.Outcomes]:
    """What happens; `--write-table` puts it into the page."""
    outcomes: table.Outcomes = {}
    yield outcomes
    if pytestconfig.getoption("--write-table"):
        table.write(outcomes, set(RUNTIMES))


def outcome(real: Real, runtime: str) -> str:
    """Ask the model; a wrong answer is an AssertionError."""

    def load(path: Path) -> nnrp.Model:
        return nnrp.load(path, name="real", runtime=runtime, options=dict(real.options.get(runtime, {})))

    try:
        real.check(load, real.path)
    except nnrp.NnrpError as error:
        # Our own defect is no refusal.
        if error.code == "INTERNAL":
            raise
        return error.reason
    return "right"


def test_the_page_has_a_row_for_every_model(known: dict[tuple[str, str], Real], pytestconfig: pytest.Config) -> None:
    if pytestconfig.getoption("--write-table"):
        table.write({row: {} for row in known}, set())
    assert list(table.read()) == list(known)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("row", ROWS, ids=["-".join(row).replace(" ", "_") for row in ROWS])
def test_the_answer_is_right_or_the_refusal_is_as_told(
    known: dict[tuple[str, str], Real], seen: table.Outcomes, pytestconfig: pytest.Config, row: tuple[str, str], runtime: str
) -> None:
    real = known[row]
    got = outcome(real, runtime) if real.format in RUNTIMES[runtime] else None
    seen.setdefault(row, {}).update({} if got is None else {runtime: got})
    if not pytestconfig.getoption("--write-table"):
        assert table.read()[row].get(runtime) == got
