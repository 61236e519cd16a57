"""What a configuration comes to: the signature, the instances, and what is asked for that this runtime does not offer."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nnrp.errors import DeviceNotFound, InvalidModel, NotOffered
from nnrp.runtimes.triton_python.config import FILE, Config

NAME = "triton-python"
_DATATYPES = {"STRING": "BYTES"}
_DEVICE = re.compile(r"cuda(?::(\d+))?")


class Port(NamedTuple):
    """An input or output.

    Attributes:
        name: its name.
        datatype: as the Open Inference Protocol calls it.
        shape: as callers see it, with the batch in front.
        optional: may be left out.
        inner: as the model sees it, without the batch, where that is another shape.
        rank: of the shape without the batch.
    """

    name: str
    datatype: str
    shape: list[int]
    optional: bool
    inner: list[int] | None
    rank: int


class Instance(NamedTuple):
    """One TritonPythonModel, as its group asks for it: its name, CPU, GPU or MODEL, and the number of the GPU."""

    name: str
    kind: str
    device: int


def ports(config: Config, side: str) -> list[Port]:
    """List the inputs or the outputs.

    Raises:
        InvalidModel: one lacks a name, a type or dimensions that make sense, or there are two of a name.
    """
    batched = config["max_batch_size"] > 0
    found = [_port(side, one, batched) for one in config[side]]
    names = [port.name for port in found]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InvalidModel(f"{FILE}: {side} '{twice[0][:96]}' is there twice")
    return found


def _port(side: str, told: Config, batched: bool) -> Port:
    name, dims, kind = told["name"], list(told["dims"]), told["data_type"].removeprefix("TYPE_")
    if not name or kind == "INVALID":
        raise InvalidModel(f"{FILE}: {side} '{name[:96]}': expected a name and a data_type, got {'no name' if not name else 'no data_type'}")
    inner = list(told["reshape"]["shape"]) if "reshape" in told else None
    for shape in (dims, inner or []):
        if any(dim < -1 or dim == 0 for dim in shape):
            raise InvalidModel(f"{FILE}: {side} '{name[:96]}': expected dimensions from 1, or -1, got {shape}")
    if inner is not None and inner.count(-1) != dims.count(-1):
        raise InvalidModel(f"{FILE}: {side} '{name[:96]}': reshape: expected as many dimensions of any size as in {dims}, got {inner}")
    if told.get("is_shape_tensor"):
        raise NotOffered(f"{FILE}: {side} '{name[:96]}': shape tensors are not offered", runtime=NAME)
    return Port(name, _DATATYPES.get(kind, kind), [-1] * batched + dims, bool(told.get("optional", False)), inner, len(dims))


def turned(array: Any, port: Port, inward: bool) -> Any:
    """Give an input the shape that the model wants, or an output the shape that callers want; as it is where both are the same."""
    if port.inner is None or not hasattr(array, "reshape"):
        return array
    batch = len(port.shape) - port.rank
    there, here = (port.shape[batch:], port.inner) if inward else (port.inner, port.shape[batch:])
    if len(array.shape) != batch + len(there):
        return array
    # Dimensions of any size stand for each other in order.
    sizes = iter([size for size, dim in zip(array.shape[batch:], there, strict=True) if dim == -1])
    shape = [next(sizes) if dim == -1 else dim for dim in here]
    try:
        return array.reshape((*array.shape[:batch], *shape))
    except ValueError:
        return array


def check(config: Config) -> None:
    """Refuse what is asked for and cannot be done.

    Raises:
        InvalidModel: it is the configuration of another back end, or says less than a model needs.
        NotOffered: this runtime does not have it.
    """
    if config["backend"] not in ("", "python") or config["platform"]:
        raise InvalidModel(f"{FILE}: expected backend 'python', got '{(config['backend'] or config['platform'])[:96]}'")
    if config["max_batch_size"] < 0:
        raise InvalidModel(f"{FILE}: max_batch_size: expected a number from 0, got {config['max_batch_size']}")
    if not config["output"]:
        raise InvalidModel(f"{FILE}: expected outputs, there or by auto_complete_config, got none")
    refused: list[str] = [name for name in ("sequence_batching", "ensemble_scheduling", "model_repository_agents") if name in config]
    refused += [name for name in ("batch_input", "batch_output", "cc_model_filenames") if config[name]]
    refused += ["parameters: EXECUTION_ENV_PATH"] * ("EXECUTION_ENV_PATH" in config["parameters"])
    if refused:
        raise NotOffered(f"{FILE}: {refused[0]}: not offered by {NAME}", runtime=NAME, field=refused[0])


def instances(config: Config, model: str, device: str) -> list[Instance]:
    """List what the groups ask for; a device that was named takes the place of theirs.

    Raises:
        DeviceNotFound: a GPU that is asked for is not there.
        InvalidModel: a count makes no sense.
    """
    found = list[Instance]()
    wanted = _DEVICE.fullmatch(device)
    if device not in ("auto", "cpu") and not wanted:
        raise DeviceNotFound(f"device '{device[:96]}' is not there; available to {NAME}: cpu, cuda:N", runtime=NAME, available=["cpu", *_names(gpus())])
    for place, group in enumerate(config["instance_group"]):
        if not 0 <= group["count"] <= 1024:
            raise InvalidModel(f"{FILE}: instance_group: expected a count from 1 to 1024, got {group['count']}")
        kind, numbers = group["kind"].removeprefix("KIND_"), list(group["gpus"])
        if wanted or device == "cpu":
            kind, numbers = ("GPU", [int(wanted[1] or 0)]) if wanted else ("CPU", [])
        elif kind == "AUTO":
            kind = "GPU" if gpus() else "CPU"
        numbers = (numbers or gpus() or [0]) if kind == "GPU" else [0]
        missing = [number for number in numbers if kind == "GPU" and number not in gpus()]
        if missing:
            message = f"device 'cuda:{missing[0]}' is not there; available to {NAME}: {', '.join(['cpu', *_names(gpus())])}"
            raise DeviceNotFound(message, runtime=NAME, available=["cpu", *_names(gpus())])
        found += [Instance(f"{model}_{place}_{number}", kind, gpu) for gpu in numbers for number in range(group["count"] or 1)]
    return found


def device_of(found: Sequence[Instance]) -> str:
    """Tell where the instances are."""
    return ",".join(dict.fromkeys(f"cuda:{one.device}" if one.kind == "GPU" else "cpu" for one in found))


def gpus() -> list[int]:
    """List the numbers of the GPUs that this process sees, as CUDA counts them: from 0, whatever the devices are called."""
    there = sum(path.name.removeprefix("nvidia").isdigit() for path in Path("/dev").glob("nvidia[0-9]*"))
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return list(range(there if chosen is None else min(there, len([one for one in chosen.split(",") if one.strip() not in ("", "-1")]))))


def _names(numbers: Sequence[int]) -> list[str]:
    return [f"cuda:{number}" for number in numbers]
