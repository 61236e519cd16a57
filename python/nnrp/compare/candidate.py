"""Who takes part: every model file with every runtime at every precision, as far as they go together."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nnrp import runtimes
from nnrp.errors import InvalidOption, NnrpError

PRECISIONS = ("strict", "bf16", "fp16", "int8", "fast")
_WORD = re.compile(r"(?:(?P<label>[\w.-]+)=)?(?P<runtime>[\w.-]+)(?:@(?P<device>[\w.:-]+))?")


@dataclass(frozen=True)
class Choice:
    """A runtime as the user names it: ``[LABEL=]RUNTIME[@DEVICE][{OPTIONS}]``."""

    runtime: str
    label: str = ""
    device: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """One model file, as one runtime loads it on one device at one precision."""

    name: str
    path: Path
    choice: Choice
    precision: str = "strict"

    def settings(self) -> dict[str, Any]:
        """Give the arguments for `nnrp.load`: what was asked for, and nothing else."""
        asked: dict[str, Any] = {"runtime": self.choice.runtime, "options": dict(self.choice.options)}
        if self.choice.device != "auto":
            asked["device"] = self.choice.device
        if self.precision != "strict":
            asked["precision"] = self.precision
        return asked


def choices(texts: str | Iterable[str]) -> list[Choice]:
    """Read runtimes as people write them: ``onnxruntime,fast=openvino@CPU{"NUM_STREAMS": 1}``.

    Raises:
        InvalidOption: names the place that cannot be read.
    """
    found = []
    for text in [texts] if isinstance(texts, str) else texts:
        at = 0
        while at < len(text):
            word = _WORD.match(text, at)
            if word is None:
                raise InvalidOption(f"runtimes: expected [LABEL=]RUNTIME[@DEVICE][{{OPTIONS}}], got '{text[at : at + 40]}'")
            options, at = _options(text, word.end())
            if at < len(text) and text[at] != ",":
                raise InvalidOption(f"runtimes: expected a comma after '{word[0]}', got '{text[at : at + 40]}'")
            found.append(Choice(word["runtime"], word["label"] or "", word["device"] or "auto", options))
            at += 1
    return found


def _options(text: str, at: int) -> tuple[dict[str, Any], int]:
    if not text.startswith("{", at):
        return {}, at
    try:
        options, end = json.JSONDecoder().raw_decode(text, at)
    except ValueError as error:
        raise InvalidOption(f"runtimes: expected options as one JSON object, got '{text[at : at + 40]}': {error}") from error
    except RecursionError:
        raise InvalidOption("runtimes: expected options as one JSON object, got one that is nested too deeply") from None
    return options, end


def precisions(texts: str | Iterable[str]) -> list[str]:
    """Read precisions: ``strict,bf16``.

    Raises:
        InvalidOption: there is no such precision.
    """
    found = [word.strip() for text in ([texts] if isinstance(texts, str) else texts) for word in text.split(",")]
    odd = [word for word in found if word not in PRECISIONS]
    if odd or not found:
        raise InvalidOption(f"precision: expected one of {', '.join(PRECISIONS)}, got '{odd[0] if odd else ''}'")
    return list(dict.fromkeys(found))


def plan(
    paths: Sequence[Path], chosen: Sequence[Choice], exact: Sequence[str], offered: Sequence[Mapping[str, Any]], fixed: Sequence[Candidate] = ()
) -> tuple[list[Candidate], list[str]]:
    """List the candidates, in the order of files, runtimes and precisions.

    Args:
        paths: the model files.
        chosen: the runtimes; none: every one that is installed and reads the file, that of its format first.
        exact: the precisions.
        offered: what the runtimes of this machine tell of themselves.
        fixed: candidates that take part in any case, the first of them as the reference; the others only where none is chosen.

    Returns:
        The candidates, and what was left out and why.
    """
    reads = {runtime["name"]: set(runtime["formats"]) for runtime in offered}
    installed = [runtime for runtime in offered if runtime.get("version")]
    found, notes = list(fixed), list[str]()
    for path in paths if chosen or not fixed else ():
        format = _format(path)
        turns = installed if format is None else runtimes.readers(format, installed)
        for choice in chosen or [Choice(runtime["name"]) for runtime in turns]:
            fits = format is None or choice.runtime not in reads or format in reads[choice.runtime]
            # Of several files each runtime takes those that it reads; a runtime that was asked to read the only one fails, and says why.
            if fits or (chosen and len(paths) == 1):
                found += [one for precision in exact if not _has(fixed, one := Candidate("", path, choice, precision))]
            elif chosen:
                notes.append(f"{choice.runtime} does not read {format}: '{path.name}' was left out")
    if len(found) < 2:
        told = found[0].choice.runtime if found else "none"
        raise InvalidOption(
            f"candidates: expected two or more to compare, got {len(found)} ({told}); name more runtimes, a second precision, or a second model file"
        )
    return _named(found), notes


def _has(candidates: Iterable[Candidate], wanted: Candidate) -> bool:
    """Whether it takes part already, under whatever name."""
    same = [one for one in candidates if one.path.resolve() == wanted.path.resolve() and one.precision == wanted.precision]
    return any(
        (one.choice.runtime, one.choice.device, one.choice.options) == (wanted.choice.runtime, wanted.choice.device, wanted.choice.options) for one in same
    )


def _format(path: Path) -> str | None:
    import nnrp
    from nnrp import repository

    try:
        if path.suffix == ".toml":
            path = Path(repository.find(path)[0].path)
        format: str = nnrp.inspect(path)["format"]
    except NnrpError:
        return None  # Each runtime says for itself why not.
    return format


def _named(candidates: Sequence[Candidate]) -> list[Candidate]:
    paths, many_precisions = {one.path for one in candidates}, len({one.precision for one in candidates}) > 1
    twins = Counter(path.name for path in paths)
    files = {path: path.name if twins[path.name] == 1 else f"{path.parent.name}/{path.name}" for path in paths}
    found = []
    for one in candidates:
        device = "" if one.choice.device == "auto" else f"@{one.choice.device}"
        words = [files[one.path]] * (len(files) > 1) + [one.choice.label or one.choice.runtime + device] + [one.precision] * many_precisions
        found.append(replace(one, name=" ".join(words)))
    seen: Counter[str] = Counter()
    for index, one in enumerate(found):
        seen[one.name] += 1
        if seen[one.name] > 1:
            found[index] = replace(one, name=f"{one.name} #{seen[one.name]}")
    return found


def reference(candidates: Sequence[Candidate], name: str | None) -> Candidate:
    """Find the candidate that the others are measured against: by its name, its label or runtime, or its file; default: the first.

    Raises:
        InvalidOption: nothing is called so.
    """
    for one in candidates:
        if name is None or name == one.name:
            return one
    for one in candidates:
        if name in (one.choice.label, one.choice.runtime, one.path.name, str(one.path)):
            return one
    raise InvalidOption(f"reference: expected one of {', '.join(repr(one.name) for one in candidates)}, got '{name}'")
