from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias, final

import numpy as np
import numpy.typing as npt

from nnrp.model import Session, TensorSpec

class SupportsDLPack(Protocol):
    def __dlpack__(self, *, stream: None = ...) -> Any: ...

TensorLike: TypeAlias = npt.ArrayLike | SupportsDLPack | Tensor
Inputs: TypeAlias = Mapping[str, TensorLike | None]
Outputs: TypeAlias = dict[str, npt.NDArray[Any]]
Parameters: TypeAlias = Mapping[str, bool | int | float | str]

VERSION: str

def inspect(path: str | PathLike[str]) -> dict[str, Any]: ...

@final
class Engine:
    def __new__(cls, *, queue_capacity: int | None = None, workers: int | None = None, inline_limit_us: int | None = None) -> Self: ...
    def load(
        self,
        path: str | PathLike[str],
        name: str | None = None,
        version: str | None = None,
        runtime: str = "onnxruntime",
        options: Mapping[str, Any] | None = None,
    ) -> Model: ...
    def unload(self, name: str, version: str | None = None) -> None: ...
    def model(self, name: str, version: str | None = None) -> Model: ...
    def models(self) -> list[Model]: ...
    def infer(
        self,
        name: str,
        inputs: Inputs,
        outputs: Sequence[str] | None = None,
        *,
        version: str | None = None,
        timeout: float | None = None,
        id: str | None = None,
        parameters: Parameters | None = None,
    ) -> Outputs: ...
    def runtimes(self) -> list[dict[str, Any]]: ...
    @property
    def ready(self) -> bool: ...
    def drain(self) -> None: ...

@final
class Model:
    def __call__(self, *args: TensorLike | None, **kwargs: TensorLike | None) -> Outputs: ...
    def infer(
        self,
        inputs: Inputs,
        outputs: Sequence[str] | None = None,
        *,
        timeout: float | None = None,
        id: str | None = None,
        parameters: Parameters | None = None,
    ) -> Outputs: ...
    async def infer_async(
        self,
        inputs: Inputs,
        outputs: Sequence[str] | None = None,
        *,
        timeout: float | None = None,
        id: str | None = None,
        parameters: Parameters | None = None,
    ) -> Outputs: ...
    def _start(
        self,
        inputs: Inputs,
        outputs: Sequence[str] | None,
        timeout: float | None,
        id: str | None,
        parameters: Parameters | None,
        deliver: Callable[[Outputs | None, Exception | None], object],
    ) -> Outputs | Callable[[], None]: ...
    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...
    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...
    @property
    def session(self) -> Session | None: ...
    @property
    def engine(self) -> Engine | None: ...
    def metadata(self) -> dict[str, Any]: ...
    def statistics(self) -> dict[str, Any]: ...

@final
class Client:
    def __new__(cls, url: str) -> Self: ...
    def models(self) -> list[dict[str, str]]: ...
    def model(self, name: str, version: str | None = None) -> Model: ...
    def metadata(self, model: str | None = None, version: str | None = None) -> dict[str, Any]: ...
    def live(self) -> bool: ...
    def ready(self, model: str | None = None, version: str | None = None) -> bool: ...

@final
class Server:
    def __new__(
        cls,
        engine: Engine,
        *,
        host: str,
        http_port: int | None,
        grpc_port: int | None,
        threads: int,
        max_body_bytes: int,
        max_connections: int,
        queue_full_status: int,
    ) -> Self: ...
    @property
    def http_url(self) -> str | None: ...
    @property
    def grpc_url(self) -> str | None: ...
    @property
    def engine(self) -> Engine: ...
    def stop(self, grace: float = 10.0) -> None: ...
    def wait(self, timeout: float | None = None) -> bool: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

@final
class Tensor:
    def __new__(cls, datatype: str, shape: Sequence[int], data: TensorLike | Sequence[str | bytes]) -> Self: ...
    @property
    def datatype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    def tobytes(self) -> bytes: ...
    def numpy(self) -> npt.NDArray[Any]: ...
    def __dlpack__(
        self,
        *,
        stream: None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...
    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> np.ndarray[Any, Any]: ...
