"""What sessions of ``llama-cpp`` give: logits, vectors, and texts. Each call begins with nothing remembered."""

from __future__ import annotations

import codecs
import ctypes
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Any, NamedTuple

import numpy as np

from nnrp.errors import ClientCancelled, InvalidParameter, RunFailed, ShapeMismatch, ValueOutOfRange
from nnrp.runtimes import package
from nnrp.runtimes.contract import Control

#: Most bytes of a prompt for each token of a context: the longest tokens that there are.
_TOKEN_BYTES = 128
#: How many tokens back a repetition counts.
_REPEATS = 64
#: A seed that llama.cpp takes for another one each time.
_ANY_SEED = 0xFFFFFFFF
#: Of what llama.cpp says: errors, and the rest of a line.
_ERROR, _CONTINUED = 3, 5


class _Said(threading.local):
    """The last errors that llama.cpp told of, each thread's own."""

    def __init__(self) -> None:
        self.lines: list[str] = []


_said = _Said()


def hear(level: int, text: bytes, _: Any) -> None:
    """Keep what llama.cpp says if it is an error."""
    if level == _ERROR:
        _said.lines = [*_said.lines[-3:], text.decode("utf-8", "replace").strip()]
    elif level == _CONTINUED and _said.lines:
        _said.lines[-1] += text.decode("utf-8", "replace").rstrip()


def said(path: str = "") -> str:
    """Give the last errors that llama.cpp told of on this thread, once."""
    lines, _said.lines = _said.lines, []
    return package.said("; ".join(lines) or "it does not say why", path)


class Loaded:
    """A model and what it works in, for one call at a time, which ends between two pieces of its tokens when nobody waits."""

    exclusive = True
    cancellable = True
    settings: dict[str, Any]

    def __init__(self, lib: Any, model: Any, context: Any, batch: int, most: int, ends: ExitStack) -> None:
        self._lib, self._context, self._most, self.ends = lib, context, most, ends
        self._vocabulary = lib.llama_model_get_vocab(model)
        self.tokens: int = lib.llama_vocab_n_tokens(self._vocabulary)
        self.width: int = lib.llama_model_n_embd(model)
        self._batch, self._at_once = lib.llama_batch_init(batch, 0, 1), batch
        ends.callback(lib.llama_batch_free, self._batch)
        fields = (self._batch.token, self._batch.pos, self._batch.n_seq_id, self._batch.logits)
        self._token, self._place, count, self._wanted = (np.ctypeslib.as_array(field, (batch,)) for field in fields)
        count[:] = 1
        for row in range(batch):
            self._batch.seq_id[row][0] = 0

    def close(self) -> None:
        """Free what it works in, and the model."""
        self.ends.close()

    def _begin(self) -> None:
        memory = self._lib.llama_get_memory(self._context)
        if memory:
            self._lib.llama_memory_clear(memory, True)

    def _take_in(self, tokens: Sequence[int] | np.ndarray[Any, Any], begin: int, every: bool, control: Control) -> Iterator[slice]:
        """Take tokens in behind those that are there, piece by piece; tell after each which of them have an answer now: every one, or the last."""
        for at in range(0, len(tokens), self._at_once):
            if control.stopped:
                raise ClientCancelled("the run was cancelled")
            piece = tokens[at : at + self._at_once]
            count = self._batch.n_tokens = len(piece)
            self._token[:count], self._place[:count] = piece, range(begin + at, begin + at + count)
            self._wanted[:count] = every
            self._wanted[count - 1] = True
            if status := self._lib.llama_decode(self._context, self._batch):
                raise RunFailed(f"runtime llama-cpp: it does not take the tokens in: status {status}: {said()}", runtime="llama-cpp", status=status)
            yield slice(at, at + count)

    def _tokens(self, text: bytes, name: str, special: bool = True) -> np.ndarray[Any, Any]:
        """The tokens of a text, with those that the model wants before and behind it."""
        most = self._most * _TOKEN_BYTES
        if len(text) > most:
            raise ShapeMismatch(f"input '{name}': expected at most {most} bytes for a context of {self._most} tokens, got {len(text)}", input=name)
        room = (ctypes.c_int32 * (len(text) + 8))()
        count = self._lib.llama_tokenize(self._vocabulary, text, len(text), room, len(room), True, special)
        if count < 0:
            raise RunFailed("runtime llama-cpp: it cannot tell the tokens of the text", runtime="llama-cpp")
        self._check_count(count, name)
        return np.array(room[:count], np.int32)

    def _check_count(self, count: int, name: str) -> None:
        if count > self._most:
            raise ShapeMismatch(f"input '{name}': expected at most {self._most} tokens, as the option 'context' says, got {count}", input=name)


