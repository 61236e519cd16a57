"""What the engine asks of a runtime in Python, once a model: all that need not be quick, and what went wrong."""

from __future__ import annotations

import json
import logging
import operator
import os
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from os import PathLike
from typing import Any

from nnrp import _nnrp
from nnrp.errors import DeviceNotFound, InvalidModel, LoadFailed, NnrpError, NotOffered, agrees
from nnrp.runtimes.contract import Control, ModelSpec
from nnrp.runtimes.package import without_paths

LOG = logging.getLogger("nnrp.runtimes")
#: The control of every run that cannot be stopped.
IDLE = Control()
#: Longest text of a runtime that an error repeats.
TEXT_LIMIT = 2048

Loaded = tuple["Verbs", Callable[..., Any], Control, str, int | None]


def info(runtime: Any) -> str:
    """Tell what a runtime is, as one JSON document."""
    return json.dumps(about(runtime))


def about(runtime: Any) -> dict[str, Any]:
    """Tell what a runtime is: version, formats, devices, options."""
    told = dict(runtime.info())
    unknown = sorted(told.keys() - {"name", "version", "formats", "devices", "options"})
    if unknown:
        raise LoadFailed(f"runtime {runtime.name}: info tells '{unknown[0]}': expected version, formats, devices and options", runtime=runtime.name)
    return {
        "version": str(told.get("version", "")),
        "formats": [str(one) for one in told.get("formats", ())],
        "devices": [str(one) for one in told.get("devices", ())],
        "options": told.get("options", {"type": "object", "additionalProperties": False}),
    }


def load(runtime: Any, description: str) -> Loaded:
    """Load a model: what else its session does, the verb that answers, the control of a run that nobody stops, its description, its workers."""
    spec = json.loads(description)
    named = spec.pop("runtime")
    spec["format"] = look(runtime, spec["path"], bool(named)) or spec["format"]
    itself = about(runtime)
    _nnrp.check_options(runtime.name, json.dumps(itself["options"]), json.dumps(spec["options"]))
    spec = ModelSpec(**spec)
    session = runtime.load(spec)
    try:
        told, workers = _describe(runtime.name, itself["version"], spec, session)
        answers = getattr(session, "stream", None) or session.run
        return Verbs(runtime.name, session, itself["options"], spec.options), answers, IDLE, told, workers
    except BaseException:
        close(session)
        raise


class Verbs:
    """What a session does beside running (spec §8.15), each only where it has a method of that name."""

    def __init__(self, runtime: str, session: Any, schema: Any, options: Mapping[str, Any]) -> None:
        self.runtime, self.session, self.schema, self.options = runtime, session, schema, dict(options)

    def __call__(self, verb: str, option: tuple[str, str] | None) -> str:
        """Do it, and tell what came of it as one JSON document; an option is a name, and its value as JSON."""
        method = getattr(self.session, verb, None)
        if method is None:
            raise NotOffered(f"runtime {self.runtime}: does not offer {verb}", runtime=self.runtime, verb=verb)
        if option is not None:
            name, value = option[0], json.loads(option[1])
            wanted = {**self.options, name: value}
            _nnrp.check_options(self.runtime, json.dumps(self.schema), json.dumps(wanted))
            method(name, value)
            self.options = wanted
            return "null"
        told = method()
        return json.dumps(dict(told)) if verb == "stats" else "null"

    def close(self) -> None:
        """End the session."""
        close(self.session)


def look(runtime: Any, path: str | PathLike[str], named: bool) -> str | None:
    """Look into the file, and tell its format; what is unknown here may be known to the runtime that somebody named."""
    reads = getattr(runtime, "formats", None)
    if reads is None:
        reads = about(runtime)["formats"]
    return _format(runtime.name, os.fspath(path), reads, named)


def _format(runtime: str, path: str, reads: Sequence[str], named: bool) -> str | None:
    if not reads and named:
        return None
    try:
        found = _nnrp.format(path)
    except InvalidModel:
        if named:
            return None
        raise
    if found not in reads:
        message = f"model file: {runtime} does not read the format {found}; it reads {', '.join(reads) or 'no files'}"
        raise NotOffered(message, runtime=runtime, format=found, reads=list(reads))
    _nnrp.check_beside(path, found)
    return found


