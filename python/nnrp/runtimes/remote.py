"""The runtime ``remote``: a model of another Open Inference server, served or called as if it were here."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from nnrp.errors import InvalidOption, NnrpError, NotOffered, RunFailed
from nnrp.remote import Client
from nnrp.runtimes.contract import Control, ModelSpec, on_cpu
from nnrp.runtimes.loop import END, Loop, step

#: How many requests are on their way at once.
WORKERS = 64


class Remote:
    """Loads models by path, ``http://host:port/model`` or ``grpc://host:port/model/version``, or by the options url, model and version."""

    name = "remote"
    formats = ()

    def info(self) -> dict[str, Any]:
        texts = {name: {"type": "string", "minLength": 1} for name in ("url", "model", "version")}
        others = {"workers": {"type": "integer", "minimum": 1}, "stream": {"type": "boolean"}}
        schema = {"type": "object", "properties": texts | others, "additionalProperties": False}
        return {"version": "2", "devices": ["cpu"], "options": schema}

    def load(self, spec: ModelSpec) -> Model:
        on_cpu(self.name, spec)
        parts = urlsplit(spec.options.get("url", spec.path))
        named = [unquote(part) for part in parts.path.split("/") if part]
        if named[:2] == ["v2", "models"]:
            named = [named[2], *named[4:]] if len(named) in (3, 5) else [""] * 3
        if not parts.netloc or len(named) > 2:
            raise InvalidOption(f"remote: expected http://host:port/model or grpc://host:port/model/version, got '{spec.path[:96]}'")
        model, version = [*named, None, None][:2]
        client = Client(f"{parts.scheme}://{parts.netloc}")
        streams = spec.options.get("stream", False)
        if streams and parts.scheme != "grpc":
            raise NotOffered("remote: REST has no streams of answers; expected the URL of a gRPC server")
        name, version = spec.options.get("model", model or spec.name), spec.options.get("version", version)
        return (Stream if streams else Model)(client, name, version, spec.options.get("workers", WORKERS))


class Model:
    """A model of a server; the signature is what the server tells."""

    exclusive = False
    cancellable = True

    def __init__(self, client: Client, name: str, version: str | None, workers: int) -> None:
        self._model = client.model(name, version)
        self.inputs = [spec[:3] for spec in self._model.inputs]
        self.outputs = [spec[:3] for spec in self._model.outputs]
        self.workers = workers
        self.device = "remote"
        self.format = str(self._model.metadata().get("platform", "")) or "model"
        self.settings = {"model": name, "version": version or "latest", "workers": workers}
        self._loop = Loop("nnrp-remote")
        self.close = self._loop.close

    def run(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> dict[str, Any]:
        left = None if control.deadline is None else max(0.0, control.deadline - time.monotonic())
        try:
            if not control.stoppable:
                return self._model.infer(inputs, outputs)
            answer: dict[str, Any] = self._loop.finish(self._model.infer_async(inputs, outputs, timeout=left), control)
            return answer
        except NnrpError as error:
            _check(error)
            raise


class Stream(Model):
    """One that gives any number of answers to a request."""

    def stream(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> Iterator[dict[str, Any]]:
        left = None if control.deadline is None else max(0.0, control.deadline - time.monotonic())
        try:
            answers = self._model.stream_async(inputs, outputs, timeout=left)
            try:
                while (answer := self._loop.finish(step(answers), control)) is not END:
                    yield answer
            finally:
                self._loop.finish(answers.aclose(), Control())
        except NnrpError as error:
            _check(error)
            raise


def _check(error: NnrpError) -> None:
    if error.code in {"INVALID_ARGUMENT", "NOT_FOUND"}:
        # The request fitted the signature that the server told: it is the server that has another model now, or none.
        told = {"code": error.code, "reason": error.reason, "message": error.message}
        raise RunFailed(f"remote: the server refused what fits the signature that it told: {error.message}", runtime=Remote.name, server=told) from error
    if error.reason == "CONNECTION_FAILED" and "output" in error.details:
        raise RunFailed(f"remote: {error.message}", runtime=Remote.name, **error.details) from error
    if error.reason == "NOT_OFFERED" and error.details.get("decoupled"):
        raise NotOffered(f"remote: {error.message}: load it over gRPC with the option 'stream': true", **error.details) from error
