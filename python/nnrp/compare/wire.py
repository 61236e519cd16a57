"""What the comparison and its child processes say to each other: a JSON object, and the bytes of tensors after it. No pickles."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import IO, Any

from nnrp.tensor import NAMES, Tensor, adapt

#: Longest JSON part; a longer one is no message but a process that lost its mind.
_MOST = 64 << 20
_DATATYPES = {name: datatype for datatype, name in NAMES.items()}


class Wire:
    """One end of a pair of pipes."""

    def __init__(self, reads: IO[bytes], writes: IO[bytes]) -> None:
        self._reads, self._writes = reads, writes

    def send(self, message: Mapping[str, Any], tensors: Mapping[str, Any] | None = None) -> None:
        """Say something; tensors are arrays or `nnrp.Tensor`."""
        raw = [(name, *raw_of(value)) for name, value in (tensors or {}).items()]
        told = [[name, datatype, shape, len(data)] for name, datatype, shape, data in raw]
        head = json.dumps({**message, "tensors": told}).encode()
        self._writes.write(struct.pack("<I", len(head)) + head)
        for *_, data in raw:
            self._writes.write(data)
        self._writes.flush()

    def receive(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Hear something.

        Raises:
            EOFError: the other end is gone.
            ValueError: this is no message.
        """
        (length,) = struct.unpack("<I", self._exactly(4))
        if length > _MOST:
            raise ValueError(f"a message of {length} bytes")
        message = json.loads(self._exactly(length))
        tensors = {name: Tensor(datatype, shape, self._exactly(size)) for name, datatype, shape, size in message.pop("tensors")}
        return message, tensors

    def _exactly(self, size: int) -> bytes:
        data = self._reads.read(size)
        if len(data) < size:
            raise EOFError
        return data


def raw_of(value: Any) -> tuple[str, list[int], bytes]:
    """Give the datatype, the shape and the bytes of an array or a tensor."""
    tensor = value if isinstance(value, Tensor) else adapt(value, "", None)
    if isinstance(tensor, Tensor):
        return tensor.datatype, list(tensor.shape), tensor.tobytes()
    return _DATATYPES[tensor.dtype.name], list(tensor.shape), tensor.tobytes()
