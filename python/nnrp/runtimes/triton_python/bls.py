"""Requests of a model to other models of its engine: what Triton calls business logic scripting."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from nnrp import _nnrp
from nnrp.errors import ModelNotFound, NnrpError, WrongState
from nnrp.model import Model
from nnrp.runtimes.contract import Control
from nnrp.runtimes.triton_python.message import Channel, InferenceResponse, PreferredMemory, Request, TritonError
from nnrp.runtimes.triton_python.tensor import Tensor, TritonModelException

if TYPE_CHECKING:
    from nnrp.engine import Engine


class InferenceRequest(Request):
    """A request to another model.

    Args:
        request_id: an id for logs and errors.
        correlation_id: 0; sequences are not offered.
        inputs: the tensors.
        requested_output_names: the outputs wanted.
        model_name: which model.
        model_version: which version; -1 is the latest.
        flags: 0; sequences are not offered.
        timeout: microseconds after which nobody wants the answer; 0 is never.
        preferred_memory: taken, and of no consequence: answers are in CPU memory.
        trace: taken, and of no consequence.
        parameters: the other model's own, by name, or as JSON.
    """

    _engine: ClassVar[Callable[[], Engine | None]]
    _own: ClassVar[str]

    def __init__(
        self,
        request_id: str = "",
        correlation_id: int | str = 0,
        inputs: Sequence[Tensor] = (),
        requested_output_names: Sequence[str] = (),
        model_name: str = "",
        model_version: int = -1,
        flags: int = 0,
        timeout: int = 0,
        preferred_memory: PreferredMemory | None = None,
        trace: object = None,
        parameters: Mapping[str, Any] | str | None = None,
    ) -> None:
        if not model_name or any(not isinstance(one, Tensor) for one in inputs):
            raise TritonModelException("InferenceRequest: expected model_name, and inputs that are tensors")
        if correlation_id or flags:
            raise TritonModelException("InferenceRequest: correlation_id, flags: sequences are not offered")
        given = parameters if isinstance(parameters, str) else json.dumps(dict(parameters or {}))
        version = "" if model_version < 0 else str(model_version)
        super().__init__(model_name, version, inputs, requested_output_names, Channel(Control(id=request_id or None, parameters=given)))
        self._timeout = timeout

    def timeout(self) -> int:
        """Tell after how many microseconds nobody wants the answer."""
        return self._timeout

    def exec(self, decoupled: bool = False) -> Any:
        """Ask, and wait for the answer, which may be an error; with `decoupled` an iterator over the answers, of which the last may be an error."""
        if decoupled:
            return self._several()
        try:
            return self._answer(Model.infer(self._target(), **self._words()))
        except NnrpError as error:
            return InferenceResponse(error=TritonError._of(error))

    async def async_exec(self, decoupled: bool = False) -> Any:
        """Ask without blocking the event loop; as `exec`."""
        if decoupled:
            return self._several()
        try:
            return self._answer(await Model.infer_async(self._target(), **self._words()))
        except NnrpError as error:
            return InferenceResponse(error=TritonError._of(error))

    def _several(self) -> Iterator[InferenceResponse]:
        try:
            if self._model == type(self)._own:
                raise WrongState(f"model '{self._model}' asked itself for a stream: it would wait for ever", model=self._model)
            for answer in Model.stream(self._target(), **self._words()):
                yield self._answer(answer)
        except NnrpError as error:
            yield InferenceResponse(error=TritonError._of(error))

    def _target(self) -> Any:
        engine = type(self)._engine()
        if engine is None:
            raise ModelNotFound(f"model '{self._model}' is not there: the engine of the model that asks is gone", model=self._model)
        # Not a whole Model, as in Engine.infer.
        return _nnrp.Model(engine, self._model, self._version, (), ())

    def _words(self) -> dict[str, Any]:
        timeout = self._timeout / 1e6 if self._timeout else None
        inputs = {one.name(): one._output() for one in self._inputs}
        return {"inputs": inputs, "outputs": self._outputs or None, "timeout": timeout, "id": self._control.id, "parameters": self._control.parameters}

    @staticmethod
    def _answer(outputs: Mapping[str, Any]) -> InferenceResponse:
        return InferenceResponse([Tensor._lent(name, value) for name, value in outputs.items()])
