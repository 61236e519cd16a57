"""The runtime ``jax``: functions that `jax.export` wrote, StableHLO with a signature, compiled by XLA."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnrp.errors import DeviceNotFound, InvalidModel, LoadFailed, NotOffered, RunFailed, ShapeMismatch
from nnrp.runtimes import package
from nnrp.runtimes.contract import Control, ModelSpec
from nnrp.tensor import NAMES

#: NumPy's or ml_dtypes' name of an element type → ours. INT4 takes a byte there.
DATATYPES = {name.rpartition(".")[2]: datatype for datatype, name in NAMES.items() if datatype not in ("BYTES", "INT4", "UINT4")}
#: What reading a file that is none raises.
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, AssertionError, NotImplementedError, RuntimeError, MemoryError, struct.error)


class Jax:
    """Loads what `jax.export` wrote."""

    name = "jax"
    formats = ("jax_export",)

    def info(self) -> dict[str, Any]:
        package.version(self.name, "flatbuffers")
        return {"version": package.version(self.name, "jax"), "formats": self.formats, "devices": list(_devices())}

    def load(self, spec: ModelSpec) -> Exported:
        jax = package.load(self.name, "jax")
        export = package.load(self.name, "jax.export")
        package.version(self.name, "flatbuffers")
        device = _device(spec)
        try:
            exported = export.deserialize(bytearray(Path(spec.path).read_bytes()))
        except UNREADABLE as error:
            raise InvalidModel(f"model file: JAX cannot read it: {type(error).__name__}: {package.said(error)}", runtime=self.name) from error
        if exported.nr_devices != 1:
            raise NotOffered(f"model file: expected a function for one device, got one for {exported.nr_devices}", runtime=self.name)
        if device.platform not in [{"gpu": "cuda"}.get(one, one) for one in exported.platforms]:
            platforms = list(exported.platforms)
            message = f"device '{spec.device}': the model was exported for {', '.join(platforms)}"
            raise DeviceNotFound(message, runtime=self.name, available=platforms)
        return Exported(jax, exported, device, spec)


def _devices() -> dict[str, Any]:
    """Find the devices: the first of each platform by its name alone too."""
    jax = package.load("jax", "jax")
    try:
        there = [*jax.devices(), *jax.devices("cpu")]
    except RuntimeError as error:
        raise LoadFailed(f"runtime jax: {package.said(error)}", runtime="jax") from error
    found = {"cpu": there[-1]}
    for device in there:
        if device.platform != "cpu":
            found.setdefault(device.platform, device)
            found[f"{device.platform}:{device.id}"] = device
    return found


def _device(spec: ModelSpec) -> Any:
    there = _devices()
    device = "cpu" if spec.device == "auto" else spec.device
    if device not in there:
        raise DeviceNotFound(f"device '{device[:96]}' is not there; available to jax: {', '.join(there)}", runtime="jax", available=list(there))
    if spec.precision not in ("strict", "fast"):
        raise NotOffered(f"precision {spec.precision}: jax computes in the types that the model has", runtime="jax")
    return there[device]


class Exported:
    """A function that any number of threads may call. It is compiled at the first run of each shape."""

    exclusive = False
    cancellable = False

    def __init__(self, jax: Any, exported: Any, device: Any, spec: ModelSpec) -> None:
        tree = jax.tree_util
        args, kwargs = tree.tree_unflatten(exported.in_tree, range(exported.in_tree.num_leaves))
        inputs = [_name(path, "arg") for path, _ in tree.tree_flatten_with_path((args, kwargs))[0]]
        gives = tree.tree_unflatten(exported.out_tree, range(exported.out_tree.num_leaves))
        outputs = [_name((0, *path), "out") for path, _ in tree.tree_flatten_with_path(gives)[0]]
        self.inputs = [_spec(*one) for one in zip(inputs, exported.in_avals, strict=True)]
        self.outputs = [_spec(*one) for one in zip(outputs, exported.out_avals, strict=True)]
        self.device = "cpu" if spec.device == "auto" else spec.device
        self.settings = {"precision": "strict", "platforms": list(exported.platforms), "calling_convention": exported.calling_convention_version}

        def call(*leaves: Any) -> Any:
            args, kwargs = tree.tree_unflatten(exported.in_tree, leaves)
            return tree.tree_leaves(exported.call(*args, **kwargs))

        self._jax, self._on, self._call = jax, device, jax.jit(call)

    def run(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> dict[str, Any]:
        try:
            # Without it, what has 64 bits is narrowed to 32, silently.
            with self._jax.enable_x64(True), self._jax.default_device(self._on):
                answers = self._call(*[inputs[name] for name, *_ in self.inputs])
                # A copy, which NNRP then hands on as it is: the memory is JAX's own.
                return {name: np.array(answer) for (name, *_), answer in zip(self.outputs, answers, strict=True) if name in outputs}
        except (ValueError, TypeError, RuntimeError) as error:
            if "polymorphic shapes" in str(error):
                # Two dimensions of one name that differ, one that breaks the file's constraints, or none at all: an open dimension is 1 at least.
                raise ShapeMismatch(f"runtime jax: {package.said(error)}", runtime="jax") from error
            raise RunFailed(f"runtime jax: {package.said(error)}", runtime="jax") from error


def _name(path: Sequence[Any], word: str) -> str:
    """What a leaf is called: the keys that lead to it, where it has any; a number where it has none."""
    # The first key tells positional from named.
    keys = [getattr(key, "key", getattr(key, "idx", getattr(key, "name", key))) for key in path][1:]
    parts = [str(key) for key in keys]
    return ".".join([f"{word}{parts[0]}", *parts[1:]] if parts and isinstance(keys[0], int) else parts) or word


def _spec(name: str, aval: Any) -> tuple[str, str, list[int]]:
    kind = np.dtype(aval.dtype).name if isinstance(aval.dtype, np.dtype) else str(aval.dtype)
    if kind not in DATATYPES:
        raise NotOffered(f"model file: '{name[:96]}' is of type {kind}, which jax does not offer", runtime="jax")
    return name, DATATYPES[kind], [dim if isinstance(dim, int) else -1 for dim in aval.shape]
