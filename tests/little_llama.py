"""A language model of a few kilobytes in a GGUF file, written here, and the same in NumPy.

It is made as llama's models are: two layers, more heads than keys, a vocabulary of bytes and a few pieces.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
WIDTH, INNER, HEADS, KEYS, LAYERS, CONTEXT = 32, 64, 4, 2, 2, 512
EPSILON, BASE = 1e-5, 10_000.0
UNKNOWN, BEGIN, END = 0, 1, 2
#: Behind three special tokens and all bytes: pieces, the longest with the best score.
PIECES = ["\u2581", "a", "b", "c", "ab", "\u2581ab", "\u2581a", "ä", "\u20ac"]
TOKENS = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *PIECES]
#: As GGUF numbers them: unknown, control, byte, normal.
KINDS = [2, 3, 3, *[6] * 256, *[1] * len(PIECES)]
SCORES = [0.0] * 259 + [float(len(piece)) for piece in PIECES]
_NUMBERS = {np.dtype(np.float32): 0, np.dtype(np.float16): 1}


def weights(seed: int = 0) -> dict[str, Array]:
    """Draw the weights, by their names in the file; rows are outputs."""
    draw = np.random.default_rng(seed)
    shapes = {"token_embd.weight": (len(TOKENS), WIDTH), "output.weight": (len(TOKENS), WIDTH)}
    for layer in range(LAYERS):
        heads, keys = WIDTH, WIDTH // HEADS * KEYS
        shapes |= {f"blk.{layer}.attn_{name}.weight": (size, WIDTH) for name, size in (("q", heads), ("k", keys), ("v", keys), ("output", heads))}
        shapes |= {f"blk.{layer}.ffn_{name}.weight": (INNER, WIDTH) for name in ("gate", "up")} | {f"blk.{layer}.ffn_down.weight": (WIDTH, INNER)}
    made = {name: (draw.standard_normal(shape) / np.sqrt(shape[1]) * 2).astype(np.float32) for name, shape in shapes.items()}
    norms = ["output_norm.weight", *(f"blk.{layer}.{name}_norm.weight" for layer in range(LAYERS) for name in ("attn", "ffn"))]
    return made | {name: (1 + draw.standard_normal(WIDTH) / 8).astype(np.float32) for name in norms}


def metadata(**more: Any) -> dict[str, Any]:
    """The values of the file; a list is written as its elements are: texts, FP32 or INT32."""
    told: dict[str, Any] = {"general.architecture": "llama", "general.name": "little", "general.alignment": 32, "general.file_type": 0}
    sizes = {"context_length": CONTEXT, "embedding_length": WIDTH, "block_count": LAYERS, "feed_forward_length": INNER, "vocab_size": len(TOKENS)}
    sizes |= {"attention.head_count": HEADS, "attention.head_count_kv": KEYS, "rope.dimension_count": WIDTH // HEADS}
    told |= {f"llama.{key}": size for key, size in sizes.items()}
    told |= {"llama.attention.layer_norm_rms_epsilon": EPSILON, "llama.rope.freq_base": BASE}
    told |= {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": TOKENS, "tokenizer.ggml.scores": SCORES, "tokenizer.ggml.token_type": KINDS}
    told |= {"tokenizer.ggml.unknown_token_id": UNKNOWN, "tokenizer.ggml.bos_token_id": BEGIN, "tokenizer.ggml.eos_token_id": END}
    return told | {key.replace("__", "."): value for key, value in more.items()}


def write(path: Path, tensors: Mapping[str, Array] | None = None, values: Mapping[str, Any] | None = None) -> Path:
    """Write a file; what is not given is the little model's."""
    tensors, values = weights() if tensors is None else tensors, metadata() if values is None else values
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values)) + b"".join(_text(key) + value_of(value) for key, value in values.items())
    body = b""
    for name, tensor in tensors.items():
        head += _text(name) + struct.pack(f"<I{tensor.ndim}Q", tensor.ndim, *reversed(tensor.shape)) + struct.pack("<IQ", _NUMBERS[tensor.dtype], len(body))
        body += _padded(np.ascontiguousarray(tensor).tobytes())
    path.write_bytes(_padded(head) + body)
    return path


def value_of(value: Any) -> bytes:
    """Write a value: its kind, and what it is."""
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<Ii", 5, value) if value < 0 else struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    if value and isinstance(value[0], str):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_text, value))
    kind, letter = (6, "f") if value and isinstance(value[0], float) else (5, "i")
    return struct.pack(f"<IIQ{len(value)}{letter}", 9, kind, len(value), *value)


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 32)


@dataclass
class Little:
    """The model in NumPy, in FP64: slow, and easy to read."""

    weights: dict[str, Array]

    def logits(self, tokens: Array) -> Array:
        """The logits behind each token, (n, tokens)."""
        return self.states(tokens) @ self._of("output.weight").T

    def states(self, tokens: Array) -> Array:
        """What the last layer gives for each token, (n, WIDTH)."""
        x = self._of("token_embd.weight")[tokens]
        for layer in range(LAYERS):
            x = x + self._attend(self._normal(x, f"blk.{layer}.attn_norm.weight"), f"blk.{layer}.attn")
            y = self._normal(x, f"blk.{layer}.ffn_norm.weight")
            gate, up = (y @ self._of(f"blk.{layer}.ffn_{name}.weight").T for name in ("gate", "up"))
            x = x + (gate / (1 + np.exp(-gate)) * up) @ self._of(f"blk.{layer}.ffn_down.weight").T
        return self._normal(x, "output_norm.weight")

    def greedy(self, tokens: list[int], count: int) -> list[int]:
        """What goes on from tokens, the likeliest each time, until END or until there are enough."""
        found: list[int] = []
        while len(found) < count and (following := int(self.logits(np.array(tokens + found))[-1].argmax())) != END:
            found.append(following)
        return found

    def _of(self, name: str) -> Array:
        return self.weights[name].astype(np.float64)

    def _normal(self, x: Array, name: str) -> Array:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPSILON) * self._of(name)

    def _attend(self, x: Array, name: str) -> Array:
        size, count = WIDTH // HEADS, len(x)
        q, k, v = ((x @ self._of(f"{name}_{part}.weight").T).reshape(count, -1, size) for part in "qkv")
        q, k = _turned(q), np.repeat(_turned(k), HEADS // KEYS, 1)
        scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(size)
        scores[:, np.triu(np.ones((count, count), bool), 1)] = -np.inf
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        mixed = np.einsum("hij,jhd->ihd", shares, np.repeat(v, HEADS // KEYS, 1))
        return mixed.reshape(count, -1) @ self._of(f"{name}_output.weight").T


def _turned(x: Array) -> Array:
    """Each pair of neighbours turned by an angle that grows with the place of its token (rotary positions)."""
    pairs = x.reshape(*x.shape[:2], -1, 2)
    angles = np.arange(len(x))[:, None, None] * BASE ** (-2 * np.arange(pairs.shape[2]) / x.shape[2])
    complex_ = (pairs[..., 0] + 1j * pairs[..., 1]) * np.exp(1j * angles)
    return np.stack([complex_.real, complex_.imag], -1).reshape(x.shape)
