"""The least that a Python client can cost: one socket, constant bytes around the tensor, nothing checked twice.

Both take an array and give an array, as `model(x)` does. They are floors for bench/client.py, not clients to use.
"""

from __future__ import annotations

import re
import socket
import struct

import numpy as np
from numpy.typing import NDArray

from .bodies import binary_head, grpc_message
from .models import example
from .setting import BenchFailure

Array = NDArray[np.float32]

_TIMEOUT_S = 30
_HEAD_BYTE_SIZE = 2048  # room for an answer's head and JSON


class RawRest:
    """Binary REST over one kept connection."""

    def __init__(self, port: int, model: str):
        json_part = binary_head(model)
        head = (
            f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            f"Content-Type: application/octet-stream\r\nInference-Header-Content-Length: {len(json_part)}\r\n"
            f"Content-Length: {len(json_part) + example(model).nbytes}\r\n\r\n"
        )
        self._before = head.encode() + json_part
        self._socket = _connect(port)

    def __call__(self, x: Array) -> Array:
        _send(self._socket, [self._before, x.data.cast("B")])
        answer = np.empty(x.nbytes + _HEAD_BYTE_SIZE, np.uint8)
        view = answer.data
        used = byte_size = 0
        while used < byte_size or not byte_size:
            used += _receive(self._socket, view[used:])
            byte_size = byte_size or _answer_byte_size(bytes(view[: min(used, _HEAD_BYTE_SIZE)]))
        return answer[byte_size - x.nbytes : byte_size].view(np.float32).reshape(x.shape)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


class RawGrpc:
    """gRPC over one HTTP/2 connection, one stream at a time."""

    _PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    _DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
    _ACK = _END_STREAM = 1
    _END_HEADERS = 4
    _INITIAL_WINDOW, _MAX_FRAME = 4, 5  # settings
    _LARGEST_WINDOW = 2**31 - 1
    _LARGEST_FRAME = 2**24 - 1
    _FIRST_WINDOW = 65_535
    _REFILL = 2**30

    def __init__(self, port: int, model: str):
        message = grpc_message(model)
        tensor_byte_size = example(model).nbytes
        self._before = b"\0" + struct.pack(">I", len(message)) + message[:-tensor_byte_size]
        self._headers = _header_block(port)
        self._stream = -1
        self._window = self._stream_window = self._first_stream_window = self._FIRST_WINDOW
        self._max_frame = 16_384
        self._unacknowledged = 0
        self._buffer = bytearray(2 * tensor_byte_size + 65_536)
        self._view = memoryview(self._buffer)
        self._read = self._filled = 0
        self._socket = _connect(port)
        wanted = (self._INITIAL_WINDOW, self._LARGEST_WINDOW, self._MAX_FRAME, self._LARGEST_FRAME)
        settings = struct.pack(">HIHI", *wanted)
        more = struct.pack(">I", self._LARGEST_WINDOW - self._FIRST_WINDOW)
        opening = self._frame(self._SETTINGS, 0, 0, settings) + self._frame(self._WINDOW_UPDATE, 0, 0, more)
        self._socket.sendall(self._PREFACE + opening)
        while self._take_frame()[0] != self._SETTINGS:
            pass

    def __call__(self, x: Array) -> Array:
        self._stream += 2
        self._stream_window = self._first_stream_window
        self._send_message(x)
        answer = np.empty(x.nbytes + _HEAD_BYTE_SIZE, np.uint8)
        view = answer.data
        used = 0
        kind = flags = 0
        while not (kind in (self._DATA, self._HEADERS) and flags & self._END_STREAM):
            kind, flags, payload = self._take_frame()
            if kind == self._DATA:
                view[used : used + len(payload)] = payload
                used += len(payload)
        self._refill(used)
        if used < x.nbytes:
            raise BenchFailure("the raw gRPC call was answered without its tensor")
        # raw_output_contents is the message's last field, so the tensor is its tail.
        return answer[used - x.nbytes : used].view(np.float32).reshape(x.shape)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _send_message(self, x: Array) -> None:
        parts: list[bytes | memoryview] = [self._frame(self._HEADERS, self._END_HEADERS, self._stream, self._headers)]
        tensor = x.data.cast("B")
        before, sent = self._before, 0
        while before or sent < len(tensor):
            room = min(self._max_frame, self._window, self._stream_window)
            if room <= len(before):
                _send(self._socket, parts)
                parts = []
                self._take_frame()
                continue
            part = tensor[sent : sent + room - len(before)]
            sent += len(part)
            length = len(before) + len(part)
            flags = self._END_STREAM if sent == len(tensor) else 0
            parts += [self._frame_head(length, self._DATA, flags, self._stream), before, part]
            self._window -= length
            self._stream_window -= length
            before = b""
        _send(self._socket, parts)

    def _take_frame(self) -> tuple[int, int, memoryview]:
        """Give the next frame's kind, flags and payload, valid until the next call; do what the connection needs."""
        self._fill(9)
        head = self._view[self._read : self._read + 9]
        length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        stream = int.from_bytes(head[5:9], "big")
        self._fill(9 + length)
        payload = self._view[self._read + 9 : self._read + 9 + length]
        self._read += 9 + length
        if kind == self._SETTINGS and not flags & self._ACK:
            self._apply_settings(payload)
        elif kind == self._WINDOW_UPDATE:
            self._widen(stream, int.from_bytes(payload, "big"))
        elif kind == self._PING and not flags & self._ACK:
            self._socket.sendall(self._frame(self._PING, self._ACK, 0, bytes(payload)))
        elif kind in (self._RESET, self._GOAWAY):
            raise BenchFailure("the server ended the raw gRPC call")
        return kind, flags, payload

    def _apply_settings(self, payload: memoryview) -> None:
        for name, value in struct.iter_unpack(">HI", payload):
            if name == self._INITIAL_WINDOW:
                self._stream_window += value - self._first_stream_window
                self._first_stream_window = value
            elif name == self._MAX_FRAME:
                self._max_frame = value
        self._socket.sendall(self._frame(self._SETTINGS, self._ACK, 0, b""))

    def _widen(self, stream: int, more: int) -> None:
        if stream == 0:
            self._window += more
        elif stream == self._stream:
            self._stream_window += more

    def _refill(self, received: int) -> None:
        self._unacknowledged += received
        if self._unacknowledged > self._REFILL:
            more = struct.pack(">I", self._unacknowledged)
            self._socket.sendall(self._frame(self._WINDOW_UPDATE, 0, 0, more))
            self._unacknowledged = 0

    def _fill(self, wanted: int) -> None:
        """Receive until `wanted` bytes lie unread in the buffer."""
        if self._read == self._filled:
            self._read = self._filled = 0
        if self._read + wanted > len(self._buffer):
            rest = bytes(self._view[self._read : self._filled])
            self._view[: len(rest)] = rest
            self._read, self._filled = 0, len(rest)
        while self._filled - self._read < wanted:
            self._filled += _receive(self._socket, self._view[self._filled :])

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return self._frame_head(len(payload), kind, flags, stream) + payload

    @staticmethod
    def _frame_head(length: int, kind: int, flags: int, stream: int) -> bytes:
        return length.to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream)


