"""``nnrp infer``."""

from __future__ import annotations

import json
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
@click.option("--version", help="The model's version.  [default: the latest]")
@click.option("--timeout", type=click.FloatRange(0), metavar="SECONDS", help="After which nobody wants the answer.")
@show.json_option
def infer(
    target: str,
    model: str | None,
    inputs: tuple[str, ...],
    shapes: tuple[str, ...],
    outputs: tuple[str, ...],
    version: str | None,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Ask a model once, on a server or straight from its file.

    URL-or-FILE is http://HOST:PORT, grpc://HOST:PORT, or a model file. MODEL may be left out where there is one.

    \b
    Examples:
      nnrp infer double.onnx --input x=[1,2,3]
      nnrp infer http://127.0.0.1:8000 magika --input bytes=@features.npy --json
    """  # noqa: D301 - the backspace is click's mark for lines that stay as they are
    loaded = _model(target, model, version)
    sizes = dict(_pair(text, "--shape") for text in shapes)
    given = dict(_pair(text, "--input") for text in inputs)
    specs = {spec.name: spec for spec in loaded.inputs}
    arrays = {name: _value(text, specs.get(name), sizes.get(name), name) for name, text in given.items()}
    files = dict(_pair(text, "--output") if "=" in text else (text, "") for text in outputs)
    started = time.perf_counter()
    answer = loaded.infer(arrays, outputs=list(files) or None, timeout=timeout)
    elapsed = time.perf_counter() - started
    _save(answer, files)
    _print(loaded, answer, elapsed, as_json)


def _model(target: str, name: str | None, version: str | None) -> nnrp.Model:
    import nnrp

    if "://" in target:
        return nnrp.connect(target, model=name, version=version)
    if not Path(target).is_file():
        raise NotFound(f"'{target}' is neither a URL nor a file: expected http://HOST:PORT, grpc://HOST:PORT or a model file", reason="FILE_NOT_FOUND")
    return nnrp.load(target, name=name)


def _pair(text: str, option: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise InvalidArgument(f"{option} {text}: expected NAME=VALUE", reason="INVALID_OPTION")
    return name, value


def _value(text: str, spec: Any, shape: str | None, name: str) -> Any:
    if not text.startswith("@"):
        return _json(text, name)
    path = Path(text[1:])
    if not path.is_file():
        raise NotFound(f"--input {name}: no file '{path}'", reason="FILE_NOT_FOUND")
    if path.suffix == ".npy":
        return _npy(path, name)
    if path.suffix == ".json":
        return _json(path.read_text(), name)
    return _raw(path.read_bytes(), spec, shape, name)


def _npy(path: Path, name: str) -> Any:
    import numpy

    try:
        return numpy.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InvalidArgument(f"--input {name}: '{path.name}' is not a .npy file that can be read: {error}", reason="MALFORMED") from error


def _json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidArgument(f"--input {name}: expected JSON or @FILE: {error}", reason="MALFORMED") from error


def _raw(content: bytes, spec: Any, shape: str | None, name: str) -> Any:
    import numpy

    from nnrp.tensor import numpy_type

    if spec is None or spec.datatype == "BYTES":
        array = numpy.empty(1, dtype=object)
        array[0] = content
        return array.reshape([1] * (len(spec.shape) if spec is not None else 1))
    dims = [int(part) for part in shape.split(",")] if shape else list(spec.shape)
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
        if path:
            numpy.save(path, numpy.asarray(answer[name]), allow_pickle=False)


def _print(model: nnrp.Model, answer: dict[str, Any], elapsed: float, as_json: bool) -> None:
    import numpy

    if as_json:
        datatypes = {spec.name: spec.datatype for spec in model.outputs}
        outputs = [{"name": name, "datatype": datatypes[name], "shape": list(value.shape), "data": _plain(value)} for name, value in answer.items()]
        version = {"model_version": model.version} if model.version else {}
        show.document({"model_name": model.name, **version, "elapsed_ms": round(elapsed * 1e3, 3), "outputs": outputs})
        return
    with numpy.printoptions(threshold=24, edgeitems=4, precision=6):
        rows = [[name, str(value.dtype), str(list(value.shape)), " ".join(str(value).split())] for name, value in answer.items()]
    show.table(["output", "type", "shape", "values"], rows)
    print(f"{model.name} version {model.version or 'latest'}, {elapsed * 1e3:.2f} ms")


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
