"""What a model for Triton's Python back end gives and is given: errors, responses, requests, and the way that responses take."""

from __future__ import annotations

import json
import queue
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from nnrp import errors
from nnrp.runtimes.loop import LOOK
from nnrp.runtimes.triton_python.tensor import Tensor, TritonModelException

if TYPE_CHECKING:
    from nnrp.runtimes.contract import Control

TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
TRITONSERVER_REQUEST_RELEASE_ALL = 1
TRITONSERVER_REQUEST_FLAG_SEQUENCE_START = 1
TRITONSERVER_REQUEST_FLAG_SEQUENCE_END = 2
TRITONSERVER_MEMORY_CPU, TRITONSERVER_MEMORY_CPU_PINNED, TRITONSERVER_MEMORY_GPU = range(3)

#: Code of a TritonError, by its number → our error.
_ERRORS: Sequence[type[errors.NnrpError]] = (
    errors.RunFailed,
    errors.RunFailed,
    errors.NotFound,
    errors.InvalidArgument,
    errors.Unavailable,
    errors.NotOffered,
    errors.AlreadyExists,
    errors.ClientCancelled,
)
#: Code of ours → number of a TritonError's.
_CODES = {
    "NOT_FOUND": 2,
    "INVALID_ARGUMENT": 3,
    "UNAVAILABLE": 4,
    "RESOURCE_EXHAUSTED": 4,
    "UNIMPLEMENTED": 5,
    "ALREADY_EXISTS": 6,
    "CANCELLED": 7,
    "DEADLINE_EXCEEDED": 7,
}


class TritonError:
    """Why there is no answer: a sentence, and a code of Triton's."""

    UNKNOWN, INTERNAL, NOT_FOUND, INVALID_ARG, UNAVAILABLE, UNSUPPORTED, ALREADY_EXISTS, CANCELLED = range(8)

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        self._message, self._code = str(message), int(code)

    def message(self) -> str:
        """Tell the sentence."""
        return self._message

    def code(self) -> int:
        """Tell the code."""
        return self._code

    def __str__(self) -> str:
        return self._message

    def _typed(self, model: str) -> errors.NnrpError:
        """Give it as an error of ours."""
        kind = _ERRORS[self._code] if 0 <= self._code < len(_ERRORS) else errors.RunFailed
        if kind is errors.RunFailed:
            return kind(f"model '{model}': {self._message}", runtime="triton-python")
        return kind(self._message, reason=kind.reason or "UNSPECIFIED")

    @classmethod
    def _of(cls, error: errors.NnrpError) -> TritonError:
        return cls(error.message, _CODES.get(error.code, cls.INTERNAL))


class PreferredMemory:
    """Where a model would like to have the answers of another; it has them in CPU memory."""

    def __init__(self, preferred_memory_type: int, preferred_device_id: int = 0) -> None:
        self.preferred_memory_type, self.preferred_device_id = preferred_memory_type, preferred_device_id


class InferenceResponse:
    """One answer: tensors, or an error."""

    def __init__(self, output_tensors: Sequence[Tensor] = (), error: TritonError | None = None, parameters: Mapping[str, Any] | None = None) -> None:
        for one in output_tensors or ():
            if not isinstance(one, Tensor):
                raise TritonModelException(f"InferenceResponse: expected output tensors, got one of type {type(one).__name__}")
        if error is not None and not isinstance(error, TritonError):
            raise TritonModelException(f"InferenceResponse: expected an error of type TritonError, got {type(error).__name__}")
        self._outputs, self._error, self._parameters = list(output_tensors or ()), error, dict(parameters or {})

    def output_tensors(self) -> list[Tensor]:
        """Give the tensors."""
        return self._outputs

    def has_error(self) -> bool:
        """Tell whether it is an error."""
        return self._error is not None

    def error(self) -> TritonError | None:
        """Give the error; None where it is none."""
        return self._error

    def parameters(self) -> str:
        """Give the parameters that go along, as JSON."""
        return json.dumps(self._parameters)


