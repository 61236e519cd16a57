"""The runtime ``ncnn``: networks in ncnn's own two files, `.param` and `.bin`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnrp.errors import FileNotFound, InvalidModel, InvalidOption, NotOffered, RunFailed, ShapeMismatch
from nnrp.runtimes import declared, package
from nnrp.runtimes.contract import Control, ModelSpec, on_cpu
from nnrp.runtimes.cores import cores, option

#: What a matrix of ncnn's holds: its networks compute in FP32, and look words up by INT32.
DATATYPES = {"FP32": "float32", "INT32": "int32"}
MOST_RANK = 4
#: What narrows numbers to 16 bits, which ncnn does unless it is told not to.
NARROW = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_packed", "use_bf16_storage")
#: Of an input's layer, in the order of our dimensions: where it says how many channels, planes, rows and columns there are.
_SIZES = ("2", "11", "1", "0")


class Ncnn:
    """Loads `.param` files, with the `.bin` beside them."""

    name = "ncnn"
    formats = ("ncnn",)

    def info(self) -> dict[str, Any]:
        properties = {
            "weights": {"type": "string", "description": "the file of the weights, beside the .param; default: of its name, with .bin"},
            "threads": option("threads of each run; the default is the physical cores"),
        }
        schema = {"type": "object", "properties": properties, "additionalProperties": False}
        return {"version": package.version(self.name, "ncnn"), "formats": self.formats, "devices": ["cpu"], "options": schema}

    def load(self, spec: ModelSpec) -> Network:
        on_cpu(self.name, spec)
        ncnn = package.load(self.name, "ncnn")
        path = Path(spec.path)
        try:
            text = path.read_text(encoding="ascii")
        except UnicodeDecodeError as error:
            raise NotOffered("model file: expected ncnn's text, got its binary form, which has no names", runtime=self.name) from error
        _check_whole(text)
        net, threads = ncnn.Net(), spec.options.get("threads", cores())
        net.opt.num_threads = threads
        for word in NARROW:
            setattr(net.opt, word, False)
        # What ncnn finds wrong it prints, and gives a number that tells nothing.
        if net.load_param(str(path)):
            raise InvalidModel("model file: ncnn cannot read it: it is cut off, or has a layer that ncnn has not", runtime=self.name)
        if net.load_model(str(_weights(path, spec.options.get("weights")))):
            raise InvalidModel("model file: ncnn cannot read its weights: the .bin is cut off, or another network's", runtime=self.name)
        shapes = _shapes(text)
        inputs = _ports(spec, "inputs", list(net.input_names()), shapes)
        outputs = _ports(spec, "outputs", list(net.output_names()), {})
        session = Network(ncnn, net, inputs, outputs)
        session.settings = {"precision": "strict", "threads": threads}
        return session


def _check_whole(text: str) -> None:
    """Refuse a text that ends in the middle: ncnn takes what is missing of the last layer for nothing, and crashes in its first run or answers wrongly."""
    lines = text.splitlines()
    layers = (lines[1].split() or [""])[0] if len(lines) > 1 else ""
    if not text.endswith("\n") or str(len([line for line in lines[2:] if line.strip()])) != layers:
        raise InvalidModel(f"model file: it is cut off: expected {layers[:20] or 'the number of'} layers, a line each, and the last line's end", runtime="ncnn")


def _weights(path: Path, named: str | None) -> Path:
    if named is not None and Path(named).name != named:
        raise InvalidOption(f"option 'weights': expected the name of a file beside the model, got '{named[:96]}'", runtime="ncnn")
    found = path.with_name(named) if named else path.with_suffix(".bin")
    if not found.is_file():
        raise FileNotFound(f"model file: its weights: there is no '{found.name[:96]}' beside it", runtime="ncnn")
    # Those of the model's own name the host has looked at; a cache links every file into one folder.
    if not any(found.resolve().is_relative_to(home) for home in (path.parent.resolve(), path.resolve().parent)):
        raise InvalidModel("model file: expected weights in files beside it, got some outside its folder", runtime="ncnn")
    return found


def _shapes(text: str) -> dict[str, list[int]]:
    """What the text says of the inputs' shapes, by blob; nothing, mostly."""
    found = {}
    for words in (line.split() for line in text.splitlines()):
        if words[:1] == ["Input"] and len(words) > 4:
            told = dict(word.split("=", 1) for word in words[5:] if "=" in word)
            sizes = [int(told[key]) for key in _SIZES if told.get(key, "").isdigit()]
            if sizes:
                found[words[4]] = [size or -1 for size in sizes]
    return found


def _ports(spec: ModelSpec, side: str, blobs: list[str], shapes: dict[str, list[int]]) -> list[declared.Port]:
    """The file's blobs; datatypes and shapes as the description says, which knows what the file has lost, or as the file does."""
    told, found = declared.said(spec, side, blobs), list[declared.Port]()
    for blob in blobs:
        said = told.get(blob, declared.Said(None, None))
        kind = "FP32" if said.datatype is None else declared.datatype("ncnn", f"{side}['{blob[:96]}']", said, DATATYPES)
        found.append((blob, kind, shapes.get(blob) if said.shape is None else said.shape))
    return found


class Network:
    """A network that any number of threads may run, each through an extractor of its own."""

    exclusive = False
    cancellable = False
    settings: dict[str, Any]

    def __init__(self, ncnn: Any, net: Any, inputs: list[declared.Port], outputs: list[declared.Port]) -> None:
        self._ncnn, self._net, self.inputs, self.outputs = ncnn, net, inputs, outputs

    def run(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> list[Any]:
        extractor = self._net.create_extractor()
        for name, array in inputs.items():
            if not 1 <= array.ndim <= MOST_RANK or not array.size:
                message = f"input '{name[:96]}': expected 1 to {MOST_RANK} dimensions, none of them 0, as ncnn has them, got {list(array.shape)}"
                raise ShapeMismatch(message, runtime="ncnn", input=name)
            # A copy, because a matrix over somebody else's memory crashes layers that work in place.
            if extractor.input(name, self._ncnn.Mat(array).clone()):
                raise RunFailed(f"runtime ncnn: it does not take the input '{name[:96]}'", runtime="ncnn")
        return [self._extract(extractor, name) for name in outputs]

    def _extract(self, extractor: Any, name: str) -> Any:
        status, matrix = extractor.extract(name)
        if status:
            raise RunFailed(f"runtime ncnn: the output '{name[:96]}' cannot be computed: status {status}", runtime="ncnn", status=status)
        return np.array(matrix)

    def close(self) -> None:
        self._net = None
