"""The samples that a configuration wants a model to be run with before it is ready."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nnrp.errors import InvalidModel
from nnrp.runtimes.triton_python.config import FILE, Config
from nnrp.runtimes.triton_python.tensor import deserialize_bytes_tensor, triton_string_to_numpy


def samples(config: Config, folder: Path) -> list[dict[str, Any]]:
    """Make the inputs of each sample, as often as it is wanted.

    Raises:
        InvalidModel: a file is not there, lies elsewhere, or is of another size.
    """
    made = list[dict[str, Any]]()
    for sample in config["model_warmup"]:
        batch = [sample["batch_size"] or 1] if config["max_batch_size"] else []
        inputs = {name: _value(name, one, batch, folder) for name, one in sample["inputs"].items()}
        made += [inputs] * (sample["count"] or 1)
    return made


def _value(name: str, told: Config, batch: list[int], folder: Path) -> Any:
    kind, shape = told["data_type"], [*batch, *told["dims"]]
    dtype = np.dtype(triton_string_to_numpy(kind))
    if "input_data_file" in told:
        return _from_file(name, told["input_data_file"], dtype, shape, folder / "warmup")
    if kind == "TYPE_STRING":
        return np.full(shape, b"", object)
    if told.get("random_data"):
        numbers = np.random.default_rng(0)
        return (numbers.random(shape) if dtype.kind not in "iub" else numbers.integers(0, 2 if dtype.kind == "b" else 100, shape)).astype(dtype)
    return np.zeros(shape, dtype)


def _from_file(name: str, said: str, dtype: Any, shape: list[int], folder: Path) -> Any:
    file = folder / said
    if Path(said).name != said or not file.is_file():
        raise InvalidModel(f"{FILE}: model_warmup: input '{name[:96]}': expected a file in the folder warmup, got '{said[:96]}'")
    data = file.read_bytes()
    whole = data[: len(data) // dtype.itemsize * dtype.itemsize]
    value = deserialize_bytes_tensor(data) if dtype.kind == "O" else np.frombuffer(whole, dtype)
    if value.size != np.prod(shape, dtype=int) or (dtype.kind != "O" and whole != data):
        raise InvalidModel(f"{FILE}: model_warmup: input '{name[:96]}': expected elements of shape {shape} in '{said[:96]}', got {len(data)} bytes")
    return value.reshape(shape)