class Channel:
    """The way of the responses to one request, from whoever sends them to the one who reads them.

    Args:
        control: tells whether anybody still reads.
        ahead: how many may wait for the reader before who sends waits; 0: any number.
    """

    def __init__(self, control: Control, ahead: int = 0) -> None:
        self.control, self.taken, self.closed = control, False, False
        self._running, self._let_go, self._lock = True, False, threading.Lock()
        #: Each response; None after the last, or the error that there are no more for.
        self._sent: queue.Queue[InferenceResponse | BaseException | None] = queue.Queue(ahead)

    def put(self, item: InferenceResponse | BaseException | None) -> None:
        """Pass one on; where nobody reads any more it is dropped."""
        while not self.control.stopped:
            with suppress(queue.Full):
                self._sent.put(item, timeout=LOOK if self.control.stoppable else None)
                break

    def end(self, error: BaseException | None) -> None:
        """Say that `execute` is over, and what it raised: from then on only a response sender that somebody has can send."""
        with self._lock:
            self._running = False
        if error is not None or (self._let_go and not self.closed):
            self.closed = True
            self.put(error or self._never_final())

    def let_go(self) -> None:
        """Say that nobody has the response sender any more."""
        with self._lock:
            self._let_go = True
            lost = not (self._running or self.closed)
        if lost:
            self.closed = True
            self.put(self._never_final())

    @staticmethod
    def _never_final() -> errors.NnrpError:
        return errors.RunFailed("execute: the response sender was let go before the final response", runtime="triton-python")

    def sent(self) -> Iterator[InferenceResponse]:
        """Give the responses as they come, to the last."""
        while not self.control.stopped:
            try:
                item = self._sent.get(timeout=LOOK if self.control.stoppable else None)
            except queue.Empty:
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item


class ResponseSender:
    """Takes the responses to one request, from any thread, until the last was said to be so."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        channel.taken = True

    def __del__(self) -> None:
        self._channel.let_go()

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> None:
        """Send a response, or only say that there are no more.

        Raises:
            TritonModelException: the last was sent before, or there is nothing to send.
        """
        if self._channel.closed:
            raise TritonModelException("response sender: the final response was sent before")
        if flags not in (0, TRITONSERVER_RESPONSE_COMPLETE_FINAL):
            raise TritonModelException(f"response sender: expected flags 0 or TRITONSERVER_RESPONSE_COMPLETE_FINAL, got {flags}")
        if response is None and not flags:
            raise TritonModelException("response sender: expected a response, or the flag TRITONSERVER_RESPONSE_COMPLETE_FINAL")
        if response is not None and not isinstance(response, InferenceResponse):
            raise TritonModelException(f"response sender: expected an InferenceResponse, got {type(response).__name__}")
        if response is not None:
            self._channel.put(response)
        if flags:
            self._channel.closed = True
            self._channel.put(None)

    def is_closed(self) -> bool:
        """Tell whether the last response was sent."""
        return self._channel.closed

    def is_cancelled(self) -> bool:
        """Tell whether nobody waits for a response any more."""
        return self._channel.control.stopped


class Request:
    """What a model is asked."""

    def __init__(self, model: str, version: str, inputs: Sequence[Tensor], outputs: Sequence[str], channel: Channel) -> None:
        self._model, self._version, self._channel, self._control = model, version, channel, channel.control
        self._inputs, self._outputs = list(inputs), list(outputs)
        self._sender: weakref.ref[ResponseSender] | None = None

    @classmethod
    def _asked(cls, *parts: Any) -> Self:
        """Make one that was asked, and not one to ask with."""
        self = cls.__new__(cls)
        Request.__init__(self, *parts)
        return self

    def inputs(self) -> list[Tensor]:
        """Give the input tensors."""
        return self._inputs

    def request_id(self) -> str:
        """Tell the id that the caller gave; empty without one."""
        return self._control.id or ""

    def correlation_id(self) -> int:
        """Tell the sequence that it belongs to: 0, which is none."""
        return 0

    def flags(self) -> int:
        """Tell the flags of a sequence: none."""
        return 0

    def timeout(self) -> int:
        """Tell the timeout of the request's queue: none."""
        return 0

    def parameters(self) -> str:
        """Tell the parameters that are the model's, as JSON."""
        return json.dumps(self._control.parameters)

    def requested_output_names(self) -> list[str]:
        """List the outputs that are wanted."""
        return self._outputs

    def model_name(self) -> str:
        """Tell what the model is called."""
        return self._model

    def model_version(self) -> int:
        """Tell the version; -1 where it is no number."""
        return int(self._version) if self._version.isdigit() else -1

    def preferred_memory(self) -> PreferredMemory:
        """Tell where the answer is wanted: in CPU memory."""
        return PreferredMemory(TRITONSERVER_MEMORY_CPU)

    def get_response_sender(self) -> ResponseSender:
        """Give what takes the responses: one object, for as long as anybody has it."""
        sender = self._sender() if self._sender else None
        if sender is None:
            if self._channel.closed:
                raise TritonModelException("get_response_sender: the final response was sent before")
            sender = ResponseSender(self._channel)
            self._sender = weakref.ref(sender)
        return sender

    def is_cancelled(self) -> bool:
        """Tell whether nobody waits for the answer any more."""
        return self._control.stopped

    def set_release_flags(self, flags: int) -> None:
        """Take the flag that the request is done with; to have it scheduled again is not offered."""
        if flags != TRITONSERVER_REQUEST_RELEASE_ALL:
            raise TritonModelException("set_release_flags: expected TRITONSERVER_REQUEST_RELEASE_ALL; rescheduling is not offered")
