"""Engines of TensorRT out of ONNX models."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from nnrp.errors import InvalidModel, InvalidOption, LoadFailed
from nnrp.runtimes.contract import ModelSpec

_SHAPE = {"type": "array", "items": {"type": "integer", "minimum": 0}}
#: The JSON Schema of the option `profiles`.
PROFILES: dict[str, Any] = {
    "type": "array",
    "items": {"type": "object", "additionalProperties": {"type": "array", "items": _SHAPE, "minItems": 3, "maxItems": 3}},
    "description": 'of an ONNX model, which sizes its open dimensions take: [{"x": [[1, 3], [8, 3], [64, 3]]}], smallest, best and largest by input',
}


def build(trt: Any, logger: Any, spec: ModelSpec) -> Any:
    """Build an engine, which takes seconds to minutes.

    Raises:
        InvalidModel: TensorRT's parser does not take the model.
        InvalidOption: the profiles do not fit it.
        LoadFailed: there is no engine of it.
    """
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(spec.path):
        said = "; ".join(str(parser.get_error(index).desc()) for index in range(min(parser.num_errors, 4)))
        raise InvalidModel(f"model file: TensorRT does not take it: {said}", runtime="tensorrt")
    config = builder.create_builder_config()
    if "workspace_bytes" in spec.options:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, spec.options["workspace_bytes"])
    if "optimization_level" in spec.options:
        config.builder_optimization_level = spec.options["optimization_level"]
    if spec.precision == "strict" and hasattr(trt.BuilderFlag, "TF32"):
        config.clear_flag(trt.BuilderFlag.TF32)
    _profiles(builder, network, config, spec)
    place = _place(spec)
    cache = config.create_timing_cache(place.read_bytes() if place and place.exists() else b"")
    config.set_timing_cache(cache, False)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise LoadFailed("runtime tensorrt: it builds no engine of the model", runtime="tensorrt")
    if place:
        _keep(place, bytes(config.get_timing_cache().serialize()))
    return engine


def _profiles(builder: Any, network: Any, config: Any, spec: ModelSpec) -> None:
    inputs = {network.get_input(index).name: tuple(network.get_input(index).shape) for index in range(network.num_inputs)}
    opened = [name for name, shape in inputs.items() if -1 in shape]
    wanted = spec.options.get("profiles", [])
    if opened and not wanted:
        raise InvalidOption(f"option 'profiles': expected sizes for {', '.join(opened)}, whose dimensions are open, got none", runtime="tensorrt")
    for told in wanted:
        profile = builder.create_optimization_profile()
        for name, (smallest, best, largest) in told.items():
            if name not in inputs or {len(smallest), len(best), len(largest)} != {len(inputs[name])}:
                there = ", ".join(f"'{one[:96]}' {list(shape)}" for one, shape in inputs.items())
                raise InvalidOption(f"option 'profiles': '{name[:96]}': expected shapes of the model's inputs: {there}", runtime="tensorrt")
            profile.set_shape(name, smallest, best, largest)
        if config.add_optimization_profile(profile) < 0:
            raise InvalidOption("option 'profiles': they do not fit the model", runtime="tensorrt")


def _place(spec: ModelSpec) -> Path | None:
    return Path(spec.options["timing_cache"]) if "timing_cache" in spec.options else None


def _keep(place: Path, content: bytes) -> None:
    """Write the cache as a whole or not at all; one that cannot be written is only lost time."""
    with suppress(OSError):
        part = place.with_name(f"{place.name}.{os.getpid()}")
        part.write_bytes(content)
        part.replace(place)