def _header_block(port: int) -> bytes:
    """Encode the request's headers with HPACK's static table and plain literals, so that no call depends on another."""

    def text(value: str) -> bytes:
        return bytes([len(value)]) + value.encode()

    post, http = b"\x83", b"\x86"
    path = b"\x04" + text("/inference.GRPCInferenceService/ModelInfer")
    authority = b"\x01" + text(f"127.0.0.1:{port}")
    content_type = b"\x0f\x10" + text("application/grpc")
    return post + http + path + authority + content_type + b"\0" + text("te") + text("trailers")


def _connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    # The kernel's own timeouts: Python's would make every call poll first.
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connection.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", _TIMEOUT_S, 0))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _send(connection: socket.socket, parts: list[bytes | memoryview]) -> None:
    wanted = sum(len(part) for part in parts)
    if connection.sendmsg(parts) != wanted:  # a blocking socket sends all of it, or the timeout has struck
        raise BenchFailure("the server does not read from the raw connection")


def _receive(connection: socket.socket, into: memoryview) -> int:
    got = connection.recv_into(into)
    if got == 0:
        raise BenchFailure("the server closed the raw connection")
    return got


def _answer_byte_size(start: bytes) -> int:
    """Give the whole answer's length, or 0 while its head is incomplete."""
    end = start.find(b"\r\n\r\n")
    if end < 0:
        return 0
    if not start.startswith(b"HTTP/1.1 200"):
        raise BenchFailure(f"the raw REST call was answered {start[:200]!r}")
    length = re.search(rb"\r\ncontent-length: *(\d+)", start[: end + 2].lower())
    if length is None:
        raise BenchFailure("the server answered the raw REST call without a length")
    return end + 4 + int(length[1])
