"""The runtime ``llama-cpp``: language models in GGUF files, by llama.cpp."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from nnrp.errors import InvalidModel, LoadFailed, NotOffered
from nnrp.runtimes import gguf, package
from nnrp.runtimes.contract import ModelSpec, Session, Streaming, on_cpu
from nnrp.runtimes.cores import cores, option
from nnrp.runtimes.llama_session import KINDS, hear, said

#: Most tokens that a context has unless the options say otherwise, and at all.
USUAL_CONTEXT, MOST_CONTEXT = 4096, 1 << 20
#: llama.cpp's own numbers: datatypes of what it remembers of a prompt, kinds of pooling, no vocabulary.
_FP32, _FP16 = 0, 1
_UNPOOLED, _MEAN, _RANK = 0, 1, 4
_NO_VOCABULARY = 0
#: What llama.cpp calls with its errors, as long as the process lives.
_kept: list[Any] = []
_lock = threading.Lock()
_BATCH = {"type": "integer", "minimum": 1, "maximum": 4096, "default": 64, "description": "tokens taken in at once; between them a run can be ended"}


class LlamaCpp:
    """Loads `.gguf` files, on the CPU."""

    name = "llama-cpp"
    formats = ("gguf",)

    def info(self) -> dict[str, Any]:
        about = {
            "text": "what a text goes on with",
            "stream": "the same, piece by piece",
            "logits": "the logits after each token",
            "embedding": "a vector for each text",
        }
        properties = {
            "gives": {"enum": list(about), "default": "text", "description": "; ".join(f"{name}: {what}" for name, what in about.items())},
            "context": {
                "type": "integer",
                "minimum": 1,
                "maximum": MOST_CONTEXT,
                "description": f"most tokens of a prompt and its answer; default: as many as the model was trained with, at most {USUAL_CONTEXT}",
            },
            "batch": _BATCH,
            "threads": option("threads of each run; the default is the physical cores"),
        }
        schema = {"type": "object", "properties": properties, "additionalProperties": False}
        return {"version": package.version(self.name, "llama_cpp", "llama-cpp-python"), "formats": self.formats, "devices": ["cpu"], "options": schema}

    def load(self, spec: ModelSpec) -> Session | Streaming:
        # What it remembers is FP32 or FP16; the weights are what they are in the file.
        narrow = spec.precision in ("fp16", "fast")
        on_cpu(self.name, replace(spec, precision="strict") if narrow else spec)
        header = gguf.read(spec.path)
        lib = _library()
        gives, options = spec.options.get("gives", "text"), spec.options
        context = options.get("context", min(header.number("context_length") or USUAL_CONTEXT, USUAL_CONTEXT))
        # A vector is of all of a text at once.
        batch = context if gives == "embedding" else min(options.get("batch", 64), context)
        settings = {"precision": "fp16" if narrow else "strict", "context": context, "batch": batch, "threads": options.get("threads", cores())}
        with ExitStack() as ends:
            model = _model(lib, spec.path, ends)
            _check_kind(lib, model, gives)
            made = _context(lib, model, settings, gives == "embedding", ends)
            loaded: Any = KINDS[gives](lib, model, made, batch, context, ends)
            loaded.ends = ends.pop_all()
        loaded.settings = {**settings, "gives": gives, "weights": header.parameters.most_common(1)[0][0]}
        found: Session | Streaming = loaded
        return found


def _library() -> Any:
    """llama.cpp, which tells its errors to us from now on and prints nothing."""
    lib = package.load("llama-cpp", "llama_cpp.llama_cpp")
    with _lock:
        if not _kept:
            # When it ends the process it starts another to tell where, and waits for that one, which may never end.
            os.environ.setdefault("GGML_NO_BACKTRACE", "1")
            _kept.append(lib.llama_log_callback(hear))
            lib.llama_backend_init()
        # Its package prints, and sets that up as it is imported, also behind us.
        lib.llama_log_set(_kept[0], None)
    return lib


def _model(lib: Any, path: str, ends: ExitStack) -> Any:
    params = lib.llama_model_default_params()
    params.n_gpu_layers = 0
    said()
    model = lib.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        raise InvalidModel(f"model file: llama.cpp cannot read it: {said(path)}", runtime="llama-cpp")
    ends.callback(lib.llama_model_free, model)
    return model


def _check_kind(lib: Any, model: Any, gives: str) -> None:
    """Refuse what the model is not made for."""
    if gives != "embedding" and (lib.llama_model_has_encoder(model) or not lib.llama_model_has_decoder(model) or lib.llama_model_is_diffusion(model)):
        raise NotOffered(f"model file: it does not go on with what it is given, token by token, so it gives no {gives}", runtime="llama-cpp", gives=gives)
    if gives != "logits" and lib.llama_vocab_type(lib.llama_model_get_vocab(model)) == _NO_VOCABULARY:
        raise NotOffered(f"model file: it has no vocabulary for texts: expected the option gives 'logits', got '{gives}'", runtime="llama-cpp", gives=gives)


def _context(lib: Any, model: Any, settings: dict[str, Any], embedding: bool, ends: ExitStack) -> Any:
    """What a run works in, empty; for vectors with whatever makes one of many, the mean where the model does not say."""
    params = lib.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = settings["context"], settings["batch"], settings["batch"], 1
    params.n_threads = params.n_threads_batch = settings["threads"]
    params.type_k = params.type_v = _FP16 if settings["precision"] == "fp16" else _FP32
    params.flash_attn_type = 0
    params.offload_kqv = params.op_offload = False
    params.embeddings, params.no_perf = embedding, True
    while True:
        said()
        made = lib.llama_init_from_model(model, params)
        if not made:
            raise LoadFailed(f"runtime llama-cpp: a context of {settings['context']} tokens cannot be had: {said()}", runtime="llama-cpp")
        pooling = lib.llama_pooling_type(made)
        if not embedding or pooling not in (_UNPOOLED, _RANK):
            ends.callback(lib.llama_free, made)
            return made
        lib.llama_free(made)
        if pooling == _RANK:
            raise NotOffered("model file: it ranks texts and has no vectors for them", runtime="llama-cpp")
        params.pooling_type = _MEAN
