"""The ways from one format to another: whose converter, what it needs, what it is called with."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnrp.convert import changed
from nnrp.errors import InvalidModel, InvalidOption, NotOffered
from nnrp.repository import parts

if TYPE_CHECKING:
    from nnrp.compare.run import Progress

#: Beyond this a protobuf message is too large, and weights go into a file beside it.
_LARGE = 1 << 30


@dataclass(frozen=True)
class Way:
    """One way.

    Attributes:
        reads: the formats that it takes.
        to: what it gives.
        suffix: how its file is called after the source's name.
        packages: what it needs, the converter first.
        run: is called with the source, the file to write, whom to tell, and options by name.
        tolerance: how far the result's numbers may lie from the source's, where that is more than usual.
        calibrates: whether it needs real inputs.
    """

    reads: tuple[str, ...]
    to: str
    suffix: str
    packages: tuple[str, ...]
    run: Callable[..., None]
    tolerance: float | None = None
    calibrates: bool = False


class Ended(Exception):
    """A converter in a process of its own failed: what it said in the end."""


def way(format: str, to: str) -> Way:
    """Find the way from a format.

    Raises:
        NotOffered: there is none; tells those that there are.
    """
    found = next((one for one in WAYS if one.to == to and format in one.reads), None)
    if found is None:
        there = [one.to for one in WAYS if format in one.reads]
        known = f"it becomes {', '.join(there)}" if there else f"what can be converted: {', '.join(sorted({name for one in WAYS for name in one.reads}))}"
        raise NotOffered(f"convert {format} to {to[:96]}: there is no such way; {known}", format=format, to=to[:96])
    return found


def _ir(source: Path, target: Path, tell: Progress, *, compress_to_fp16: bool = False, input: Any = None, output: Any = None) -> None:
    import openvino

    tell("converting", 0.2)
    model = openvino.convert_model(str(source), input=input, output=output)
    tell("writing", 0.9)
    openvino.save_model(model, str(target), compress_to_fp16=compress_to_fp16)


def _fp16(source: Path, target: Path, tell: Progress, *, keep_io_types: bool = True, op_block_list: Sequence[str] | None = None) -> None:
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    model = _loaded(source)
    before = changed.made_of(model)
    tell("converting", 0.3)
    blocked = [*DEFAULT_OP_BLOCK_LIST, *(op_block_list or ())]
    half = convert_float_to_float16(model, keep_io_types=keep_io_types, op_block_list=blocked)
    changed.check("fp16", before, changed.made_of(half), "nothing in FP32 that may become FP16")
    _save(half, target, tell)


def _int8_dynamic(
    source: Path,
    target: Path,
    tell: Progress,
    *,
    per_channel: bool = False,
    reduce_range: bool = False,
    op_types_to_quantize: Sequence[str] | None = None,
    nodes_to_exclude: Sequence[str] | None = None,
) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    prepared = _prepared(source, target, tell)
    tell("quantising weights", 0.5)
    quantize_dynamic(
        prepared,
        target,
        op_types_to_quantize=op_types_to_quantize,
        per_channel=per_channel,
        reduce_range=reduce_range,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=list(nodes_to_exclude or ()),
        use_external_data_format=_is_large(source),
    )
    _check_quantised("int8-dynamic", prepared, target)


def _int8(
    source: Path,
    target: Path,
    tell: Progress,
    *,
    calibrate: Path,
    per_channel: bool = False,
    reduce_range: bool = False,
    method: str = "MinMax",
    op_types_to_quantize: Sequence[str] | None = None,
    nodes_to_exclude: Sequence[str] | None = None,
) -> None:
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

    if method not in CalibrationMethod.__members__:
        raise InvalidOption(f"option 'method': expected one of {', '.join(CalibrationMethod.__members__)}, got {method!r:.96}")
    cases = _cases(source, calibrate, tell)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Any] | None:
            return next(cases, None)

    prepared = _prepared(source, target, tell)
    quantize_static(
        prepared,
        target,
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=op_types_to_quantize,
        per_channel=per_channel,
        reduce_range=reduce_range,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=list(nodes_to_exclude or ()),
        use_external_data_format=_is_large(source),
        calibrate_method=CalibrationMethod[method],
    )
    _check_quantised("int8", prepared, target)


def _cases(source: Path, folder: Path, tell: Progress) -> Iterator[dict[str, Any]]:
    """The calibration's inputs, checked against the model before anything is done."""
    from nnrp.compare.cases import from_files
    from nnrp.compare.signature import read
    from nnrp.engine import load

    model = load(source, runtime="onnxruntime")
    ports = read({"inputs": [spec._asdict() for spec in model.inputs], "outputs": [spec._asdict() for spec in model.outputs]}).inputs
    cases = from_files(folder, ports)

    def one_by_one() -> Iterator[dict[str, Any]]:
        for number, case in enumerate(cases, 1):
            tell(f"calibrating with {case.name}, {number} of {len(cases)}", 0.3 + 0.5 * number / len(cases))
            yield case.inputs

    return one_by_one()


def _int4(
    source: Path,
    target: Path,
    tell: Progress,
    *,
    block_size: int = 32,
    is_symmetric: bool = True,
    accuracy_level: int | None = None,
    nodes_to_exclude: Sequence[str] = (),
) -> None:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    # It tells of each node that it passes over.
    logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer").setLevel(logging.WARNING)
    tell("quantising weights", 0.3)
    quantizer = MatMulNBitsQuantizer(
        _loaded(source), block_size=block_size, is_symmetric=is_symmetric, accuracy_level=accuracy_level, nodes_to_exclude=list(nodes_to_exclude)
    )
    quantizer.process()
    if not any(node.op_type == "MatMulNBits" for node in quantizer.model.model.graph.node):
        raise NotOffered("convert to int4: the model has no MatMul with constant weights of two dimensions, which are what becomes smaller")
    _save(quantizer.model.model, target, tell)


