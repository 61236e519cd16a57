"""Checks of what a runtime tells of itself, and of what it refuses to load."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from nnrp import _nnrp
from nnrp.errors import InvalidOption, NnrpError
from nnrp.testing.claims import Failed, NotApplicable, check, refused, told, typed
from nnrp.testing.subject import Subject

_UNKNOWN = "nnrp_conform_no_such_option"
_NOWHERE = "nowhere:7"
_BAD: tuple[Any, ...] = ({"no": "value"}, ["no value"], "no value", -1.5, None)
_NO_MODEL = ("INVALID_MODEL", "LOAD_FAILED", "NOT_OFFERED")


@check("contract.info", "8.1", "it tells name, version, formats and devices without a model")
def _info(subject: Subject) -> str:
    about = subject.about
    if "error" in about:
        raise Failed("a runtime that can be used", about["error"])
    if not about["version"]:
        raise Failed("a version", "none")
    for key in ("formats", "devices"):
        if not isinstance(about[key], list) or not all(one and isinstance(one, str) for one in about[key]):
            raise Failed(f"{key} as a list of texts", about[key])
    if not about["devices"]:
        raise Failed("a device at least", "none")
    return f"{subject.name} {about['version']} on {', '.join(about['devices'])}"


@check("contract.schema", "8.3", "its options are a JSON Schema")
def _schema(subject: Subject) -> None:
    schema = subject.about.get("options")
    if not isinstance(schema, dict):
        raise Failed("a JSON Schema", schema)
    try:
        _nnrp.check_options(subject.name, json.dumps(schema), "{}")
    except NnrpError as error:
        # An option that must be there is missing, which it says as it should.
        if error.code != "INVALID_ARGUMENT":
            raise Failed("a JSON Schema", told(error)) from error


@check("contract.settings", "8.6", "a session tells the device and the precision that hold")
def _settings(subject: Subject) -> str:
    session: Any = subject.load("affine").session
    if session.device in ("", "auto"):
        raise Failed("the device that runs it", repr(session.device))
    if "precision" not in session.settings:
        raise Failed("'precision' among the settings", ", ".join(session.settings) or "none")
    if session.settings["precision"] != "strict":
        raise Failed("precision 'strict', unless another is asked for", session.settings["precision"])
    return f"{session.device}, {session.settings['precision']}"


@check("contract.precision", "8.6", "another precision is honoured and told, or refused")
def _precision(subject: Subject) -> str:
    honoured = []
    for precision in ("bf16", "fp16", "int8"):
        try:
            session: Any = subject.load("affine", precision=precision).session
        except NnrpError as error:
            typed(error)
            if error.reason not in ("NOT_OFFERED", "INVALID_OPTION"):
                raise Failed("NOT_OFFERED or INVALID_OPTION", told(error)) from error
            continue
        if session.settings.get("precision") != precision:
            raise Failed(f"precision '{precision}' or NOT_OFFERED", f"a model with {session.settings.get('precision')!r}")
        honoured.append(precision)
    return f"honoured: {', '.join(honoured)}" if honoured else "refused: all"


@check("contract.unknown_option", "8.3", "an option that it does not have is UNKNOWN_OPTION")
def _unknown_option(subject: Subject) -> None:
    refused(["UNKNOWN_OPTION"], lambda: subject.load("affine", options={_UNKNOWN: 1}))


@check("contract.bad_value", "8.3", "a bad value of an option is INVALID_OPTION")
def _bad_value(subject: Subject) -> str:
    bad = list(_bad_values(subject))
    if not bad:
        raise NotApplicable("it has no option that refuses a value")
    for name, value in bad:
        refused(["INVALID_OPTION"], partial(subject.load, "affine", options={name: value}))
    return f"{len(bad)} options"


def _bad_values(subject: Subject) -> Iterator[tuple[str, Any]]:
    """An option and a value that its schema does not have, for every option."""
    for name, schema in subject.about["options"].get("properties", {}).items():
        alone = json.dumps({"type": "object", "properties": {name: schema}})
        for value in _BAD:
            try:
                _nnrp.check_options(subject.name, alone, json.dumps({name: value}))
            except InvalidOption:
                yield name, value
                break


@check("contract.device", "8.3", "a device that is not there is DEVICE_NOT_FOUND")
def _device(subject: Subject) -> None:
    refused(["DEVICE_NOT_FOUND"], lambda: subject.load("affine", device=_NOWHERE))


@check("contract.absent_file", "8.5", "a file that is not there is FILE_NOT_FOUND")
def _absent(subject: Subject) -> None:
    for suffix in subject.files():
        try:
            model = subject.load("affine", path=subject.folder / "absent" / f"model{suffix}")
        except NnrpError as error:
            # The caller's own words may be repeated to the caller, in the same process.
            if error.reason != "FILE_NOT_FOUND":
                raise Failed("FILE_NOT_FOUND", told(error)) from error
        else:
            raise Failed("FILE_NOT_FOUND", model)


@check("contract.empty_file", "8.5", "an empty file is refused, without its path")
def _empty(subject: Subject) -> str:
    return _no_model(subject, lambda whole: [b""])


@check("contract.truncated_file", "8.5", "a file that is cut off is refused, without its path")
def _truncated(subject: Subject) -> str:
    return _no_model(subject, lambda whole: [whole[: len(whole) * part // 4] for part in (1, 2, 3)])


@check("contract.random_file", "8.5", "a file of random bytes is refused, without its path")
def _random(subject: Subject) -> str:
    return _no_model(subject, lambda whole: [np.random.default_rng(seed).bytes(4096) for seed in range(3)])


def _no_model(subject: Subject, spoilt: Callable[[bytes], list[bytes]]) -> str:
    found = dict[str, None]()
    for suffix, file in subject.files().items():
        for number, content in enumerate(spoilt(file.read_bytes())):
            path = subject.folder / f"no-model-{number}{suffix}"
            path.write_bytes(content)
            found[refused(_NO_MODEL, partial(subject.load, "affine", path=path)).reason] = None
    return ", ".join(found)
