"""The errors of every form, as classes (the table is the specification's `errors.toml`).

`NnrpError` is the root; below it one class for each code, below that one for each reason, so that callers catch as finely as they care:

    NnrpError
    ├─ InvalidArgument (ValueError)    ShapeMismatch, DatatypeMismatch, MissingInput, UnknownInput, UnknownOutput, UnknownOption …
    ├─ DeadlineExceeded (TimeoutError)    Deadline
    ├─ NotFound (LookupError)    ModelNotFound, VersionNotFound, PathNotFound, FileNotFound (FileNotFoundError)
    ├─ AlreadyExists    ModelExists
    ├─ PermissionDenied (PermissionError)
    ├─ ResourceExhausted    QueueFull, UnreadAnswers
    ├─ FailedPrecondition    RuntimeNotInstalled, DeviceNotFound, NoRuntime, WrongState
    ├─ Cancelled    ClientCancelled
    ├─ Unimplemented (NotImplementedError)    NotOffered, MethodNotAllowed
    ├─ Unavailable    Draining, RuntimeCrashed, ConnectionFailed (ConnectionError)
    ├─ Unauthenticated
    ├─ RuntimeFailure (RuntimeError)    LoadFailed, RunFailed
    └─ Internal    Bug

An error is the same class whether the model runs in this process or behind a server.
"""

from __future__ import annotations

import json
from typing import Any


