"""``nnrp infer``."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nnrp.errors import InvalidArgument, NotFound

from . import show

if TYPE_CHECKING:
    import nnrp


@click.command()
@click.argument("target", metavar="URL-or-FILE")
@click.argument("model", required=False)
@click.option(
    "--input", "-i", "inputs", metavar="NAME=VALUE", multiple=True, help="JSON, or @FILE: .npy, .json, or anything else as raw bytes. Once per input."
)
@click.option("--shape", "shapes", metavar="NAME=1,16", multiple=True, help="The shape of raw bytes, where the signature leaves it open.")
@click.option("--output", "-o", "outputs", metavar="NAME[=FILE.npy]", multiple=True, help="Only this output; written to a file where one is named.")
@click.option("--runtime", metavar="NAME[,NAME…]", help="What executes a file; the first that can.  [default: that of its format, or any that reads it]")
@click.option("--version", help="The model's version.  [default: the latest]")
@click.option("--timeout", type=click.FloatRange(0), metavar="SECONDS", help="After which nobody wants the answer.")
@click.option("--stream", is_flag=True, help="Every answer as it comes, of a model that gives any number of them.")
@show.json_option
def infer(
    target: str,
    model: str | None,
    inputs: tuple[str, ...],
    shapes: tuple[str, ...],
    outputs: tuple[str, ...],
    runtime: str | None,
    version: str | None,
    timeout: float | None,
    stream: bool,
    as_json: bool,
) -> None:
    """Ask a model once, on a server or straight from its file.

    URL-or-FILE is http://HOST:PORT, grpc://HOST:PORT, or a model file, a model.toml, or a source as nnrp serve takes it, NAME=PATH too. MODEL may be left
    out where there is one.

    \b
    Examples:
      nnrp infer double.onnx --input x=[1,2,3]
      nnrp infer http://127.0.0.1:8000 magika --input bytes=@features.npy --json
    """  # noqa: D301 - the backspace is click's mark for lines that stay as they are
    show.stop_at_once()
    sizes = {name: _shape(text, name) for name, text in _once("--shape", [_pair(text, "--shape") for text in shapes]).items()}
    given = _once("--input", [_pair(text, "--input") for text in inputs])
    files = _once("--output", [_pair(text, "--output") if "=" in text else (text, "") for text in outputs])
    for name in sizes.keys() - given.keys():
        raise InvalidArgument(f"--shape {name}: there is no --input {name}", reason="INVALID_OPTION")
    _check_folders(files)
    if stream and any(files.values()):
        raise InvalidArgument("--stream: its answers are printed; expected --output NAME without a file", reason="INVALID_OPTION")
    loaded = _model(target, model, version, runtime)
    specs = {spec.name: spec for spec in loaded.inputs}
    arrays = {name: _value(text, specs.get(name), sizes.get(name), name) for name, text in given.items()}
    # Answers are arrays: what it takes to have them is no part of the time.
    import numpy  # noqa: F401

    started = time.perf_counter()
    if stream:
        for answer in loaded.stream(arrays, list(files) or None, timeout=timeout):
            _print(loaded, answer, time.perf_counter() - started, as_json)
            sys.stdout.flush()
        return
    answer = loaded.infer(arrays, outputs=list(files) or None, timeout=timeout)
    elapsed = time.perf_counter() - started
    _save(answer, files)
    _print(loaded, answer, elapsed, as_json)


def _model(target: str, name: str | None, version: str | None, runtime: str | None) -> nnrp.Model:
    import nnrp
    from nnrp.repository import sources

    fetched = sources.is_one(target)
    if "://" in target and not fetched:
        if runtime:
            raise InvalidArgument("--runtime: expected a file, a server chose its own", reason="INVALID_OPTION")
        return nnrp.connect(target, model=name, version=version)
    # As NAME=PATH, where the file's own name is none of a model's.
    if not (fetched or Path(target).exists() or Path(target.partition("=")[2] or target).exists()):
        raise NotFound(f"'{target}' is neither a URL nor a file: expected http://HOST:PORT, grpc://HOST:PORT or a model file", reason="FILE_NOT_FOUND")
    return nnrp.load(target, name=name, version=version, runtime=runtime)


def _pair(text: str, option: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise InvalidArgument(f"{option} {text}: expected NAME=VALUE", reason="INVALID_OPTION")
    return name, value


def _once(option: str, pairs: list[tuple[str, str]]) -> dict[str, str]:
    """What is said of each name; nothing may be said of one twice."""
    said: dict[str, str] = {}
    for name, value in pairs:
        if name in said:
            raise InvalidArgument(f"{option} {name}: expected once, got it twice", reason="INVALID_OPTION")
        said[name] = value
    return said


def _shape(text: str, name: str) -> list[int]:
    try:
        dims = [int(part) for part in text.split(",")]
    except ValueError:
        dims = [-2]
    if min(dims) < -1:
        raise InvalidArgument(f"--shape {name}={text}: expected sizes, -1 for one that follows from the bytes: --shape {name}=1,16", reason="INVALID_OPTION")
    return dims


def _check_folders(files: dict[str, str]) -> None:
    for name, path in files.items():
        if path and not Path(path).resolve().parent.is_dir():
            raise NotFound(f"--output {name}: no folder '{Path(path).parent}'", reason="FILE_NOT_FOUND")


def _value(text: str, spec: Any, shape: list[int] | None, name: str) -> Any:
    """An input, as ready as it can be before the clock runs."""
    from nnrp.tensor import adapt

    path = Path(text[1:])
    if text.startswith("@") and not path.is_file():
        raise NotFound(f"--input {name}: no file '{path}'", reason="FILE_NOT_FOUND")
    if text.startswith("@") and path.suffix == ".npy":
        return _npy(path, name)
    if text.startswith("@") and path.suffix != ".json":
        return _raw(path.read_bytes(), spec, shape, name)
    value = _json(path.read_bytes() if text.startswith("@") else text, name)
    return adapt(value, name, spec.datatype) if spec is not None else value


def _npy(path: Path, name: str) -> Any:
    import numpy

    try:
        return numpy.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError, MemoryError) as error:
        raise InvalidArgument(f"--input {name}: '{path.name}' is not a .npy file that can be read: {error}", reason="MALFORMED") from error


def _json(text: str | bytes, name: str) -> Any:
    def no_number(word: str) -> float:
        raise ValueError(f"{word} is no number in JSON")

    def number(word: str) -> float:
        value = float(word)
        if value in (float("inf"), float("-inf")):
            raise InvalidArgument(f"--input {name}: {word[:32]} is larger than any FP64", reason="VALUE_OUT_OF_RANGE")
        return value

    try:
        return json.loads(text, parse_constant=no_number, parse_float=number)
    except InvalidArgument:
        raise
    except RecursionError:
        raise InvalidArgument(f"--input {name}: the JSON is nested too deeply", reason="MALFORMED") from None
    except ValueError as error:
        raise InvalidArgument(f"--input {name}: expected JSON or @FILE: {error}", reason="MALFORMED") from error


def _raw(content: bytes, spec: Any, shape: list[int] | None, name: str) -> Any:
    import numpy

    from nnrp.tensor import numpy_type

    if spec is None or spec.datatype == "BYTES":
        array = numpy.empty(1, dtype=object)
        array[0] = content
        return array.reshape([1] * (len(spec.shape) if spec is not None else 1))
    dims = shape or list(spec.shape)
    if dims.count(-1) > 1:
        raise InvalidArgument(f"--input {name}: shape {dims} is open in {dims.count(-1)} places; say --shape {name}=…", reason="INVALID_OPTION")
    try:
        return numpy.frombuffer(content, dtype=numpy_type(spec.datatype)).reshape(dims)
    except ValueError as error:
        message = f"--input {name}: {len(content)} bytes do not fill {spec.datatype} of shape {dims}"
        raise InvalidArgument(message, reason="BYTE_SIZE_MISMATCH") from error


def _save(answer: dict[str, Any], files: dict[str, str]) -> None:
    import numpy

    for name, path in files.items():
        if not path:
            continue
        array = numpy.asarray(answer[name])
        if array.dtype == object:
            raise InvalidArgument(f"--output {name}: BYTES have no place in a .npy file; ask for it without a file, or with --json", reason="INVALID_OPTION")
        try:
            numpy.save(path, array, allow_pickle=False)
        except OSError as error:
            raise InvalidArgument(f"--output {name}={path}: cannot be written: {error.strerror}", reason="INVALID_OPTION") from error


def _print(model: nnrp.Model, answer: dict[str, Any], elapsed: float, as_json: bool) -> None:
    import numpy

    if as_json:
        datatypes = {spec.name: spec.datatype for spec in model.outputs}
        outputs = [{"name": name, "datatype": datatypes[name], "shape": list(value.shape), "data": _plain(value)} for name, value in answer.items()]
        version = {"model_version": answered} if (answered := model._answered()) else {}
        how = {"session": session} if (session := show.session(model)) else {}
        show.document({"model_name": model.name, **version, "elapsed_ms": round(elapsed * 1e3, 3), "outputs": outputs, **how})
        return
    with numpy.printoptions(threshold=24, edgeitems=4, precision=6):
        rows = [[name, str(value.dtype), str(list(value.shape)), " ".join(str(value).split())] for name, value in answer.items()]
    show.table(["output", "type", "shape", "values"], rows)
    print(f"{model.name} version {model._answered() or 'latest'}, {elapsed * 1e3:.2f} ms")
    for line in show.not_taken(model):
        print(line)


def _plain(value: Any) -> list[Any]:
    """The elements as JSON has them; numbers that JSON has no word for become text."""
    import numpy

    array = numpy.asarray(value)
    if array.dtype == object:
        return [item.decode("utf-8", "replace") if isinstance(item, bytes) else item for item in array.ravel().tolist()]
    if array.dtype.kind == "V" or array.dtype.kind == "f":
        return [item if numpy.isfinite(item) else str(item) for item in array.astype(numpy.float64).ravel().tolist()]
    flat: list[Any] = array.ravel().tolist()
    return flat
