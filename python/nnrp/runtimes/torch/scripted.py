"""Modules that ``torch.jit`` saved: they know the names of their inputs, and no datatypes and dimensions, which the description must say."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from nnrp.errors import InvalidModel, NotOffered
from nnrp.runtimes import declared
from nnrp.runtimes.contract import ModelSpec
from nnrp.runtimes.torch.session import FAILURES, said
from nnrp.runtimes.torch.types import DATATYPES, NUMBERS, Port

#: Operations that read or write files of their own choice, as graphs and as texts have them: however they are spaced, and by the name of an attribute.
_FILES = {"aten::from_file", "aten::save"}
_WRITTEN = re.compile(rb"\.\s*(?:(from_file|save)\b|#|\\\r?\n)")
_NAMED = re.compile(rb"""["'](from_file|save)["']|,\s*(?:["'][^"'\\\n]*\\[^"'\n]*["']\s*\)|#|\\\r?\n)""")
#: Nodes whose code is another's, which is not seen: what it writes to is not known.
_UNSEEN = {"prim::CallMethod", "prim::CallFunction", "prim::fork", "prim::awaitable"}


class Scripted(NamedTuple):
    """A module, ready to be called."""

    call: Callable[..., Sequence[Any]]
    inputs: list[Port]
    outputs: list[Port]
    stateful: bool
    tensors: list[Any]


def read(torch: Any, content: bytes, device: str) -> Any:
    """Read a module, whose code is looked at before: some of it runs as it is read.

    Raises:
        InvalidModel: PyTorch cannot.
        NotOffered: it opens files of its own choice.
    """
    import warnings

    _check_code(torch, content)
    try:
        # It warns of being superseded, which whoever has such a file cannot help.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.jit.load(io.BytesIO(content), map_location=device).eval()
    except FAILURES as error:
        raise InvalidModel(f"model file: torch cannot read it: {said(error)}", runtime="torch") from error


def _check_code(torch: Any, content: bytes) -> None:
    """Refuse code that opens files, all of which is there as text, also what no graph of `forward` shows."""
    try:
        archive = torch._C.PyTorchFileReader(io.BytesIO(content))
        names = archive.get_all_records()
    except FAILURES as error:
        raise InvalidModel(f"model file: torch cannot read it: {said(error)}", runtime="torch") from error
    if "model.json" in names:
        raise NotOffered("model file: expected TorchScript of PyTorch 1.4 or newer, got an older one", runtime="torch", format="torchscript")
    for name in names:
        if name.lower().startswith("code/") and name.lower().endswith(".py"):
            text = archive.get_record(name)
            if found := _WRITTEN.search(text) or (b"getattr" in text and _NAMED.search(text)):
                what = (found[1] or b"a name that is spelled otherwise than PyTorch spells it").decode()
                raise NotOffered(f"model file: it uses {what}, which opens files of its own choice", runtime="torch", format="torchscript")


def prepare(torch: Any, module: Any, spec: ModelSpec) -> Scripted:
    """Put together what the module tells of itself and what the description says.

    Raises:
        InvalidOption: they do not fit.
        NotOffered: it takes or gives what is no tensor.
    """
    schema = module.forward.schema
    graph = module.graph.copy()
    torch._C._jit_pass_inline(graph)
    nodes = list(_nodes(graph))
    if files := _FILES & {node.kind() for node in nodes}:
        raise NotOffered(f"model file: it uses {min(files)}, which opens files of its own choice", runtime="torch", format="torchscript")
    aliases = graph.alias_db()
    unseen = bool(_UNSEEN & {node.kind() for node in nodes})
    written = [unseen or aliases.has_writers(value) for value in list(graph.inputs())[1:]]
    arguments = schema.arguments[1:]
    told = declared.said(spec, "inputs", [argument.name for argument in arguments])
    ports = [_input(argument, told.get(argument.name), copied) for argument, copied in zip(arguments, written, strict=True)]
    stateful = unseen or any(node.kind() == "prim::SetAttr" for node in nodes)
    stateful = stateful or any(aliases.has_writers(node.output()) for node in nodes if node.kind() == "prim::GetAttr")
    constants = [node.t("value") for node in nodes if node.kind() == "prim::Constant" and node.hasAttribute("value") and node.kindOf("value") == "t"]
    tensors = [*module.parameters(), *module.buffers(), *constants]
    outputs = said_of(spec, "outputs")
    return Scripted(_caller(module, arguments, ports, [port.name for port in outputs]), ports, outputs, stateful, tensors)


def said_of(spec: ModelSpec, side: str) -> list[Port]:
    """Give what the description says of the inputs or the outputs, of which such a file tells nothing.

    Raises:
        InvalidOption: it says nothing.
    """
    return [Port(*one) for one in declared.ports("torch", spec, side, DATATYPES)]


def _nodes(block: Any) -> Any:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


def _input(argument: Any, told: declared.Said | None, copied: bool) -> Port:
    name, kind = argument.name, str(argument.type)
    optional = argument.has_default_value() or kind.startswith("Optional[")
    plain = kind.removeprefix("Optional[").removesuffix("]")
    number = {"int": int, "float": float, "bool": bool}.get(plain)
    if number is not None:
        return Port(name, NUMBERS[number], [], optional, number)
    if plain != "Tensor":
        raise NotOffered(f"model file: the input '{name[:96]}' is of type {kind[:96]}, which torch does not offer here", runtime="torch", format="torchscript")
    datatype = declared.datatype("torch", f"inputs['{name[:96]}']", told, DATATYPES)
    return Port(name, datatype, told.shape if told else None, optional, copied=copied)


def _caller(module: Any, arguments: Sequence[Any], ports: Sequence[Port], outputs: Sequence[str]) -> Callable[..., Sequence[Any]]:
    """Give what calls the module, and gives its results in a row: by their names where it gives those, else by their places."""
    forward, names = module.forward, [argument.name for argument in arguments]

    def row(answer: Any) -> Sequence[Any]:
        if isinstance(answer, dict) and answer.keys() == set(outputs):
            answer = tuple(answer[name] for name in outputs)
        return flat(answer)

    if not any(port.optional for port in ports):
        return lambda *given: row(forward(*given))
    return lambda *given: row(forward(**{name: value for name, value in zip(names, given, strict=True) if value is not None}))


def flat(answer: Any) -> Sequence[Any]:
    """Give results in a row, however they are nested."""
    if isinstance(answer, dict):
        return flat(tuple(answer.values()))
    if not isinstance(answer, tuple | list):
        return (answer,)
    if any(isinstance(one, tuple | list | dict) for one in answer):
        return [leaf for one in answer for leaf in flat(one)]
    return answer
