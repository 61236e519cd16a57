"""The verdict of a comparison, kept in ``model.toml`` beside the model, so that a later move is checked against it.

What the table ``[verified]`` holds is said in docs/guide/migrate.md.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nnrp.errors import FileNotFound, InvalidOption, Malformed

from .candidate import Candidate, Choice
from .difference import Difference
from .report import Report, Result
from .run import Plan

FILE, TABLE = "model.toml", "verified"
_CHUNK = 1 << 20
_ON_A_LINE = 80


@dataclass(frozen=True)
class Pinned:
    """One entry of the table.

    Attributes:
        folder: where the file lies; all paths in it start here.
        key: the entry's name: the path of the reference's model.
        entry: what it says.
    """

    folder: Path
    key: str
    entry: Mapping[str, Any]

    def resume(self, plan: Plan, own_cases: bool = False) -> Plan:
        """Plan the comparison again: the pinned reference, cases and tolerances, and the pinned candidates unless the plan names runtimes.

        Args:
            plan: what was asked for.
            own_cases: the plan's random cases are wanted rather than the pinned ones.

        Raises:
            InvalidOption: the plan says otherwise than what is pinned.
        """
        if plan.tolerances or plan.reference:
            raise InvalidOption(f"check: tolerances and the reference are those of {FILE}; leave them out, or pin anew")
        named = {one["name"]: _candidate(one, self.folder) for one in self.entry["candidates"]}
        reference = named.pop(self.entry["reference"])
        fixed = (reference,) if plan.choices else (reference, *named.values())
        cases = self.entry["cases"]
        again = replace(plan, fixed=fixed, tolerances=dict(self.entry["tolerances"]), names=dict(plan.names) or dict(self.entry["names"]))
        if plan.inputs is not None or own_cases:
            return again
        if cases["kind"] == "files":
            return replace(again, inputs=self.folder / cases["folder"])
        shapes = {name: tuple(shape) for name, shape in cases["shapes"].items()}
        ranges = {name: (low, high) for name, (low, high) in cases["ranges"].items()}
        return replace(again, random=cases["number"], seed=cases["seed"], shapes=shapes, ranges=ranges)

    def judge(self, report: Report) -> Report:
        """Give the report with the pinned tolerances, and with what is no longer as it was."""
        now = {file: digest(self.folder / file) for file in self.entry["files"]}
        changed = [file for file, was in self.entry["files"].items() if now[file] != was]
        stale = [f"{file} is {'another file now' if now[file] else 'gone'}; what was verified had {self.entry['files'][file]}" for file in changed]
        pinned = {_identity(_candidate(one, self.folder)): one for one in self.entry["candidates"]}
        results, notes = [], list(report.notes)
        for result in report.results:
            known = pinned.get(_identity(result.candidate))
            results.append(_as_pinned(result, known) if known else result)
            version = result.session.get("version")
            if known and version and version != known["version"]:
                notes.append(f"{result.name}: {known['runtime']} is {version}, and was {known['version']} when it was verified")
        if report.cases.get("sha256") != self.entry["cases"]["sha256"]:
            notes.append("the inputs are not those that were pinned")
        return replace(report, results=tuple(results), notes=tuple(notes), stale=tuple(stale))


def read(models: Sequence[Path]) -> Pinned:
    """Find what is pinned for a model.

    Raises:
        FileNotFound: nothing is.
        Malformed: the file cannot be read.
    """
    folder, key = home(models[0])
    file = folder / FILE
    entries = _table(file).get(TABLE, {}) if file.is_file() else {}
    if not isinstance(entries, dict):
        raise Malformed(f"{FILE}: expected a table [{TABLE}], got {type(entries).__name__}")
    fitting = [name for name, entry in entries.items() if name == key or key in _files_of(entry)]
    if not fitting:
        raise FileNotFound(f"'{key}' is not pinned in {FILE}: compare it with --pin first")
    name = key if key in fitting else fitting[0]
    return Pinned(folder, name, _checked(entries[name], name))


def _files_of(entry: Any) -> Mapping[str, Any]:
    files = entry.get("files") if isinstance(entry, dict) else None
    return files if isinstance(files, dict) else {}


_FIELDS = {"reference": str, "files": dict, "names": dict, "cases": dict, "tolerances": dict, "candidates": list}
_CANDIDATE: dict[str, type] = {"name": str, "label": str, "model": str, "runtime": str, "version": str, "device": str, "precision": str, "verdict": str}
_CANDIDATE |= {"options": dict, "outputs": list}
_CASES: dict[str, dict[str, type]] = {
    "files": {"folder": str, "sha256": str},
    "random": {"number": int, "seed": int, "shapes": dict, "ranges": dict, "sha256": str},
}
_OUTPUT = {"name": str, "tolerance": (int, float)}
#: Tables of values of one kind.
_VALUES: dict[str, Callable[[Any], bool]] = {
    "files": lambda value: isinstance(value, str),
    "names": lambda value: isinstance(value, str),
    "tolerances": lambda value: isinstance(value, int | float),
    "shapes": lambda value: isinstance(value, list) and all(isinstance(size, int) for size in value),
    "ranges": lambda value: isinstance(value, list) and len(value) == 2 and all(isinstance(limit, int | float) for limit in value),
}
#: What is left out of the file where there is nothing to say.
_EMPTY: dict[str, Any] = {"names": {}, "tolerances": {}, "ranges": {}, "shapes": {}, "options": {}, "outputs": [], "label": ""}


def _checked(entry: Any, name: str) -> dict[str, Any]:
    where = f'{FILE}: [{TABLE}."{name}"]'
    told = _fields(entry, _FIELDS, where)
    told["cases"] = _fields(told["cases"], {"kind": str}, f"{where} cases")
    if told["cases"]["kind"] not in _CASES:
        raise Malformed(f"{where} cases: expected kind {' or '.join(_CASES)}, got '{told['cases']['kind']}'")
    told["cases"] = _fields(told["cases"], _CASES[told["cases"]["kind"]], f"{where} cases")
    told["candidates"] = [_fields(one, _CANDIDATE, f"{where} candidates") for one in told["candidates"]]
    for one in told["candidates"]:
        one["outputs"] = [_fields(output, _OUTPUT, f"{where} outputs") for output in one["outputs"]]
        if one["verdict"] != (made := "reference" if one["name"] == told["reference"] else _verdict(one["outputs"])):
            raise Malformed(
                f"{where}: {one['name']}: expected the verdict '{made}', which its outputs make, got '{one['verdict']:.32}'; pin it anew with --pin"
            )
    if told["reference"] not in [one["name"] for one in told["candidates"]]:
        raise Malformed(f"{where}: expected the reference '{told['reference']}' among its candidates; pin it anew with --pin")
    return told


def _verdict(outputs: Sequence[Mapping[str, Any]]) -> str:
    """What the errors that are kept come to; an output without any is of texts, which were the same."""
    if any(one.get("max_rel", 0.0) > one["tolerance"] for one in outputs):
        return "differs"
    return "within" if any(one.get("max_abs", 0.0) for one in outputs) else "same"


def _fields(value: Any, fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Malformed(f"{where}: expected a table, got {type(value).__name__}; pin it anew with --pin")
    filled = {field: empty for field, empty in _EMPTY.items() if field in fields} | value
    odd = [field for field, kind in fields.items() if not isinstance(filled.get(field), kind)]
    if odd:
        raise Malformed(f"{where}: expected '{odd[0]}' as --pin writes it; pin it anew with --pin")
    for table in fields.keys() & _VALUES.keys():
        wrong = [key for key, one in filled[table].items() if not _VALUES[table](one)]
        if wrong:
            raise Malformed(f"{where}: expected '{table}.{wrong[0]}' as --pin writes it; pin it anew with --pin")
    return filled


def write(report: Report) -> Path:
    """Keep a report in which all are the same or within tolerance; the rest of the file stays as it is.

    Returns:
        The file.

    Raises:
        InvalidOption: one differs or failed.
        Malformed: the file is there and cannot be read.
    """
    import tomlkit

    if report.status:
        raise InvalidOption("pin: expected all to be the same or within tolerance")
    reference = next(result for result in report.results if result.is_reference)
    folder, key = home(reference.candidate.path)
    file = folder / FILE
    _table(file) if file.is_file() else None
    document = tomlkit.parse(file.read_text(encoding="utf-8")) if file.is_file() else tomlkit.document()
    there: Any = document.get(TABLE, {})
    if not isinstance(there, dict):
        raise Malformed(f"{FILE}: expected a table [{TABLE}], got {type(there.unwrap()).__name__}")
    if TABLE not in document or isinstance(there, tomlkit.items.InlineTable):
        # On one line there is no room for what is pinned.
        document.pop(TABLE, None)
        document[TABLE] = tomlkit.table(is_super_table=True)
        document[TABLE].update(there)
    entries: Any = document[TABLE]
    entries[key] = tomlkit.item(_full(_entry(report, folder)))
    _replace(file, tomlkit.dumps(document))
    return file


def _replace(file: Path, text: str) -> None:
    written = file.with_suffix(".toml.new")
    try:
        written.write_text(text, encoding="utf-8")
        written.replace(file)
    except OSError as error:
        with suppress(OSError):
            written.unlink()
        raise InvalidOption(f"pin: {FILE}: cannot be written: {error.strerror}") from error


def _full(value: Any) -> Any:
    """The same without what is empty, and with the innermost tables on one line."""
    import tomlkit

    if isinstance(value, list):
        return [_full(one) for one in value]
    if not isinstance(value, dict):
        return value
    full = {name: _full(one) for name, one in value.items() if one not in ({}, [], "")}
    nested = any(isinstance(one, dict) or (isinstance(one, list) and any(isinstance(part, dict) for part in one)) for one in full.values())
    if nested or len(str(full)) > _ON_A_LINE:
        return full
    line = tomlkit.inline_table()
    line.update(full)
    return line


def _entry(report: Report, folder: Path) -> dict[str, Any]:
    files = {name: digest(folder / name) for result in report.results for name in _artefacts(result.candidate.path, folder)}
    cases = {name: value for name, value in report.cases.items() if name != "folder"}
    if "folder" in report.cases:
        cases["folder"] = _below(Path(report.cases["folder"]), folder)
    return {
        "date": datetime.datetime.now(datetime.UTC).date(),
        "reference": report.reference,
        "files": files,
        "names": dict(report.names),
        "cases": cases,
        "tolerances": dict(report.tolerances),
        "candidates": [_told(result, folder) for result in report.results],
    }


def _told(result: Result, folder: Path) -> dict[str, Any]:
    one = result.candidate
    asked = {"device": one.choice.device, "precision": one.precision, "options": dict(one.choice.options)}
    loaded = {"runtime": one.choice.runtime, "version": str(result.session.get("version", ""))}
    told = {"name": one.name, "label": one.choice.label, "model": _below(one.path, folder), **loaded, **asked, "verdict": result.verdict}
    return told | {"outputs": [_errors(difference) for difference in result.differences]}


def _errors(one: Difference) -> dict[str, Any]:
    seen = {"max_abs": one.max_abs, "max_rel": one.max_rel, "mean_abs": one.mean_abs}
    return {"name": one.output, "tolerance": one.tolerance} | {name: value for name, value in seen.items() if value is not None}


def _candidate(told: Mapping[str, Any], folder: Path) -> Candidate:
    choice = Choice(told["runtime"], told["label"], told["device"], dict(told["options"]))
    return Candidate(told["name"], folder / told["model"], choice, told["precision"])


def _identity(one: Candidate) -> tuple[str, ...]:
    options = sorted((name, repr(value)) for name, value in one.choice.options.items())
    return str(one.path.resolve()), one.choice.runtime, one.choice.device, one.precision, repr(options)


def _as_pinned(result: Result, known: Mapping[str, Any]) -> Result:
    tolerances = {output["name"]: float(output["tolerance"]) for output in known["outputs"]}
    return replace(result, differences=tuple(replace(one, tolerance=tolerances.get(one.output, one.tolerance)) for one in result.differences))


def home(path: Path) -> tuple[Path, str]:
    """Tell the folder of a model's ``model.toml``, and the model's path from there.

    It lies beside the model; in a repository, NAME/VERSION/model.onnx, in NAME.
    """
    path = path.resolve()
    folder = path.parent
    if path.is_file() and path.stem == "model" and folder.name.isdigit():
        folder = folder.parent
    return folder, _below(path, folder)


def digest(path: Path) -> str:
    """Give ``sha256:…`` of a file; empty where there is none."""
    found = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                found.update(chunk)
    except OSError:
        return ""
    return f"sha256:{found.hexdigest()}"


def _artefacts(path: Path, folder: Path) -> list[str]:
    """All files of a model: itself, or what its folder holds; weights that lie beside it."""
    from nnrp import repository
    from nnrp.repository import parts

    if path.suffix == ".toml":
        # The description holds the pin itself.
        path = Path(repository.find(path)[0].path)
    if path.is_dir():
        return sorted(_below(file, folder) for file in path.rglob("*") if file.is_file() and file.name != FILE)
    return [_below(file, folder) for file in (path, *parts.beside(path)) if file.is_file()]


def _below(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.resolve(), folder)).as_posix()


def _table(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Malformed(f"{FILE} cannot be read: {error}") from error
    except RecursionError:
        raise Malformed(f"{FILE} cannot be read: it is nested too deeply") from None
