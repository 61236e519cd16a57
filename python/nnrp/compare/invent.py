"""Random cases from a signature: sizes for the dimensions that it leaves open, values that its datatypes make sensible."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nnrp.errors import InvalidOption
from nnrp.tensor import adapt, numpy_type

from .cases import Case, Cases, elements
from .signature import Port

#: What a size is called → how large it is where nobody says.
_SIZES = ((r"batch|^b$", 1), (r"seq|len|time|token|^[st]$", 16), (r"height|width|^[hw]$", 224))
#: Sizes that nothing speaks of: of a list, and of any other dimension but the first, which is a batch of 1.
_LIST, _OTHER, _BATCH, _CHANNELS = 8, 16, 1, (1, 3, 4)
#: Whole numbers are mostly ids, and small ones are in every vocabulary.
_IDS = 100
_WHOLE = {"UINT8": (0, 255), "INT8": (-128, 127), "UINT4": (0, 15), "INT4": (-8, 7), "BOOL": (0, 1)}

Key = str | tuple[str, int]


def random(
    number: int,
    seed: int,
    ports: Sequence[Port],
    others: Sequence[Sequence[Port]] = (),
    shapes: Mapping[str, Sequence[int]] | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> Cases:
    """Make up cases; the same seed makes the same ones.

    Args:
        number: how many.
        seed: of the generator.
        ports: the inputs.
        others: the inputs of other files of the same net, in the same order, whose fixed sizes hold here too.
        shapes: input → its shape.
        ranges: input → its least and its largest value.

    Raises:
        InvalidOption: an input that there is not, a shape that does not fit, a range of texts, or far too much.
    """
    shapes, ranges = shapes or {}, ranges or {}
    for option, given in (("shape", shapes), ("range", ranges)):
        odd = [name for name in given if name not in {port.name for port in ports}]
        if odd:
            raise InvalidOption(f"{option} {odd[0]}: expected one of {', '.join(port.name for port in ports)}")
    texts = [port.name for port in ports if port.datatype == "BYTES" and port.name in ranges]
    if texts:
        raise InvalidOption(f"range {texts[0]}: expected an input of numbers, got one of texts")
    dims = sizes(ports, others, shapes)
    wanted = [port for port in ports if not port.optional or port.name in shapes]
    for port in wanted:
        _check_range(port, ranges.get(port.name))

    def make() -> Iterator[Case]:
        generator = np.random.default_rng(seed)
        for index in range(number):
            yield Case(f"random-{index}", {port.name: _values(generator, port, dims[port.name], ranges.get(port.name)) for port in wanted})

    about = tuple(f"{port.name} {port.datatype} {list(dims[port.name])} of {_told(port, ranges.get(port.name))}" for port in wanted)
    origin = {"kind": "random", "number": number, "seed": seed, "shapes": {port.name: list(dims[port.name]) for port in wanted}}
    origin |= {"ranges": {name: list(both) for name, both in ranges.items()}}
    return Cases(number, make, origin, f"{number} random cases, seed {seed}", about)


def sizes(ports: Sequence[Port], others: Sequence[Sequence[Port]], shapes: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """Choose a size for every open dimension; those of one name get one size."""
    bound: dict[Key, int] = {}
    for port in ports:
        if port.name in shapes:
            _bind(bound, port, shapes[port.name])
    for other in others:
        for port, twin in zip(ports, other, strict=False):
            for axis, dim in enumerate(twin.shape or ()):
                if isinstance(dim, int) and dim >= 0 and port.shape is not None and len(twin.shape or ()) == len(port.shape):
                    bound.setdefault(_key(port, axis), dim)
    found = {}
    for port in ports:
        if port.shape is None:
            found[port.name] = tuple(shapes.get(port.name, (_LIST,)))
            continue
        for axis in range(len(port.shape)):
            bound.setdefault(_key(port, axis), _guess(port.shape, axis))
        found[port.name] = tuple(dim if isinstance(dim, int) and dim >= 0 else bound[_key(port, axis)] for axis, dim in enumerate(port.shape))
        elements(found[port.name])
    return found


def _key(port: Port, axis: int) -> Key:
    dim = (port.shape or ())[axis]
    return dim if isinstance(dim, str) else (port.name, axis)


def _bind(bound: dict[Key, int], port: Port, shape: Sequence[int]) -> None:
    elements(shape)
    if port.shape is None:
        return
    fits = len(shape) == len(port.shape) and all(not isinstance(dim, int) or dim in (-1, size) for dim, size in zip(port.shape, shape, strict=True))
    for axis, size in enumerate(shape if fits else ()):
        fits = fits and bound.setdefault(_key(port, axis), size) == size
    if not fits:
        raise InvalidOption(f"shape {port.name}: expected {port}, sizes of one name alike, got {list(shape)}")


def _guess(shape: tuple[int | str, ...], axis: int) -> int:
    dim = shape[axis]
    for pattern, size in _SIZES if isinstance(dim, str) else ():
        if re.search(pattern, str(dim).lower()):
            return size
    if len(shape) == 1:
        return _LIST
    if axis == 0:
        return _BATCH
    picture = len(shape) == 4 and ((shape[1] in _CHANNELS and axis > 1) or (shape[3] in _CHANNELS and axis < 3))
    return 224 if picture else _OTHER


def _limits(port: Port, given: tuple[float, float] | None) -> tuple[float, float] | None:
    if given is not None or port.datatype == "BYTES" or port.datatype.startswith(("FP", "BF")):
        return given
    return (1, 1) if "mask" in port.name.lower() else _WHOLE.get(port.datatype, (0, _IDS - 1))


def _told(port: Port, given: tuple[float, float] | None) -> str:
    limits = _limits(port, given)
    if limits is None:
        return "short words" if port.datatype == "BYTES" else "normal numbers"
    return f"{limits[0]:g} … {limits[1]:g}" if limits[0] != limits[1] else f"{limits[0]:g}"


def _check_range(port: Port, given: tuple[float, float] | None) -> None:
    """Refuse a range that the datatype does not hold, before anything runs."""
    limits = _limits(port, given)
    if limits is None or port.datatype.startswith(("FP", "BF")):
        return
    low, high = limits
    try:
        whole = np.array([int(low), int(high)], np.int64)
        if low > high:
            raise ValueError("the least is larger than the largest")
    except (ValueError, OverflowError) as error:
        raise InvalidOption(f"range {port.name}: expected LOW:HIGH, got {low:g}:{high:g}: {error}") from error
    if not np.array_equal(whole.astype(numpy_type(port.datatype)).astype(whole.dtype), whole):
        raise InvalidOption(f"range {port.name}: expected what {port.datatype} holds, got {low:g}:{high:g}")


def _values(generator: np.random.Generator, port: Port, shape: tuple[int, ...], given: tuple[float, float] | None) -> Any:
    limits = _limits(port, given)
    if port.datatype == "BYTES":
        letters = generator.integers(ord("a"), ord("z") + 1, (elements(shape), 6), np.uint8)
        words = np.empty(len(letters), object)
        words[:] = [row.tobytes() for row in letters]
        return adapt(words.reshape(shape), port.name, "BYTES")
    wanted = numpy_type(port.datatype)
    if port.datatype.startswith(("FP", "BF")):
        plain = generator.standard_normal(shape) if limits is None else generator.uniform(*limits, shape)
        return adapt(np.asarray(plain).astype(wanted), port.name, port.datatype)
    low, high = limits or (0, 0)
    whole = np.asarray(generator.integers(int(low), int(high), shape, endpoint=True))
    return adapt(whole.astype(wanted), port.name, port.datatype)
