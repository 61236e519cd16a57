"""How far an answer may lie from the reference's, where nobody says: the largest error, relative to the largest element of the reference's output.

What real runtimes did with the same models and inputs is the source. Computing in FP32, the engines that were right agreed to 9e-6 on every model
that is well-conditioned, and to 9e-4 on one that takes logarithms of small numbers; in BF16 they were off by 5e-3 to 4e-2, in FP16 by 3e-4 to 4e-3, in INT8 by
2e-2 to 8e-2. Each default is that with a margin. An output of a coarser datatype cannot be better than some steps of its own: 2⁻¹⁰ for FP16, 2⁻⁷ for
BF16, 2⁻³ and 2⁻² for FP8.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nnrp.errors import InvalidOption

_PRECISIONS = {"strict": 1e-4, "bf16": 5e-2, "fp16": 1e-2, "int8": 1e-1, "fast": 5e-2}
_DATATYPES = {"FP64": 1e-7, "FP32": 1e-4, "FP16": 1e-2, "BF16": 5e-2, "FP8_E4M3": 2.5e-1, "FP8_E5M2": 5e-1}


def default(datatypes: Iterable[str], precisions: Iterable[str]) -> float:
    """Give the tolerance for an output: 0, that is exactly equal, unless its datatype has fractions.

    Args:
        datatypes: the output's, in the reference and in the candidate.
        precisions: theirs, as they really hold.
    """
    steps = [_DATATYPES.get(datatype, 0.0) for datatype in datatypes]
    rounding = [_PRECISIONS.get(precision, 0.0) for precision in precisions if precision != "strict"]
    return max(steps + rounding) if any(steps) else 0.0


def read(texts: Iterable[str]) -> dict[str, float]:
    """Read ``1e-3``, which holds for every output with fractions and is found under the name "", and ``OUTPUT=1e-3``.

    Raises:
        InvalidOption: that is no number from 0.
    """
    found = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            found[name] = float(number)
        except ValueError:
            found[name] = -1.0
        if not 0 <= found[name] < float("inf"):
            raise InvalidOption(f"tolerance: expected NUMBER or OUTPUT=NUMBER, from 0, got '{text}'")
    return found


def check(given: Mapping[str, float], outputs: Iterable[str]) -> None:
    """Refuse a tolerance for what is no output.

    Raises:
        InvalidOption: it lists the outputs.
    """
    known = list(outputs)
    odd = [name for name in given if name and name not in known]
    if odd:
        raise InvalidOption(f"tolerance {odd[0]}: expected one of {', '.join(known)}")


def of(name: str, datatypes: Iterable[str], precisions: Iterable[str], given: Mapping[str, float]) -> float:
    """Give the tolerance for an output: its own if one was given, else the general one, else the default."""
    usual = default(datatypes, precisions)
    return given.get(name, given.get("", usual) if usual else 0.0)
