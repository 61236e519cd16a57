"""Models in another format or precision, by the converters that there are for it, and whether the numbers are still right.

    made = convert("model.onnx", "ir")
    print(made.files, made.report.status)

Each way is somebody else's converter; what is done here is to find it, to write its result whole or not at all, and to compare.
`nnrp convert` is this on the command line.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnrp import _nnrp
from nnrp.convert import place
from nnrp.convert.ways import WAYS, Ended, Way, way
from nnrp.errors import InvalidOption, LoadFailed, NnrpError, NoRuntime, RuntimeNotInstalled, UnknownOption
from nnrp.runtimes import readers
from nnrp.runtimes.package import without_paths

if TYPE_CHECKING:
    from nnrp.compare import Report
    from nnrp.compare.run import Plan, Progress

__all__ = ["WAYS", "Converted", "Way", "compared", "convert"]

StrPath = str | PathLike[str]
#: Longest text of a converter that an error repeats.
_TEXT = 600
#: How many seconds a runtime gets to show that it loads the source.
_TRY_S = 600.0


@dataclass(frozen=True)
class Converted:
    """What came of a conversion.

    Attributes:
        source: what was converted.
        format: what it is.
        to: what it became.
        files: what was written, the model first.
        converter: the package that did it, and its version.
        seconds: how long it took.
        report: how the result compares with the source; None where nobody asked.
    """

    source: Path
    format: str
    to: str
    files: tuple[Path, ...]
    converter: str
    seconds: float
    report: Report | None = None

    def to_json(self) -> dict[str, Any]:
        """Tell it as one JSON document."""
        sizes = [{"file": str(file), "byte_size": file.stat().st_size} for file in self.files]
        told = {"source": str(self.source), "format": self.format, "to": self.to, "files": sizes, "converter": self.converter, "seconds": self.seconds}
        return told | {"compare": None if self.report is None else self.report.to_json()}


def convert(
    source: StrPath,
    to: str,
    output: StrPath | None = None,
    *,
    calibrate: StrPath | None = None,
    options: Mapping[str, Any] | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Converted:
    """Convert a model.

    Args:
        source: the model's file or folder.
        to: what it is to become: ir, fp16, int8-dynamic, int8, int4, ort, onnx or tflite.
        output: the file to write; default: beside the source, named after what it becomes.
        calibrate: for int8, a folder with one .npz, .npy or .json of real inputs for each case.
        options: the converter's own options, verbatim.
        force: write over a file that is there.
        progress: is told what happens and the share that is done.

    Raises:
        NotOffered: there is no such way from this format; tells those that there are.
        RuntimeNotInstalled: a package that the way needs is not installed; names it.
        UnknownOption, InvalidOption, FileNotFound, AlreadyExists.
        LoadFailed: the converter failed; tells what it said.
    """
    path, tell = Path(source), progress or (lambda what, share: None)
    format = _nnrp.format(path)
    taken = way(format, to)
    given = _checked(taken, options or {})
    if taken.calibrates != (calibrate is not None):
        raise InvalidOption(f"calibrate: {to} {'needs a folder of inputs' if taken.calibrates else 'takes no inputs: only int8 does'}")
    target = place.target(path, taken, output, force)
    tell(f"{path.name}: importing {taken.packages[0]}", 0.0)
    converter = _import(taken, format)
    begun = time.perf_counter()
    if calibrate is not None:
        given["calibrate"] = Path(calibrate)
    with place.written(target, force) as draft:
        _run(taken, path, draft, lambda what, share: tell(f"{path.name}: {what}", share), given)
    files = place.files(target)
    return Converted(path, format, to, files, converter, round(time.perf_counter() - begun, 3))


def compared(made: Converted, plan: Callable[[tuple[Path, ...], str], Plan], runtimes: str = "", progress: Progress | None = None) -> Converted:
    """Compare a result with its source.

    Args:
        made: what was converted.
        plan: makes the plan of the comparison from both files, and from runtimes with commas.
        runtimes: what runs them; default: for each that of its format, or another that reads it; but the source by another than the result, where they are
            of two formats and another runs it. Where none does, the report's notes say so.
        progress: is told what happens and the share that is done.

    Raises:
        NoRuntime: no runtime that is installed reads one of them.
    """
    from nnrp.compare import carry_out

    files, note = (made.source, made.files[0]), ""
    if not runtimes:
        runtimes, note = _readers(made, *map(_nnrp.format, files))
    asked = plan(files, runtimes)
    if not asked.tolerances:
        usual = way(made.format, made.to).tolerance
        asked = replace(asked, tolerances={"": usual} if usual else {})
    report = carry_out(asked, progress)
    return replace(made, report=replace(report, notes=(*report.notes, *[note] * bool(note))))


def _readers(made: Converted, source: str, result: str) -> tuple[str, str]:
    """Name what runs the source and the result, with commas; and tell where the one that made the result is all that there is to judge it."""
    from nnrp.engine import Engine

    installed = Engine().runtimes()
    readers, target = _reading(made, source, installed), _reading(made, result, installed)[0]
    if source == result:
        return target, ""
    judge = next((name for name in readers if name != target and _runs(made.source, name)), None)
    if judge is not None or target not in readers:
        return f"{judge or readers[0]},{target}", ""
    return target, f"nobody else judges it: no runtime but {target} that is installed runs the {source} that the result was made of"


def _reading(made: Converted, format: str, installed: list[dict[str, Any]]) -> list[str]:
    """The runtimes that are installed and read a format, that of the format first."""
    found = [told["name"] for told in readers(format, installed) if told["version"]]
    if not found:
        message = f"written to '{made.files[0]}' and not compared: no runtime that is installed reads {format}; install one, name --runtimes, or --no-compare"
        raise NoRuntime(message, format=format)
    return found


def _runs(file: Path, runtime: str) -> bool:
    """Whether a runtime loads a file, in a process that it may take with it."""
    from nnrp.compare.child import Child, Lost

    try:
        with Child(_TRY_S) as child:
            child.ask({"load": {"path": str(file), "runtime": runtime}})
    except (NnrpError, Lost):
        return False
    return True


def _checked(taken: Way, options: Mapping[str, Any]) -> dict[str, Any]:
    """The converter's own options, none but those that it has."""
    known = [one.name for one in inspect.signature(taken.run).parameters.values() if one.kind is one.KEYWORD_ONLY and one.name != "calibrate"]
    odd = [name for name in options if name not in known]
    if odd:
        raise UnknownOption(f"option '{odd[0][:96]}': {taken.to} has {', '.join(known) or 'none'}", option=odd[0][:96], known=known)
    return dict(options)


def _import(taken: Way, format: str) -> str:
    """Look for the packages of a way, and tell the first with its version."""
    for package in taken.packages:
        if find_spec(package.replace("-", "_")) is None:
            message = f"convert {format} to {taken.to}: needs the package {package}, which is not installed: pip install {' '.join(taken.packages)}"
            raise RuntimeNotInstalled(message, package=package)
    first = taken.packages[0]
    # One package may come under several names: tensorflow, tensorflow-cpu.
    brought = metadata.packages_distributions().get(first, [first])[0]
    return f"{first} {metadata.version(brought)}"


def _run(taken: Way, source: Path, draft: Path, tell: Progress, options: dict[str, Any]) -> None:
    try:
        taken.run(source, draft, tell, **options)
    except (NnrpError, KeyboardInterrupt):
        raise
    except Exception as error:
        known = [one for file in (draft, source.absolute()) for one in (file, file.parent) if len(one.parts) > 1]
        text = " ".join(without_paths(error, _TEXT, *known).split())
        kind = "" if isinstance(error, Ended) else f"{type(error).__name__}: "
        raise LoadFailed(f"convert to {taken.to}: {taken.packages[0]}: {kind}{text}", package=taken.packages[0]) from error
