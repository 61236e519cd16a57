"""A loaded model for Triton's Python back end: its instances, and the way of a request through one."""

from __future__ import annotations

import inspect
import json
import queue
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from nnrp.errors import ClientCancelled, InvalidModel, RunFailed, ShapeMismatch, WrongState
from nnrp.runtimes.contract import Control
from nnrp.runtimes.loop import LOOK, Loop
from nnrp.runtimes.triton_python.config import Config
from nnrp.runtimes.triton_python.message import Channel, InferenceResponse
from nnrp.runtimes.triton_python.module import Source
from nnrp.runtimes.triton_python.signature import NAME, Instance, device_of, ports, turned
from nnrp.runtimes.triton_python.tensor import Tensor
from nnrp.runtimes.triton_python.warmup import samples

#: How many responses of a decoupled model may wait for their reader; who sends one more waits.
AHEAD = 4
#: How long the end of a model waits for an `execute` whose reader has left, in seconds; from then on the last `execute` ends it.
PATIENCE = 5.0


class Session:
    """A model and its instances, each used by one request at a time.

    Args:
        source: its modules.
        config: its configuration, complete.
        instances: what to make.
        folder: the model's folder.
        version: which version of it this is.
        read_only: give the model inputs that it must not write to, without a copy.
    """

    cancellable = True
    format = "triton_python"

    def __init__(self, source: Source, config: Config, instances: Sequence[Instance], folder: Path, version: str, read_only: bool) -> None:
        self._source, self._folder, self._version, self._read_only = source, folder, version, read_only
        self._name, self._most = config["name"], config["max_batch_size"]
        self._ports = {side: {port.name: port for port in ports(config, side)} for side in ("input", "output")}
        self.inputs = [port[:4] for port in self._ports["input"].values()]
        self.outputs = [port[:3] for port in self._ports["output"].values()]
        self.exclusive, self.workers, self.device = len(instances) == 1, len(instances), device_of(instances)
        self.settings = {"precision": "strict", "instances": len(instances), "max_batch_size": self._most, "requests_per_call": 1}
        decoupled = bool(config.get("model_transaction_policy", {}).get("decoupled", False))
        self.settings["decoupled"] = decoupled
        #: What makes the session one that streams.
        self.stream = self._stream if decoupled else None
        self._request_type = vars(source.utils)["InferenceRequest"]
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._held = threading.local()
        self._loop = Loop(NAME)
        #: How many times `execute` of a decoupled model is at work on a thread of its own, and whether the last of them is to end the model.
        self._going, self._leaving, self._gone = 0, False, threading.Condition()
        self._ends = ExitStack()
        self._ends.callback(source.close)
        try:
            self._start(config, instances)
        except BaseException:
            self.close()
            raise

    def _start(self, config: Config, instances: Sequence[Instance]) -> None:
        for one in instances:
            model = self._source.model.TritonPythonModel()
            if hasattr(model, "initialize"):
                model.initialize(self._arguments(config, one))
            if hasattr(model, "finalize"):
                self._ends.callback(model.finalize)
            if not callable(getattr(model, "execute", None)):
                raise InvalidModel("model file: expected a method execute in TritonPythonModel, got none", runtime=NAME)
            self._idle.put(model)
        self._ends.callback(self._loop.close)
        self._samples = samples(config, self._folder)
        if self._samples:
            for _ in instances:
                self.warm_up()

    def _arguments(self, config: Config, instance: Instance) -> dict[str, str]:
        return {
            "model_config": json.dumps(config),
            "model_instance_kind": instance.kind,
            "model_instance_name": instance.name,
            "model_instance_device_id": str(instance.device),
            "model_repository": str(self._folder),
            "model_version": self._version,
            "model_name": self._name,
        }

    def warm_up(self) -> None:
        """Run the samples of the configuration."""
        for inputs in self._samples:
            if self.stream:
                list(self.stream(inputs, list(self._ports["output"]), Control()))
            else:
                self.run(inputs, list(self._ports["output"]), Control())

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str], control: Control) -> dict[str, Any]:
        request = self._request(inputs, outputs, Channel(control))
        model = self._take(control)
        try:
            answers = model.execute([request])
            if inspect.iscoroutine(answers):
                answers = self._finish(answers, control)
            request._channel.end(None)
            response = self._response(answers, request._channel)
        finally:
            self._give_back(model)
        return self._outputs(response)

    def _stream(self, inputs: Mapping[str, Any], outputs: Sequence[str], control: Control) -> Iterator[dict[str, Any]]:
        """The responses to one request of a model that may give any number, as they come; its `execute` runs on a thread of its own meanwhile."""
        channel = Channel(control, AHEAD)
        request = self._request(inputs, outputs, channel)
        model = self._take(control)
        self._held.number -= 1
        with self._gone:
            self._going += 1
        try:
            threading.Thread(target=self._execute, args=(model, [request]), name=f"{NAME}:{self._name}", daemon=True).start()
        except RuntimeError:
            # No thread could be had: the model is another request's then.
            self._give_back(model)
            with self._gone:
                self._going -= 1
                self._gone.notify_all()
            raise
        # The model alone decides how long its response sender lives.
        del request
        for response in channel.sent():
            yield self._outputs(response)

    def _execute(self, model: Any, requests: list[Any]) -> None:
        channel, failed = requests[0]._channel, None
        self._held.number = 1
        try:
            answers = model.execute(requests)
            if inspect.iscoroutine(answers):
                answers = self._finish(answers, channel.control)
            if answers is not None and list(answers) != [None]:
                raise self._wrong(f"expected None of a decoupled model, got {type(answers).__name__}")
            if not channel.taken:
                raise self._wrong("expected responses by the request's response sender, which was not asked for")
        except BaseException as error:  # noqa: BLE001 - whatever it is, who reads the responses raises it
            failed = error
        requests.clear()
        self._give_back(model)
        channel.end(failed)
        del model
        with self._gone:
            self._going -= 1
            self._gone.notify_all()
            last = self._leaving and not self._going
        if last:
            self._ends.close()

    def _request(self, inputs: Mapping[str, Any], outputs: Sequence[str], channel: Channel) -> Any:
        self._check_batch(inputs)
        known = self._ports["input"]
        tensors = [Tensor._lent(name, turned(value, known[name], inward=True), self._read_only) for name, value in inputs.items()]
        return self._request_type._asked(self._name, self._version, tensors, outputs, channel)

    def _outputs(self, response: InferenceResponse) -> dict[str, Any]:
        error = response.error()
        if error is not None:
            raise error._typed(self._name)
        given = self._ports["output"]
        names = [one.name() for one in response.output_tensors()]
        if twice := next((name for name in names if name in given and names.count(name) > 1), None):
            raise RunFailed(f"model '{self._name}': output '{twice[:96]}' is there twice", runtime="triton-python", output=twice[:96])
        return {one.name(): turned(one._output(), given[one.name()], inward=False) for one in response.output_tensors() if one.name() in given}

    def _check_batch(self, inputs: Mapping[str, Any]) -> None:
        if not self._most:
            return
        sizes = {name: value.shape[0] for name, value in inputs.items()}
        for name, size in sizes.items():
            if size > self._most or size != next(iter(sizes.values())):
                expected = f"at most {self._most}" if size > self._most else f"{next(iter(sizes.values()))} as for '{next(iter(sizes))}'"
                raise ShapeMismatch(f"input '{name}': expected a batch of {expected}, got {size}", input=name, max_batch_size=self._most)

    def _take(self, control: Control) -> Any:
        """An instance for this thread; who has one does not wait for another."""
        held = getattr(self._held, "number", 0)
        while True:
            try:
                model = self._idle.get(block=not held, timeout=LOOK if control.stoppable else None)
                self._held.number = held + 1
                return model
            except queue.Empty as error:
                if held:
                    message = f"model '{self._name}' called itself within a run, and all its {self.workers} instances are at work: it would wait for ever"
                    raise WrongState(message) from error
                if control.stopped:
                    raise ClientCancelled("the run was cancelled before an instance was idle") from error

    def _give_back(self, model: Any) -> None:
        self._held.number -= 1
        self._idle.put(model)

    def _response(self, answers: Any, channel: Channel) -> InferenceResponse:
        """The one response to the one request that was given, whichever way it takes."""
        if channel.taken and (answers is None or (isinstance(answers, list | tuple) and list(answers) == [None])):
            sent = list(channel.sent())
            if len(sent) == 1:
                return sent[0]
            raise self._wrong(f"expected one response to a request, got {len(sent)} by its response sender")
        if not isinstance(answers, list | tuple):
            raise self._wrong(f"expected a list of 1 InferenceResponse, got {type(answers).__name__}")
        if len(answers) != 1 or not isinstance(answers[0], InferenceResponse):
            raise self._wrong(f"expected a list of 1 InferenceResponse, got one of {len(answers)}: {', '.join(type(one).__name__ for one in answers[:8])}")
        return answers[0]

    def _wrong(self, message: str) -> RunFailed:
        return RunFailed(f"model '{self._name}': execute: {message}", runtime=NAME)

    def _finish(self, work: Coroutine[Any, Any, Any], control: Control) -> Any:
        """What a coroutine gives, on the event loop of the model."""
        return self._loop.finish(work, control)

    def close(self) -> None:
        """End the instances, each by its own `finalize`, and forget the model's modules; never beside an `execute`."""
        with self._gone:
            if not self._gone.wait_for(lambda: not self._going, PATIENCE):
                self._leaving = True
                return
        self._ends.close()