def _describe(runtime: str, version: str, spec: ModelSpec, session: Any) -> tuple[str, int | None]:
    workers = getattr(session, "workers", None)
    if workers is not None and (not isinstance(workers, int) or workers < 1):
        raise LoadFailed(f"runtime {runtime}: session.workers: expected a number from 1, got {workers!r:.96}", runtime=runtime)
    told = {
        "version": version,
        "format": getattr(session, "format", None) or spec.format or runtime,
        "device": getattr(session, "device", "cpu"),
        "exclusive": bool(getattr(session, "exclusive", True)),
        "cancellable": bool(getattr(session, "cancellable", False)),
        "streams": getattr(session, "stream", None) is not None,
        "settings": dict(getattr(session, "settings", {})),
        "inputs": [_tensor(runtime, one) for one in session.inputs],
        "outputs": [_tensor(runtime, one) for one in session.outputs],
    }
    _check_honoured(runtime, spec, told)
    try:
        return json.dumps(told), workers
    except (TypeError, ValueError) as error:
        raise LoadFailed(f"runtime {runtime}: what it tells of its session: expected what JSON can say: {error}", runtime=runtime) from error


def _check_honoured(runtime: str, spec: ModelSpec, told: dict[str, Any]) -> None:
    """Refuse a session that is elsewhere, or less exact or more, than was asked for: nothing falls back silently."""
    devices = [told["device"], told["settings"].get("device", told["device"])]
    if other := next((device for device in devices if spec.device not in ("auto", device)), None):
        message = f"device '{spec.device[:96]}' is not there; runtime {runtime} took {other!s:.96}"
        raise DeviceNotFound(message, runtime=runtime, available=[other])
    precision = told["settings"].get("precision", "strict")
    if spec.precision not in ("fast", precision):
        raise NotOffered(f"precision {spec.precision}: runtime {runtime} computes in {precision}", runtime=runtime)


def _tensor(runtime: str, spec: Any) -> dict[str, Any]:
    try:
        name, datatype, shape, *optional = spec
        shape = None if shape is None else [-1 if dim is None else operator.index(dim) for dim in shape]
        return {"name": name, "datatype": datatype, "shape": shape, "optional": bool(optional and optional[0])}
    except (TypeError, ValueError) as error:
        message = f"runtime {runtime}: what it tells of its session: expected (name, datatype, shape), got {spec!r:.96}"
        raise LoadFailed(message, runtime=runtime) from error


def leave(answers: Any) -> None:
    """End the generator of a stream whose answers nobody wants any more."""
    if isinstance(answers, Generator):
        close(answers)


def close(session: Any) -> None:
    """End a session; nobody is there to be told of a failure but the log."""
    end = getattr(session, "close", None)
    try:
        if end is not None:
            end()
    except BaseException as error:
        LOG.error("close: %s", without_paths(error, TEXT_LIMIT), exc_info=error)


def fault(runtime: str, reason: str, error: BaseException) -> tuple[str, bool]:
    """Tell what a runtime raised, as one JSON document, and whether it was Ctrl-C, which is the caller's. The log gets the traceback."""
    interrupted = isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()
    # A defect of ours is not a runtime's to tell.
    if isinstance(error, NnrpError) and error.code != "INTERNAL":
        details = {key: without_paths(value, len(value)) if isinstance(value, str) else value for key, value in error.details.items()}
        why = next((one for one in (error.reason, reason) if agrees(one, error.code)), NnrpError.reason)
        told = {"code": error.code, "reason": why, "message": without_paths(error.message, TEXT_LIMIT), "details": details}
    else:
        kind, text = type(error).__name__, without_paths(error, TEXT_LIMIT)
        message = f"runtime {runtime}: {kind}" + (f": {text}" if text else "")
        told = {"code": "RUNTIME_FAILURE", "reason": reason, "message": message, "details": {"runtime": runtime, "type": kind, "text": text}}
        if not interrupted:
            LOG.error(message, exc_info=error)
    return json.dumps(told, default=str), interrupted
