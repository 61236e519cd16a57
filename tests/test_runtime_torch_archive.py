"""What PyTorch would evaluate of an archive's texts, looked at without PyTorch."""

from __future__ import annotations

import pytest

from nnrp.runtimes.torch.archive import arithmetic


@pytest.mark.parametrize(
    "text",
    [
        "s0",
        "2*s0 + 1",
        "(s0 - 1)**3/8",
        "Pow(s0, 2)",
        "s0**(1/2)",
        "FloatPow(ToFloat(s0), 0.5)",
        "floor(s0/2)",
        "Eq(Mod(64*s0, 32), 0)",
        "ModularIndexing(s0, 4, 8)",
        "2**31 - 1",
        "1 << 20",
        "9223372036854775807",
        "*".join(f"s{number}" for number in range(200)),
    ],
)
def test_sizes_as_exported_programs_have_them_are_arithmetic(text: str) -> None:
    assert arithmetic(text)


@pytest.mark.parametrize(
    "text",
    [
        "9**9**9",
        "2**-(9**99)",
        "Pow(9, Pow(9, 9))",
        "Pow(exp=9**9, base=9)",
        "(((9**64)**64)**64)**64",
        "1 << 9**9",
        "LShift(1, 10**9)",
        "2**s0",
        "PowByNatural(s0, s1)",
        "1e308**1e308",
        "Float(1, 10**9)",
        "Float(1, 1000000000)",
        "Float(1, precision=1000000000)",
        "-" * 100_000 + "1",
        "__import__('os')",
    ],
)
def test_numbers_that_take_all_memory_and_no_end_of_time_are_refused(text: str) -> None:
    assert not arithmetic(text)
