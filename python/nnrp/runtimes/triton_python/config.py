"""What a config.pbtxt says: Triton's ModelConfig, read with protobuf's own parser of its text form (docs/decisions/0011)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from nnrp.errors import InvalidModel, RuntimeNotInstalled
from nnrp.runtimes.triton_python.fields import ENUMS, MESSAGES

FILE = "config.pbtxt"
#: More is no model's configuration.
MOST_BYTES = 1 << 20
_PACKAGE = "nnrp.triton"
_FIELD = re.compile(r"(\w+):(\d+):(\w+)(\*|\{(\w+)\}|\?(\w+))?")
_SCALARS = ("double", "float", "int64", "uint64", "int32", "bool", "string", "uint32")

Config = dict[str, Any]


def read(folder: Path) -> Config:
    """Read the config.pbtxt of a model's folder, with every field's default, as Triton writes it in JSON.

    Raises:
        InvalidModel: it is not what the message says, or too large.
        RuntimeNotInstalled: protobuf is not installed.
    """
    file, text = folder / FILE, ""
    if file.is_file():
        with file.open("rb") as opened:
            data = opened.read(MOST_BYTES + 1)
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise InvalidModel(f"{FILE}: expected text in UTF-8, got another byte at {error.start}") from error
        if len(data) > MOST_BYTES:
            raise InvalidModel(f"{FILE}: expected at most {MOST_BYTES} bytes, got more")
    message, modules = _new()
    try:
        modules["text_format"].Parse(text, message)
    except modules["text_format"].ParseError as error:
        raise InvalidModel(f"{FILE}: {error}") from error
    return _document("ModelConfig", message)


def checked(config: Mapping[str, Any]) -> Config:
    """Take what a model made of its configuration, checked against the message.

    Raises:
        InvalidModel: it has a field or a value that the message does not have.
    """
    message, modules = _new()
    try:
        modules["json_format"].ParseDict(config, message)
    except modules["json_format"].ParseError as error:
        raise InvalidModel(f"auto_complete_config: {error}") from error
    return _document("ModelConfig", message)


def filename(folder: Path) -> str:
    """Tell which file of a version's folder is the model; empty where the configuration leaves it open."""
    told: str = read(folder)["default_model_filename"]
    return told


@cache
def _classes() -> tuple[Any, Mapping[str, Any]]:
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory, text_format
    except ImportError as error:
        raise RuntimeNotInstalled("runtime 'triton-python' is not installed: pip install nnrp[triton-python]", runtime="triton-python") from error
    file = descriptor_pb2.FileDescriptorProto(name="nnrp/triton.proto", package=_PACKAGE, syntax="proto3")
    for name, values in ENUMS.items():
        # Values are named once a package, and two enumerations have some of the same.
        holder = file.message_type.add(name=f"{name}s").enum_type.add(name=name)
        for number, value in enumerate(values.split()):
            holder.value.add(name=value, number=number)
    for name, fields in MESSAGES.items():
        _describe(file.message_type.add(name=name), fields)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    made = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.ModelConfig"))
    return made, {"text_format": text_format, "json_format": json_format}


def _new() -> tuple[Any, Mapping[str, Any]]:
    made, modules = _classes()
    return made(), modules


def _describe(message: Any, fields: str) -> None:
    """Fill a message's descriptor."""
    groups: list[str] = []
    for name, number, kind, _, key, group in _parts(fields):
        field = message.field.add(name=name, number=number, label=3 if _repeated(fields, name) else 1)
        if key:
            entry = message.nested_type.add(name="".join(part.capitalize() for part in name.split("_")) + "Entry")
            entry.options.map_entry = True
            _type(entry.field.add(name="key", number=1, label=1), key)
            _type(entry.field.add(name="value", number=2, label=1), kind)
            field.type, field.type_name = 11, f".{_PACKAGE}.{message.name}.{entry.name}"
            continue
        _type(field, kind)
        if group:
            if group not in groups:
                groups.append(group)
                message.oneof_decl.add(name=group)
            field.oneof_index = groups.index(group)


def _parts(fields: str) -> Sequence[tuple[str, int, str, str, str, str]]:
    found = [_FIELD.fullmatch(field) for field in fields.split()]
    return [(m[1], int(m[2]), m[3], m[4] or "", m[5] or "", m[6] or "") for m in found if m]


def _repeated(fields: str, name: str) -> bool:
    return any(one == name and mark[:1] in ("*", "{") for one, _, _, mark, _, _ in _parts(fields))


def _type(field: Any, kind: str) -> None:
    if kind in ENUMS:
        field.type, field.type_name = 14, f".{_PACKAGE}.{kind}s.{kind}"
    elif kind in MESSAGES:
        field.type, field.type_name = 11, f".{_PACKAGE}.{kind}"
    else:
        field.type = getattr(field, f"TYPE_{kind.upper()}")


def _document(name: str, message: Any) -> Config:
    """Write a message as Triton does: every field by its own name, defaults too, but for messages that are not there; whole numbers as numbers."""
    told: Config = {}
    for field, _, kind, mark, key, group in _parts(MESSAGES[name]):
        value = getattr(message, field)
        if key:
            told[field] = {one: _value(kind, value[one]) for one in value}
        elif mark == "*":
            told[field] = [_value(kind, one) for one in value]
        elif (kind not in MESSAGES and not group) or message.HasField(field):
            told[field] = _value(kind, value)
    return told


def _value(kind: str, value: Any) -> Any:
    if kind in MESSAGES:
        return _document(kind, value)
    return ENUMS[kind].split()[value] if kind in ENUMS else value
