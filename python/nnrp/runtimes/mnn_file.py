"""What an MNN file says of the weights in the file beside it, of which MNN does not look whether they are there."""

from __future__ import annotations

import struct
from collections.abc import Iterator

#: Fields of the file's tables (MNN.fbs): a net's operations and graphs, a graph's operations, an operation's kind of parameters and these.
_OPERATIONS, _GRAPHS, _OF_GRAPH, _KIND, _PARAMETERS = 3, 10, 4, 1, 2
#: Kinds of parameters that may lie beside → their field that says where: the first byte, and how many there are of each part.
_BESIDE = {7: 9, 9: 6}
#: Most parts of one operation's weights.
_MOST = 16


def beside(content: bytes) -> int:
    """Tell how many bytes the file with weights has at least; 0 where there is none.

    Raises:
        struct.error: the file is cut off.
    """
    net = _number(content, 0)
    graphs = [(net, _OPERATIONS), *((graph, _OF_GRAPH) for graph in _tables(content, net, _GRAPHS))]
    return max((_end(content, operation) for table, field in graphs for operation in _tables(content, table, field)), default=0)


def _end(content: bytes, operation: int) -> int:
    kind, parameters = _field(content, operation, _KIND), _field(content, operation, _PARAMETERS)
    place = _BESIDE.get(content[kind]) if kind and parameters else None
    told = _field(content, parameters + _number(content, parameters), place) if place is not None else 0
    if not told:
        return 0
    start = told + _number(content, told)
    count = _number(content, start)
    if count > _MOST:
        raise struct.error
    return sum(max(part, 0) for part in struct.unpack_from(f"<{count}q", content, start + 4))


def _tables(content: bytes, table: int, field: int) -> Iterator[int]:
    place = _field(content, table, field)
    start = place + _number(content, place) if place else 0
    for index in range(_number(content, start) if place else 0):
        entry = start + 4 + 4 * index
        yield entry + _number(content, entry)


def _field(content: bytes, table: int, field: int) -> int:
    """Where a field of a table lies; 0 where it is left out."""
    (back,) = struct.unpack_from("<i", content, table)
    fields = table - back
    if fields < 0:
        raise struct.error
    (size,) = struct.unpack_from("<H", content, fields)
    if 6 + 2 * field > size:
        return 0
    (offset,) = struct.unpack_from("<H", content, fields + 4 + 2 * field)
    return table + offset if offset else 0


def _number(content: bytes, place: int) -> int:
    number: int = struct.unpack_from("<I", content, place)[0]
    return number