def _ort(source: Path, target: Path, tell: Progress, *, level: str = "extended") -> None:
    import onnxruntime

    levels = {"disable": "ORT_DISABLE_ALL", "basic": "ORT_ENABLE_BASIC", "extended": "ORT_ENABLE_EXTENDED", "all": "ORT_ENABLE_ALL"}
    if level not in levels:
        raise InvalidOption(f"option 'level': expected one of {', '.join(levels)}, got {level!r:.96}")
    tell("optimising", 0.3)
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, levels[level])
    settings.optimized_model_filepath = str(target)
    settings.log_severity_level = 3
    settings.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(str(source), settings, providers=["CPUExecutionProvider"])


def _onnx_of_torch(source: Path, target: Path, tell: Progress, *, opset_version: int | None = None) -> None:
    import torch

    tell("reading", 0.1)
    program = _program(torch, source)
    tell("converting", 0.3)
    made = torch.onnx.export(program, dynamo=True, opset_version=opset_version, verbose=False)
    tell("writing", 0.9)
    made.save(str(target))


def _program(torch: Any, source: Path) -> Any:
    """The exported program in an archive that runs nothing of its maker's when it is opened: what was looked at is what is read."""
    from nnrp.runtimes.torch import exported
    from nnrp.runtimes.torch.archive import Archive, check_plain

    archive = Archive(source.read_bytes())
    if archive.compiled:
        raise InvalidModel("model file: machine code of its maker's, which runs when it is opened: expected none", format="pt2")
    check_plain(torch, archive)
    names = archive.models
    if len(names) != 1 and "model" not in names:
        raise InvalidModel(f"model file: expected one exported program, or one that is called 'model', got {len(names)}", format="pt2")
    return exported.read(archive, names[0] if len(names) == 1 else "model")


def _onnx_of_tensorflow(source: Path, target: Path, tell: Progress, *, opset: int | None = None) -> None:
    tell("converting", 0.2)
    kind = "--saved-model" if source.is_dir() else "--tflite"
    words = [kind, str(source), "--output", str(target)] + ([] if opset is None else ["--opset", str(opset)])
    # Its command line is what it documents of itself.
    done = subprocess.run([sys.executable, "-m", "tf2onnx.convert", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Ended((done.stderr.strip().splitlines() or ["ended without a word"])[-1])


def _tflite(source: Path, target: Path, tell: Progress, *, optimize: bool = False) -> None:
    import tensorflow

    tell("converting", 0.2)
    converter = tensorflow.lite.TFLiteConverter.from_saved_model(str(source))
    converter.optimizations = [tensorflow.lite.Optimize.DEFAULT] if optimize else []
    target.write_bytes(converter.convert())


def _loaded(source: Path) -> Any:
    import onnx

    return onnx.load(source)


def _save(model: Any, target: Path, tell: Progress) -> None:
    import onnx

    tell("writing", 0.9)
    large = model.ByteSize() > _LARGE
    onnx.save(model, target, save_as_external_data=large, location=f"{target.name}.data" if large else None)


def _is_large(source: Path) -> bool:
    return sum(one.stat().st_size for one in (source, *parts.beside(source))) > _LARGE


def _check_quantised(to: str, prepared: Path, target: Path) -> None:
    import onnx

    before, after = (changed.made_of(onnx.load(file, load_external_data=False)) for file in (prepared, target))
    changed.check(to, before, after, "no operation that its quantiser takes, or none with constant weights")


def _prepared(source: Path, target: Path, tell: Progress) -> Path:
    """Infer shapes and optimise, as the quantiser wants it; a model that this does not work for is quantised as it is.

    Returns:
        The file, in a folder of its own: what it keeps beside it, under names of onnx's choice, is no part of the result.
    """
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    # It logs what it raised itself, and goes on without.
    logging.getLogger("onnxruntime.quantization.shape_inference").setLevel(logging.CRITICAL)
    tell("preparing", 0.1)
    beside = bool(parts.beside(source))
    prepared = target.parent / "prepared" / "model.onnx"
    prepared.parent.mkdir()
    try:
        quant_pre_process(source, prepared, skip_symbolic_shape=True, save_as_external_data=beside or _is_large(source), all_tensors_to_one_file=True)
    except Exception:  # noqa: BLE001 - it raises whatever it likes, and is of use only where it works
        onnx.save(_loaded(source), prepared)
    return prepared


_ONNX = ("onnx",)
#: In the order in which they are told.
WAYS: tuple[Way, ...] = (
    Way(("onnx", "tflite", "saved_model", "tensorflow", "paddle"), "ir", ".xml", ("openvino",), _ir),
    Way(_ONNX, "fp16", ".fp16.onnx", ("onnxruntime", "onnx"), _fp16, 1e-2),
    Way(_ONNX, "int8-dynamic", ".int8-dynamic.onnx", ("onnxruntime", "onnx"), _int8_dynamic, 1e-1),
    Way(_ONNX, "int8", ".int8.onnx", ("onnxruntime", "onnx"), _int8, 1e-1, True),
    Way(_ONNX, "int4", ".int4.onnx", ("onnxruntime", "onnx", "onnx-ir"), _int4, 2e-1),
    Way(_ONNX, "ort", ".ort", ("onnxruntime",), _ort),
    Way(("pt2",), "onnx", ".onnx", ("torch", "onnx", "onnxscript"), _onnx_of_torch),
    Way(("saved_model", "tflite"), "onnx", ".onnx", ("tf2onnx", "tensorflow"), _onnx_of_tensorflow),
    Way(("saved_model",), "tflite", ".tflite", ("tensorflow",), _tflite),
)
