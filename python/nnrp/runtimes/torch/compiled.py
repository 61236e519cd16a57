"""Packages of AOTInductor: machine code, which computes garbage from whatever does not fit it, so what fits must be described."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from nnrp.errors import DeviceNotFound, InvalidModel, InvalidOption, LoadFailed
from nnrp.runtimes.contract import ModelSpec
from nnrp.runtimes.torch.scripted import said_of
from nnrp.runtimes.torch.session import FAILURES, said
from nnrp.runtimes.torch.types import DATATYPES, Port, datatype_of

#: Makes the code check datatypes and sizes itself, which it does only where this says so; it looks at its first run.
_CHECKS = "AOTI_RUNTIME_CHECK_INPUTS"
_OPENING = threading.Lock()
#: What these checks say: of the input, the dimension and its bound; of the input, and what else does not fit.
_BOUND = re.compile(r"input_handles\[(\d+)\]: dim value is too \w+ at (\d+), expected it to be [<>]= (\d+)")
_MISFIT = re.compile(r"input_handles\[(\d+)\]: (unmatched [^\n]*)")
_TRIES = 32


class Compiled(NamedTuple):
    """A package, ready to be called."""

    call: Callable[..., Sequence[Any]]
    inputs: list[Port]
    outputs: list[Port]


def load(torch: Any, spec: ModelSpec, name: str, device: str) -> Compiled:
    """Open a package, and try it.

    Raises:
        InvalidModel: PyTorch cannot.
        LoadFailed: it was compiled for another processor.
        DeviceNotFound: it was compiled for another device.
        InvalidOption: the description does not fit it.
    """
    # Nobody says whether the code writes to its inputs.
    ports = [port._replace(copied=True) for port in said_of(spec, "inputs")]
    results, path = said_of(spec, "outputs"), spec.path
    _check_machine(torch, path, name, device)
    with _OPENING:
        tried = _opened(path, name, device, (ports, results))
        os.environ[_CHECKS] = "1"
        _try(torch, tried, ports, results, device)
        # Another one: the first may remember that it was tried.
        run = _opened(path, name, device, (ports, results))
    return Compiled(_checking(run, spec.options.get("check_sizes", True)), ports, results)


def _checking(run: Callable[[list[Any]], Sequence[Any]], checked: bool) -> Callable[..., Sequence[Any]]:
    """Give what runs a package: whether it checks its inputs the environment says when it runs first."""
    runs = False

    def call(*given: Any) -> Sequence[Any]:
        nonlocal runs
        if runs:
            return run(list(given))
        with _OPENING:
            os.environ[_CHECKS] = "1" if checked else "0"
            runs = True
            return run(list(given))

    return call


def _opened(path: str, name: str, device: str, sides: Sequence[Sequence[Port]]) -> Callable[[list[Any]], Sequence[Any]]:
    """Open a package."""
    from torch._inductor.package import load_package
    from torch.utils import _pytree as tree

    try:
        loader = load_package(path, name, device_index=int(device.partition(":")[2] or -1)).loader
        counts = [tree.treespec_loads(text).num_leaves for text in loader.get_call_spec()]
    except (*FAILURES, OSError) as error:
        raise InvalidModel(f"model file: torch cannot open it: {said(error)}", runtime="torch") from error
    for side, ports, there in zip(("inputs", "outputs"), sides, counts, strict=True):
        if len(ports) != there:
            raise InvalidOption(f"model description: {side}: expected {there}, as many as the package has, got {len(ports)}", runtime="torch", path=side)
    run: Callable[[list[Any]], Sequence[Any]] = loader.boxed_run
    return run


def _try(torch: Any, run: Callable[[list[Any]], Sequence[Any]], ports: Sequence[Port], results: Sequence[Port], device: str) -> None:
    """Run with zeros, in sizes that the package's own checks allow, and compare what it says with the description."""
    sizes: dict[tuple[int, int], int] = {}
    answer: Sequence[Any] = ()
    for _ in range(_TRIES):
        try:
            answer = run(_zeros(torch, ports, sizes, device))
            break
        except FAILURES as error:
            bound, misfit = _BOUND.search(str(error)), _MISFIT.search(str(error))
            if misfit:
                path = f"inputs['{ports[int(misfit[1])].name[:96]}']"
                raise InvalidOption(f"model description: {path}: the package says: {misfit[2]}", runtime="torch", path=path) from error
            if not bound:
                # Sizes that go together, which zeros of any size do not know.
                return
            sizes[int(bound[1]), int(bound[2])] = int(bound[3])
    for port, value in zip(results, answer, strict=False):
        if datatype_of(torch, port.name, value.dtype) != port.datatype or len(port.shape or value.shape) != value.dim():
            got = f"{datatype_of(torch, port.name, value.dtype)} of rank {value.dim()}"
            path = f"outputs['{port.name[:96]}']"
            message = f"model description: {path}: expected what the package gives, {got}; got {port.datatype} {port.shape}"
            raise InvalidOption(message, runtime="torch", path=path)


def _zeros(torch: Any, ports: Sequence[Port], sizes: Mapping[tuple[int, int], int], device: str) -> list[Any]:
    """Zeros for each input, with two where a size is open."""
    found = []
    for place, port in enumerate(ports):
        shape = [sizes.get((place, axis), 2) if dim < 0 else dim for axis, dim in enumerate(port.shape or ())]
        found.append(torch.zeros(shape, dtype=getattr(torch, DATATYPES[port.datatype]), device=device))
    return found


def _check_machine(torch: Any, path: str, name: str, device: str) -> None:
    """Refuse code for another processor, which would end the process, and for another device."""
    try:
        told = torch._C._aoti.AOTIModelPackageLoader.load_metadata_from_package(path, name)
    except FAILURES as error:
        raise InvalidModel(f"model file: torch cannot open it: {said(error)}", runtime="torch") from error
    made = told.get("AOTI_DEVICE_KEY", "cpu")
    if made != device.partition(":")[0]:
        raise DeviceNotFound(f"device '{device}': the package was compiled for {made}", runtime="torch", available=[made])
    wanted, here = told.get("AOTI_CPU_ISA", ""), torch.backends.cpu.get_cpu_capability()
    if ("AVX512" in wanted and here != "AVX512") or ("AVX2" in wanted and here not in ("AVX2", "AVX512")):
        raise LoadFailed(f"runtime torch: the package was compiled for a processor with {wanted}, and this one has {here}", runtime="torch", wanted=wanted)
