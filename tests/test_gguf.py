"""GGUF files: what `nnrp inspect` tells of them, and that none of them takes more than its size."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import little_llama
import numpy as np
import pytest

import nnrp
from nnrp import repository
from nnrp.errors import InvalidModel, LoadFailed, RuntimeNotInstalled
from nnrp.runtimes import gguf

HUGE = struct.pack("<Q", 1 << 62)


@pytest.fixture
def little(tmp_path: Path) -> Path:
    return little_llama.write(tmp_path / "little.gguf")


def test_inspect_tells_what_a_model_is(little: Path) -> None:
    command = [Path(sys.executable).with_name("nnrp"), "inspect", little]
    about = json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=120, check=True).stdout)
    parameters = sum(tensor.size for tensor in little_llama.weights().values())
    assert [about[key] for key in ("format", "architecture", "name", "parameters", "quantisation", "vocabulary", "tokenizer", "context", "layers")] == [
        *("gguf", "llama", "little", parameters, "F32", len(little_llama.TOKENS), "llama", little_llama.CONTEXT, little_llama.LAYERS)
    ]
    assert "llama-cpp" in about["runtimes"] + about["not_installed"]
    assert f"parameters      {parameters}" in subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_the_quantisation_is_that_of_most_parameters(tmp_path: Path) -> None:
    tensors = {name: tensor.astype(np.float16) if "ffn" in name and tensor.ndim == 2 else tensor for name, tensor in little_llama.weights().items()}
    about = nnrp.inspect(little_llama.write(tmp_path / "half.gguf", tensors, little_llama.metadata()))
    assert (about["quantisation"], list(about["datatypes"])) == ("F32", ["F32", "F16"])
    assert sum(about["datatypes"].values()) == pytest.approx(1, abs=1e-3)


def test_a_file_that_is_cut_off_anywhere_is_refused(little: Path) -> None:
    whole = little.read_bytes()
    head = whole.index(b"blk.0.attn_q.weight")
    for end in [*range(4, 600, 7), *range(600, head, 211), len(whole) // 2, len(whole) - 1]:
        little.write_bytes(whole[:end])
        with pytest.raises(InvalidModel, match="cut off"):
            nnrp.inspect(little)


LIES = {
    "a file of the first version": (b"GGUF\x03", b"GGUF\x01", "version 2 or 3"),
    "an order of bytes that is another": (b"GGUF\x03\0\0\0", b"GGUF\0\0\0\x03", "version 2 or 3"),
    "more tensors than there can be": (b"GGUF\x03\0\0\0" + struct.pack("<Q", 21), b"GGUF\x03\0\0\0" + HUGE, "at most 262144 tensors"),
    "a key without an end": (struct.pack("<Q", 20) + b"general.architecture", HUGE + b"general.architecture", "at most 4096 bytes"),
    "a text without an end": (struct.pack("<IQ", 8, 6) + b"little", struct.pack("<I", 8) + HUGE + b"little", "cut off"),
    "a list without an end": (struct.pack("<IIQ", 9, 5, 268), struct.pack("<II", 9, 5) + HUGE, "at most 16777216 elements"),
    "a list of lists": (struct.pack("<IIQ", 9, 5, 268), struct.pack("<IIQ", 9, 9, 268), "a list of numbers or texts"),
    "a value of no kind": (struct.pack("<IQ", 8, 6) + b"little", struct.pack("<IQ", 77, 6) + b"little", "known kind"),
    "a key twice": (b"general.file_type", b"general.alignment", "twice"),
    "a tensor twice": (b"blk.1.attn_q.weight", b"blk.0.attn_q.weight", "twice"),
    "an alignment that is none": (b"alignment" + struct.pack("<II", 4, 32), b"alignment" + struct.pack("<II", 4, 33), "power of 2"),
    "too many dimensions": (b"output.weight" + struct.pack("<I", 2), b"output.weight" + struct.pack("<I", 1 << 31), "at most 4 dimensions"),
    "a dimension of none": (struct.pack("<IQQ", 2, 32, 268), struct.pack("<IQQ", 2, 32, 0), "dimensions from 1"),
    "dimensions that overflow": (struct.pack("<IQQ", 2, 32, 268), struct.pack("<IQQ", 2, 1 << 32, 1 << 32), "63 bits"),
    "weights beyond the end": (struct.pack("<IQQ", 2, 32, 268), struct.pack("<IQQ", 2, 32, 1 << 40), "cut off: expected"),
    "a token twice": (struct.pack("<Q", 2) + b"ab", struct.pack("<Q", 2) + b"\xc3\xa4", "got one twice"),
    "rows that are no blocks": (struct.pack("<IQQI", 2, 32, 268, 0), struct.pack("<IQQI", 2, 32, 268, 12), "multiple of 256"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_file_that_lies_is_refused_before_anything_is_taken_from_it(little: Path, lie: str) -> None:
    truth, instead, says = LIES[lie]
    whole = little.read_bytes()
    assert truth in whole
    little.write_bytes(whole.replace(truth, instead, 1))
    with pytest.raises(InvalidModel, match=says) as refused:
        nnrp.inspect(little)
    assert str(little.parent) not in refused.value.message


def test_bytes_that_are_changed_at_random_are_a_model_or_none(little: Path) -> None:
    whole, draw = little.read_bytes(), np.random.default_rng(0)
    head = whole.index(b"blk.1.ffn_norm.weight")
    for _ in range(300):
        changed = bytearray(whole)
        for place in draw.integers(0, head, 3):
            changed[place] = draw.integers(0, 256)
        little.write_bytes(bytes(changed))
        with suppress(InvalidModel):
            assert gguf.read(little).tensors <= gguf.MOST_TENSORS


@pytest.mark.parametrize("size", ["block_count", "pooling_type"])
def test_an_architecture_that_is_no_text_is_refused_whatever_hangs_on_it(tmp_path: Path, size: str) -> None:
    file = little_llama.write(tmp_path / "m.gguf", None, little_llama.metadata() | {"general.architecture": 5, f"5.{size}": 9 << 20})
    with pytest.raises(InvalidModel, match=r"'general\.architecture': expected a text, got 5"):
        nnrp.inspect(file)


SIZES: list[tuple[str, Any]] = [("block_count", 0), ("block_count", 1 << 31), ("embedding_length", 0), ("attention.head_count", 0), ("context_length", 0)]
SIZES += [("attention.layer_norm_rms_epsilon", float("nan")), ("pooling_type", 9), ("expert_used_count", 2), ("nextn_predict_layers", 5)]


@pytest.mark.parametrize(("key", "value"), SIZES)
def test_sizes_that_can_be_none_are_refused(tmp_path: Path, key: str, value: Any) -> None:
    file = little_llama.write(tmp_path / "m.gguf", None, little_llama.metadata() | {f"llama.{key}": value})
    with pytest.raises(InvalidModel, match=rf"'llama\.{key}': expected"):
        gguf.read(file)


def test_experts_are_used_or_there_are_none(tmp_path: Path) -> None:
    experts = little_llama.metadata() | {"llama.expert_count": 4}
    with pytest.raises(InvalidModel, match=r"'llama\.expert_used_count': expected"):
        gguf.read(little_llama.write(tmp_path / "m.gguf", None, experts))
    assert gguf.read(little_llama.write(tmp_path / "m.gguf", None, experts | {"llama.expert_used_count": 2})).number("expert_used_count") == 2


def test_a_repository_has_them_as_any_other_model(tmp_path: Path) -> None:
    (tmp_path / "chat" / "2").mkdir(parents=True)
    little_llama.write(tmp_path / "chat" / "2" / "model.gguf")
    assert [(source.name, source.version) for source in repository.find(tmp_path)] == [("chat", "2")]


def test_without_the_package_a_model_says_what_to_install(little: Path) -> None:
    try:
        import llama_cpp  # noqa: F401
    except ImportError:
        with pytest.raises((RuntimeNotInstalled, LoadFailed), match=r"pip install nnrp\[llama-cpp\]"):
            nnrp.load(little, runtime="llama-cpp")