class Logits(Loaded):
    """Tokens in, and for each the logits of what comes behind it."""

    def __init__(self, *made: Any) -> None:
        super().__init__(*made)
        self.inputs = [("tokens", "INT32", [-1])]
        self.outputs = [("logits", "FP32", [-1, self.tokens])]

    def run(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> np.ndarray[Any, Any]:
        tokens = inputs["tokens"]
        self._check_count(len(tokens), "tokens")
        odd = np.flatnonzero((tokens < 0) | (tokens >= self.tokens))
        if odd.size:
            message = f"input 'tokens': element {odd[0]}: expected a token from 0 to {self.tokens - 1}, got {tokens[odd[0]]}"
            raise ValueOutOfRange(message, input="tokens", index=int(odd[0]))
        given = np.empty((len(tokens), self.tokens), np.float32)
        self._begin()
        for piece in self._take_in(tokens, 0, True, control):
            given[piece] = np.ctypeslib.as_array(self._lib.llama_get_logits(self._context), (piece.stop - piece.start, self.tokens))
        return given


class Embedding(Loaded):
    """Texts in, and for each a vector."""

    def __init__(self, *made: Any) -> None:
        super().__init__(*made)
        self.inputs = [("text", "BYTES", [-1])]
        self.outputs = [("embedding", "FP32", [-1, self.width])]

    def run(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> np.ndarray[Any, Any]:
        texts = inputs["text"]
        given = np.zeros((len(texts), self.width), np.float32)
        for row, text in enumerate(texts):
            tokens = self._tokens(text, "text")
            self._begin()
            for _ in self._take_in(tokens, 0, True, control):
                given[row] = np.ctypeslib.as_array(self._lib.llama_get_embeddings_seq(self._context, 0), (self.width,))
        return given


class Sampling(NamedTuple):
    """How the next token is chosen, and when there is none: a request's parameters."""

    max_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    seed: int = _ANY_SEED
    stop: str = ""
    special: bool = True


#: The least and the most of each; of a text, of its length.
BOUNDS: dict[str, tuple[float, float]] = {
    "max_tokens": (1, 1 << 20),
    "temperature": (0, 100),
    "top_k": (0, 1 << 20),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "repeat_penalty": (0.01, 100),
    "seed": (0, _ANY_SEED - 1),
    "stop": (1, 256),
    "special": (0, 1),
}


def sampling(told: dict[str, Any]) -> Sampling:
    """Read a request's parameters.

    Raises:
        InvalidParameter: there is no such parameter, or it has another type, or is out of bounds.
    """
    for name, value in told.items():
        if name not in BOUNDS:
            raise InvalidParameter(f"parameter '{name[:96]}': expected one of {', '.join(BOUNDS)}", parameter=name[:96])
        kind, (least, most) = type(Sampling._field_defaults[name]), BOUNDS[name]
        fits = type(value) is kind or (kind is float and type(value) is int)
        if not fits or not least <= (len(value) if kind is str else value) <= most:
            of = {bool: "true or false", str: f"{least} to {most} characters", int: f"a whole number from {least} to {most}"}
            what = of.get(kind, f"a number from {least} to {most}")
            raise InvalidParameter(f"parameter '{name}': expected {what}, got {value!r:.96}", parameter=name)
    return Sampling(**told)


class Piece(NamedTuple):
    """Some of an answer: its text, its tokens, and why it ends with them where it does."""

    text: str
    tokens: list[int]
    finish_reason: str


class Generating(Loaded):
    """A text in, and what goes on from it."""

    def __init__(self, *made: Any) -> None:
        super().__init__(*made)
        self.inputs = [("prompt", "BYTES", [1])]
        self.outputs = [("text", "BYTES", [1]), ("tokens", "INT32", [-1]), ("finish_reason", "BYTES", [1])]

    def _pieces(self, prompt: bytes, control: Control) -> Generator[Piece, None, None]:
        """Text as it comes: whole characters, and none of what may turn out to be the text that ends it."""
        chosen = sampling(control.parameters)
        decoder, held, tokens = codecs.getincrementaldecoder("utf-8")("replace"), "", list[int]()
        reason = "length"
        for token, spelt in self._continue(self._tokens(prompt, "prompt", chosen.special), chosen, control):
            if token is None:
                reason = "stop"
                break
            held, tokens = held + decoder.decode(spelt), [*tokens, token]
            ready, sign, _ = held.partition(chosen.stop) if chosen.stop else (held, "", "")
            if sign:
                yield Piece(ready, tokens, "stop")
                return
            ready = held[: len(held) - _overlap(held, chosen.stop)]
            if ready:
                yield Piece(ready, tokens, "")
                held, tokens = held[len(ready) :], []
        yield Piece(held + decoder.decode(b"", True), tokens, reason)

    def _continue(self, prompt: np.ndarray[Any, Any], chosen: Sampling, control: Control) -> Iterator[tuple[int | None, bytes]]:
        """Each token behind the prompt and how it is spelt, until there are enough; None where the model ends it itself."""
        lib = self._lib
        if not len(prompt):
            raise ShapeMismatch("input 'prompt': expected a token at least, got an empty text of a model that begins with nothing", input="prompt")
        self._begin()
        with ExitStack() as ends:
            sampler = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
            ends.callback(lib.llama_sampler_free, sampler)
            for one in self._samplers(chosen):
                lib.llama_sampler_chain_add(sampler, one)
            taken, following = 0, prompt
            for _ in range(min(chosen.max_tokens, self._most - len(prompt) + 1)):
                for _ in self._take_in(following, taken, False, control):
                    pass
                taken += len(following)
                token = lib.llama_sampler_sample(sampler, self._context, -1)
                if lib.llama_vocab_is_eog(self._vocabulary, token):
                    yield None, b""
                    return
                yield token, self._spell(token)
                following = np.array([token], np.int32)

    def _samplers(self, chosen: Sampling) -> Iterator[Any]:
        """Whatever narrows the choice, in llama.cpp's own order, and what chooses."""
        lib = self._lib
        if chosen.repeat_penalty != 1:
            yield lib.llama_sampler_init_penalties(self.tokens, _REPEATS, chosen.repeat_penalty, 0.0, 0.0)
        if chosen.temperature == 0:
            yield lib.llama_sampler_init_greedy()
            return
        yield lib.llama_sampler_init_top_k(chosen.top_k)
        yield lib.llama_sampler_init_top_p(chosen.top_p, 1)
        yield lib.llama_sampler_init_min_p(chosen.min_p, 1)
        yield lib.llama_sampler_init_temp(chosen.temperature)
        yield lib.llama_sampler_init_dist(chosen.seed)

    def _spell(self, token: int) -> bytes:
        room = ctypes.create_string_buffer(256)
        count = self._lib.llama_token_to_piece(self._vocabulary, token, room, len(room), 0, False)
        if count < 0:
            room = ctypes.create_string_buffer(-count)
            count = self._lib.llama_token_to_piece(self._vocabulary, token, room, len(room), 0, False)
        return room.raw[: max(count, 0)]


class Text(Generating):
    """The whole answer at once."""

    def run(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> dict[str, Any]:
        pieces = list(self._pieces(inputs["prompt"][0], control))
        return _answer(Piece("".join(piece.text for piece in pieces), [token for piece in pieces for token in piece.tokens], pieces[-1].finish_reason))


class Stream(Generating):
    """The answer as it comes; the last piece tells why it is the last."""

    def stream(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> Iterator[dict[str, Any]]:
        with closing(self._pieces(inputs["prompt"][0], control)) as pieces:
            for piece in pieces:
                yield _answer(piece)


def _answer(piece: Piece) -> dict[str, Any]:
    texts = {name: np.array([text.encode()], object) for name, text in (("text", piece.text), ("finish_reason", piece.finish_reason))}
    return {**texts, "tokens": np.array(piece.tokens, np.int32)}


def _overlap(text: str, stop: str) -> int:
    """How much of a text's end may be the beginning of another."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)


#: What a session gives, by the option of that name.
KINDS: dict[str, Any] = {"text": Text, "stream": Stream, "logits": Logits, "embedding": Embedding}
