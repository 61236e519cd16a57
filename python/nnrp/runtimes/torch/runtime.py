"""What the runtime ``torch`` tells of itself, and what it does with each kind of file."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

from nnrp.errors import DeviceNotFound, InvalidModel, InvalidOption, NnrpError, NotOffered
from nnrp.runtimes import package
from nnrp.runtimes.contract import ModelSpec
from nnrp.runtimes.cores import cores, option
from nnrp.runtimes.torch.session import FAILURES, Program, said
from nnrp.runtimes.torch.types import quieten

#: The precisions that are not the model's own → what arithmetic is done in.
NARROW = {"bf16": "bfloat16", "fp16": "float16"}


class Torch:
    """Loads what PyTorch saved."""

    name = "torch"
    formats = ("torchscript", "pt2")

    def info(self) -> dict[str, Any]:
        torch = package.load(self.name, "torch")
        properties = {
            "model": {"type": "string", "description": "which model of the archive; needed where it has several"},
            "threads": option("threads of each run"),
            "check_sizes": {"type": "boolean", "default": True, "description": "a package of AOTInductor checks its inputs; most such refuse a size of one"},
            "allow_pickle": {"type": "boolean", "default": False, "description": "opens a file with a pickle in it, which runs whatever its maker wrote"},
            "allow_code": {"type": "boolean", "default": False, "description": "opens a package of AOTInductor, which is machine code of its maker's"},
        }
        schema = {"type": "object", "properties": properties, "additionalProperties": False}
        return {"version": torch.__version__, "formats": self.formats, "devices": _devices(torch), "options": schema}

    def load(self, spec: ModelSpec) -> Program:
        torch = package.load(self.name, "torch")
        quieten(torch)
        device = _device(torch, spec.device)
        words: dict[str, Any] = {"device": device, "autocast": _autocast(torch, spec.precision), "threads": spec.options.get("threads", cores())}
        settings = {"precision": spec.precision if spec.precision in NARROW else "strict", "threads": words["threads"]}
        load = {"torchscript": _scripted, "pt2": _archived}.get(spec.format or "", _pickled)
        return load(torch, spec, settings, words)


def _devices(torch: Any) -> list[str]:
    """The devices, the first choice first."""
    return [*(f"cuda:{index}" for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)), "cpu"]


def _device(torch: Any, wanted: str) -> str:
    there = _devices(torch)
    device = there[0] if wanted == "auto" else wanted
    if device not in there:
        raise DeviceNotFound(f"device '{wanted[:96]}' is not there; available to torch: {', '.join(there)}", runtime="torch", available=there)
    if device != "cpu":
        # Products in TF32 are not the model's own type.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return device


def _autocast(torch: Any, precision: str) -> Any:
    if precision in ("strict", "fast"):
        return None
    if precision not in NARROW:
        raise NotOffered(f"precision {precision}: torch offers strict, bf16 and fp16; of anything else the model itself must be made", runtime="torch")
    return getattr(torch, NARROW[precision])


def _scripted(torch: Any, spec: ModelSpec, settings: dict[str, Any], words: dict[str, Any]) -> Program:
    from nnrp.runtimes.torch import scripted
    from nnrp.runtimes.torch.types import places

    module = scripted.read(torch, Path(spec.path).read_bytes(), words["device"])
    ready = scripted.prepare(torch, module, spec)
    settings |= {"kind": "torchscript", "stateful": ready.stateful}
    return Program(torch, ready.call, ready.inputs, ready.outputs, settings=settings, stateful=ready.stateful, kept=places(ready.tensors), **words)


def _archived(torch: Any, spec: ModelSpec, settings: dict[str, Any], words: dict[str, Any]) -> Program:
    from nnrp.runtimes.torch.archive import Archive, check_plain

    try:
        archive = Archive(Path(spec.path).read_bytes())
        if archive.compiled and not spec.options.get("allow_code"):
            message = "model file: machine code of its maker's, which runs when it is opened: expected none, or the option allow_code"
            raise InvalidModel(message, runtime="torch", format="pt2")
        if not spec.options.get("allow_pickle"):
            check_plain(torch, archive)
        name = _model(sorted({*archive.models, *archive.compiled}), spec.options.get("model"))
    except NnrpError:
        raise
    except (*FAILURES, OSError, zipfile.BadZipFile, json.JSONDecodeError) as error:
        raise InvalidModel(f"model file: torch cannot read it: {said(error)}", runtime="torch") from error
    return (_compiled if name in archive.compiled else _exported)(torch, spec, archive, name, settings, words)


def _model(there: list[str], wanted: str | None) -> str:
    if not there:
        raise InvalidModel("model file: expected an exported program of PyTorch 2.8 or newer, got none", runtime="torch", format="pt2")
    if wanted is None and (len(there) == 1 or "model" in there):
        return there[0] if len(there) == 1 else "model"
    if wanted in there:
        return wanted
    listed = ", ".join(f"'{one[:96]}'" for one in there[:16])
    got = "none" if wanted is None else f"'{wanted[:96]}'"
    raise InvalidOption(f"option 'model': expected one that the archive has, got {got}; it has {listed}", models=there[:16])


def _exported(torch: Any, spec: ModelSpec, archive: Any, name: str, settings: dict[str, Any], words: dict[str, Any]) -> Program:
    from nnrp.runtimes.torch import exported
    from nnrp.runtimes.torch.types import places

    ready = exported.prepare(torch, exported.read(archive, name), words["device"])
    settings |= {"kind": "exported", "stateful": ready.stateful, "dimensions": ready.dims.told}
    words |= {"stateful": ready.stateful, "kept": places(ready.tensors), "why": ready.dims.check}
    return Program(torch, ready.call, ready.inputs, ready.outputs, settings=settings, **words)


def _compiled(torch: Any, spec: ModelSpec, archive: Any, name: str, settings: dict[str, Any], words: dict[str, Any]) -> Program:
    from nnrp.runtimes.torch import compiled

    if words["autocast"]:
        raise NotOffered(f"precision {spec.precision}: a package of AOTInductor computes in what it was compiled for", runtime="torch")
    if "threads" in spec.options:
        raise InvalidOption("option 'threads': a package of AOTInductor has as many as it was compiled with: expected none", runtime="torch")
    del words["threads"], settings["threads"]
    ready = compiled.load(torch, spec, name, words["device"])
    # A package does not tell whether it remembers something.
    return Program(torch, ready.call, ready.inputs, ready.outputs, settings=settings | {"kind": "aotinductor"}, stateful=True, **words)


def _pickled(torch: Any, spec: ModelSpec, settings: dict[str, Any], words: dict[str, Any]) -> Program:
    """A module as `torch.save` keeps it: a pickle, whose classes must be there to be imported."""
    from nnrp.runtimes.torch import scripted

    if not _is_pickle(Path(spec.path)):
        raise InvalidModel("model file: expected TorchScript, an exported program or a package of AOTInductor, got none of them", runtime="torch")
    if not spec.options.get("allow_pickle"):
        message = "model file: a pickle runs whatever its maker wrote when it is opened: expected none, or the option allow_pickle"
        raise InvalidModel(message, runtime="torch", format="pickle")
    try:
        module = torch.load(spec.path, map_location=words["device"], weights_only=False)
    except (*FAILURES, OSError, ImportError, EOFError, pickle.UnpicklingError) as error:
        raise InvalidModel(f"model file: torch cannot read it: {said(error)}", runtime="torch") from error
    if not isinstance(module, torch.nn.Module):
        raise InvalidModel(f"model file: expected a module, got {type(module).__name__}, which is no model by itself", runtime="torch", format="pickle")
    module.eval()
    inputs, outputs = [port._replace(copied=True) for port in scripted.said_of(spec, "inputs")], scripted.said_of(spec, "outputs")
    # Nobody can tell what a module in Python does: one call at a time, and nothing of its own is given away.
    return Program(torch, lambda *given: scripted.flat(module(*given)), inputs, outputs, settings=settings | {"kind": "pickle"}, stateful=True, **words)


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(2)
    if head == b"PK":
        return zipfile.is_zipfile(path) and any(name.endswith("data.pkl") for name in zipfile.ZipFile(path).namelist())
    return head in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