class NnrpError(Exception):
    """Something that NNRP could not do: where, what was expected, what was got.

    Args:
        message: the sentence for people.
        reason: what exactly, where it is not the class's own.
        details: fields for machines, such as `input="pixels"`.

    Attributes:
        code: the kind, as on the wire: `INVALID_ARGUMENT`.
        reason: what exactly, as on the wire: `SHAPE_MISMATCH`; `UNSPECIFIED` where nobody said more than the code.
        message: the sentence for people.
        details: fields for machines.
        retryable: whether the same request may succeed later, unchanged.
        request_id: the id that the request was given, if any.
    """

    code: str = "INTERNAL"
    reason: str = "UNSPECIFIED"
    retryable: bool = False

    def __init__(self, message: str = "", /, *, reason: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.reason
        self.details = details
        self.request_id: str | None = None


class Cancelled(NnrpError):
    """The caller withdrew the request."""

    code = "CANCELLED"


class RuntimeFailure(NnrpError, RuntimeError):
    """The runtime failed; its own code and text are in details."""

    code = "RUNTIME_FAILURE"


class InvalidArgument(NnrpError, ValueError):
    """The request is wrong whatever the state of the server."""

    code = "INVALID_ARGUMENT"


class DeadlineExceeded(NnrpError, TimeoutError):
    """The deadline passed before there was an answer."""

    code = "DEADLINE_EXCEEDED"


class NotFound(NnrpError, LookupError):
    """No such model, version, file or path."""

    code = "NOT_FOUND"


class AlreadyExists(NnrpError):
    """The name is taken."""

    code = "ALREADY_EXISTS"


class PermissionDenied(NnrpError, PermissionError):
    """The caller may not do this."""

    code = "PERMISSION_DENIED"


class ResourceExhausted(NnrpError):
    """A bound was reached."""

    code = "RESOURCE_EXHAUSTED"
    retryable = True


class FailedPrecondition(NnrpError):
    """The system is not in the state that this needs."""

    code = "FAILED_PRECONDITION"


class Unimplemented(NnrpError, NotImplementedError):
    """This runtime, or this server, does not offer it."""

    code = "UNIMPLEMENTED"


class Internal(NnrpError):
    """Our own defect, never anything else."""

    code = "INTERNAL"


class Unavailable(NnrpError):
    """Not now; the answer carries Retry-After."""

    code = "UNAVAILABLE"
    retryable = True


class Unauthenticated(NnrpError):
    """No valid credentials."""

    code = "UNAUTHENTICATED"


class Malformed(InvalidArgument):
    """The bytes are not a message: JSON, protobuf, header or element that cannot be read."""

    reason = "MALFORMED"


class UnknownDatatype(InvalidArgument):
    """The datatype is not one of datatypes.toml."""

    reason = "UNKNOWN_DATATYPE"


class DatatypeMismatch(InvalidArgument):
    """An input's datatype is not the signature's."""

    reason = "DATATYPE_MISMATCH"


class ShapeMismatch(InvalidArgument):
    """An input's rank or a dimension is not the signature's, or the nesting of data is not the shape's."""

    reason = "SHAPE_MISMATCH"


class InvalidShape(InvalidArgument):
    """A dimension is negative, there are too many, or their product overflows."""

    reason = "INVALID_SHAPE"


class ByteSizeMismatch(InvalidArgument):
    """The data holds more or fewer elements or bytes than shape and datatype say."""

    reason = "BYTE_SIZE_MISMATCH"


class ValueOutOfRange(InvalidArgument):
    """An element does not fit its datatype."""

    reason = "VALUE_OUT_OF_RANGE"


class MissingInput(InvalidArgument):
    """An input that the signature needs is absent."""

    reason = "MISSING_INPUT"


class UnknownInput(InvalidArgument):
    """The signature has no such input."""

    reason = "UNKNOWN_INPUT"


class DuplicateInput(InvalidArgument):
    """An input is given twice."""

    reason = "DUPLICATE_INPUT"


class UnknownOutput(InvalidArgument):
    """The signature has no such output."""

    reason = "UNKNOWN_OUTPUT"


class DuplicateOutput(InvalidArgument):
    """An output is asked for twice."""

    reason = "DUPLICATE_OUTPUT"


class InvalidParameter(InvalidArgument):
    """A request parameter has the wrong type or value."""

    reason = "INVALID_PARAMETER"


class UnknownOption(InvalidArgument):
    """The runtime has no such option."""

    reason = "UNKNOWN_OPTION"


class InvalidOption(InvalidArgument):
    """An option or setting has a value that cannot be taken."""

    reason = "INVALID_OPTION"


class InvalidModel(InvalidArgument):
    """The file is not a model that the runtime can read."""

    reason = "INVALID_MODEL"


class BodyTooLarge(InvalidArgument):
    """The message is larger than the server accepts."""

    reason = "BODY_TOO_LARGE"


class UnsupportedMediaType(InvalidArgument):
    """The content type or content encoding is not one that the server reads."""

    reason = "UNSUPPORTED_MEDIA_TYPE"


class MethodNotAllowed(Unimplemented):
    """The path exists, for another method."""

    reason = "METHOD_NOT_ALLOWED"


class Deadline(DeadlineExceeded):
    """The request's deadline passed."""

    reason = "DEADLINE"


class ClientCancelled(Cancelled):
    """The client went away or cancelled."""

    reason = "CLIENT_CANCELLED"


class ModelNotFound(NotFound):
    """No model of that name."""

    reason = "MODEL_NOT_FOUND"


class VersionNotFound(NotFound):
    """The model has no such version."""

    reason = "VERSION_NOT_FOUND"


class FileNotFound(NotFound, FileNotFoundError):
    """No such file or folder to load from."""

    reason = "FILE_NOT_FOUND"


class PathNotFound(NotFound):
    """The server has no such path or method."""

    reason = "PATH_NOT_FOUND"


class ModelExists(AlreadyExists):
    """That version of that model is loaded already."""

    reason = "MODEL_EXISTS"


class QueueFull(ResourceExhausted):
    """The model's queue is at its bound; 429 where the server is told so."""

    reason = "QUEUE_FULL"


class UnreadAnswers(ResourceExhausted):
    """Clients have not read as many bytes of their answers as the server keeps; 429 where the server is told so."""

    reason = "UNREAD_ANSWERS"


class RuntimeNotInstalled(FailedPrecondition):
    """The runtime's library, or a source's package, is not on this machine, or of a version that cannot be used."""

    reason = "RUNTIME_NOT_INSTALLED"


class DeviceNotFound(FailedPrecondition):
    """An execution provider or device that was asked for is not there."""

    reason = "DEVICE_NOT_FOUND"


class NoRuntime(FailedPrecondition):
    """None of the runtimes that were asked loads the model; each one's reason is in details."""

    reason = "NO_RUNTIME"


class WrongState(FailedPrecondition):
    """What was asked needs another state: an object cannot be used in a fork of the process that made it."""

    reason = "WRONG_STATE"


class NotOffered(Unimplemented):
    """The runtime, the model or the server cannot do this."""

    reason = "NOT_OFFERED"


class LoadFailed(RuntimeFailure):
    """The runtime failed while it loaded a model."""

    reason = "LOAD_FAILED"


class RunFailed(RuntimeFailure):
    """The runtime failed while it ran a model."""

    reason = "RUN_FAILED"


class Draining(Unavailable):
    """The server finishes what it has and takes nothing new."""

    reason = "DRAINING"


class ConnectionFailed(Unavailable, ConnectionError):
    """The client cannot reach the server, or lost it."""

    reason = "CONNECTION_FAILED"


class RuntimeCrashed(Unavailable):
    """The process of an isolated model ended, and is started again."""

    reason = "RUNTIME_CRASHED"


class Bug(Internal):
    """A state that our own code rules out."""

    reason = "BUG"


def _tree(root: type[NnrpError]) -> dict[str, type[NnrpError]]:
    found = {}
    for kind in root.__subclasses__():
        found[kind.__dict__.get("reason") or kind.code] = kind
        found |= _tree(kind)
    return found


_CLASSES = _tree(NnrpError)


def agrees(reason: str, code: str) -> bool:
    """Tell whether a reason may go with a code; one that is not in the table may with any."""
    return _CLASSES[reason].code == code if reason in _CLASSES else reason != NnrpError.reason


def from_core(code: str, reason: str, message: str, details: str, request_id: str | None = None) -> NnrpError:
    """Make the error that the engine or a server tells of.

    A reason that is not in the table, as a newer server may send, becomes its code's class and keeps its name.
    """
    kind = _CLASSES.get(reason)
    if kind is None or kind.code != code:
        kind = _CLASSES.get(code, NnrpError)
    error = kind(message, reason=reason)
    error.details = json.loads(details)
    told = error.details.pop("request_id", None)
    error.request_id = request_id or told
    return error
