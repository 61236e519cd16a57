"""Language models in GGUF files: a little one whose numbers are known, behind the same calls as every other model."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import little_llama
import numpy as np
import page
import pytest

import nnrp
from nnrp import errors
from nnrp.testing import check_runtime

LITTLE = little_llama.Little(little_llama.weights())
#: The tokens of "ab", with the one that begins a text.
AB = [little_llama.BEGIN, little_llama.TOKENS.index("\u2581ab")]
#: Of the conformance suite, what can be asked of a runtime that reads nothing but language models: none of them computes 2x + 1.
CHECKS = ["contract", "cancellation", "errors.reasons", "numerics.reference"]
CHECKS += [f"streams.{what}" for what in ("order", "only", "refused", "threads", "left", "deadline")]
LONG = 16_384


@pytest.fixture(scope="module")
def little(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return little_llama.write(tmp_path_factory.mktemp("gguf") / "little.gguf")


@pytest.fixture(scope="module")
def text(little: Path) -> nnrp.Model:
    return nnrp.load(little)


def ask(model: nnrp.Model, prompt: str | bytes = "ab", **parameters: Any) -> tuple[str, list[int], str]:
    answer = model.infer({"prompt": [prompt]}, parameters=parameters)
    return answer["text"][0].decode(), answer["tokens"].tolist(), answer["finish_reason"][0].decode()


def test_it_keeps_what_of_the_contract_can_be_asked_of_a_language_model(little: Path, tmp_path: Path) -> None:
    tokens = np.random.default_rng(0).integers(0, len(little_llama.TOKENS), 100).astype(np.int32)
    np.savez(tmp_path / "right.npz", tokens=tokens, logits=LITTLE.logits(tokens).astype(np.float32))
    long = little_llama.write(tmp_path / "long.gguf", None, little_llama.metadata() | {"llama.context_length": LONG})
    slow = {"path": long, "options": {"gives": "logits", "context": LONG}, "ask": {"tokens": [5] * LONG}, "then": {"tokens": [5]}}
    plain = {"path": little, "options": {"gives": "logits"}}
    stream = {"path": long, "options": {"gives": "stream", "context": LONG}, "ask": {"prompt": ["ab"]}}
    models: dict[str, Any] = {"affine": plain, "numerics": {**plain, "expected": tmp_path / "right.npz"}, "slow": slow, "stream": stream}
    report = check_runtime("llama-cpp", models=models, only=CHECKS, tolerance=1e-4, isolate=False)
    assert report.passed, report.table()
    assert {one.id for one in report.outcomes if one.verdict == "pass"} >= {
        "contract.truncated_file",
        "numerics.reference",
        "cancellation.stops",
        "streams.left",
    }


def test_logits_are_those_of_the_same_model_in_numpy(little: Path) -> None:
    model = nnrp.load(little, options={"gives": "logits", "batch": 7})
    for count in (0, 1, 6, 7, 8, 300, little_llama.CONTEXT):
        tokens = np.random.default_rng(count).integers(0, len(little_llama.TOKENS), count).astype(np.int32)
        expected = LITTLE.logits(tokens) if count else np.zeros((0, len(little_llama.TOKENS)))
        np.testing.assert_allclose(model(tokens)["logits"], expected, atol=1e-3, rtol=0)


def test_less_exact_is_told_and_about_as_right(little: Path) -> None:
    tokens = np.arange(60, dtype=np.int32)
    model = nnrp.load(little, options={"gives": "logits"}, precision="fp16")
    assert model.session is not None
    assert model.session.settings["precision"] == "fp16"
    off = np.abs(model(tokens)["logits"] - LITTLE.logits(tokens)).max()
    assert 1e-5 < off < 0.1
    with pytest.raises(errors.NotOffered):
        nnrp.load(little, runtime="llama-cpp", precision="int8")


def test_a_text_goes_on_as_the_likeliest_tokens_do(text: nnrp.Model) -> None:
    said, tokens, reason = ask(text, max_tokens=24)
    assert tokens == LITTLE.greedy(AB, 24)
    assert (len(said) > 0, reason) == (True, "length")
    assert ask(text, max_tokens=24) == (said, tokens, reason)
    whole = ask(text, max_tokens=1 << 20)
    assert (whole[1][:24], len(whole[1]), whole[2]) == (tokens, little_llama.CONTEXT - len(AB) + 1, "length")


def test_a_model_that_ends_its_text_says_stop(tmp_path: Path) -> None:
    weights = little_llama.weights()
    following = LITTLE.greedy(AB, 3)
    # What comes third, ends it.
    order = list(range(len(little_llama.TOKENS)))
    order[little_llama.END], order[following[2]] = following[2], little_llama.END
    weights |= {"output.weight": weights["output.weight"][order]}
    model = nnrp.load(little_llama.write(tmp_path / "ends.gguf", weights, little_llama.metadata()))
    assert ask(model)[1:] == (following[:2], "stop")


def test_a_text_ends_before_what_is_to_stop_it_however_it_comes_in_pieces(little: Path, text: nnrp.Model) -> None:
    whole = ask(text, max_tokens=40)[0]
    stream = nnrp.load(little, options={"gives": "stream"})
    for begin in (2, 5, 9):
        stop = whole[begin : begin + 3]
        expected = whole[: whole.index(stop)]
        assert ask(text, max_tokens=40, stop=stop)[::2] == (expected, "stop")
        pieces = list(stream.stream({"prompt": ["ab"]}, parameters={"max_tokens": 40, "stop": stop}))
        assert b"".join(piece["text"][0] for piece in pieces).decode() == expected
        assert [piece["finish_reason"][0] for piece in pieces][-1:] == [b"stop"]
    assert ask(text, max_tokens=40, stop="never said")[0] == whole


def test_a_stream_gives_the_same_piece_by_piece_in_whole_characters(little: Path, text: nnrp.Model) -> None:
    said, tokens, _ = ask(text, max_tokens=60)
    pieces = list(nnrp.load(little, options={"gives": "stream"}).stream({"prompt": ["ab"]}, parameters={"max_tokens": 60}))
    assert len(pieces) > 20
    assert "".join(piece["text"][0].decode() for piece in pieces) == said
    assert [token for piece in pieces for token in piece["tokens"].tolist()] == tokens
    assert [piece["finish_reason"][0] for piece in pieces] == [b""] * (len(pieces) - 1) + [b"length"]


def test_a_reader_that_leaves_ends_the_stream(tmp_path: Path) -> None:
    long = little_llama.write(tmp_path / "long.gguf", None, little_llama.metadata() | {"llama.context_length": LONG})
    model = nnrp.load(long, options={"gives": "stream", "context": LONG})
    answers = model.stream({"prompt": ["ab"]}, parameters={"max_tokens": LONG, "temperature": 1.0})
    next(answers)
    answers.close()
    assert len(list(model.stream({"prompt": ["ab"]}, parameters={"max_tokens": 3}, timeout=60))) >= 3


def test_chance_is_what_the_parameters_say(text: nnrp.Model) -> None:
    free = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "max_tokens": 30}
    assert ask(text, seed=7, **free) == ask(text, seed=7, **free)
    assert len({ask(text, seed=seed, **free)[0] for seed in range(5)}) == 5
    likeliest = ask(text, max_tokens=30)
    assert ask(text, **{**free, "top_k": 1}) == likeliest
    assert ask(text, **{**free, "temperature": 1e-4}) == likeliest
    repeated = ask(text, max_tokens=60)[1]
    assert len(set(ask(text, max_tokens=60, repeat_penalty=100)[1])) > len(set(repeated))


@pytest.mark.parametrize(
    "parameters", [{"temprature": 1}, {"max_tokens": 0}, {"max_tokens": 1.5}, {"stop": ""}, {"stop": "x" * 257}, {"special": 1}, {"top_p": 2}, {"seed": -1}]
)
def test_a_parameter_that_is_none_is_refused_with_what_would_be_one(text: nnrp.Model, parameters: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidParameter, match="expected") as refused:
        text.infer({"prompt": ["ab"]}, parameters=parameters)
    assert refused.value.details["parameter"] in parameters


def test_special_tokens_of_a_prompt_can_be_plain_text(text: nnrp.Model) -> None:
    assert ask(text, "</s>", max_tokens=8)[1] == LITTLE.greedy([little_llama.BEGIN, little_llama.END], 8)
    assert ask(text, "</s>", max_tokens=8, special=False)[1] != ask(text, "</s>", max_tokens=8)[1]


@pytest.mark.parametrize("prompt", [b"", b"\xff\xfe\xc3", b"\0a\0", "ä€\U0001d11e".encode(), b"ab " * 150, b"<s></s><unk><0x00>"])
def test_any_bytes_are_a_prompt(text: nnrp.Model, prompt: bytes) -> None:
    assert ask(text, prompt, max_tokens=2)[2] in ("length", "stop")


def test_what_is_longer_than_the_context_is_refused(little: Path, text: nnrp.Model) -> None:
    for prompt in ("x" * little_llama.CONTEXT, "x" * 1_000_000):
        with pytest.raises(errors.ShapeMismatch, match="expected at most"):
            ask(text, prompt)
    model = nnrp.load(little, options={"gives": "logits", "context": 10})
    with pytest.raises(errors.ShapeMismatch, match="at most 10 tokens"):
        model(np.zeros(11, np.int32))
    for token in (-1, len(little_llama.TOKENS), 2**31 - 1):
        with pytest.raises(errors.ValueOutOfRange, match="element 1"):
            model(np.array([0, token], np.int32))


def test_a_vector_is_the_mean_of_what_the_last_layer_gives(little: Path) -> None:
    model = nnrp.load(little, options={"gives": "embedding"})
    got = model(text=["ab", "", "ab ab ab"])["embedding"]
    np.testing.assert_allclose(got[0], LITTLE.states(np.array(AB)).mean(0), atol=1e-4)
    np.testing.assert_allclose(got[1], LITTLE.states(np.array(AB[:1])).mean(0), atol=1e-4)
    assert got.shape == (3, little_llama.WIDTH)
    assert model(text=np.zeros(0, object))["embedding"].shape == (0, little_llama.WIDTH)


def test_a_run_ends_at_its_deadline_and_the_next_one_is_right(tmp_path: Path) -> None:
    long = little_llama.write(tmp_path / "long.gguf", None, little_llama.metadata() | {"llama.context_length": LONG})
    model = nnrp.load(long, options={"context": LONG})
    with pytest.raises(errors.DeadlineExceeded):
        asyncio.run(model.infer_async({"prompt": ["ab"]}, parameters={"max_tokens": LONG}, timeout=0.5))
    assert ask(model, max_tokens=24)[1] == LITTLE.greedy(AB, 24)


def test_callers_at_once_get_their_own_answers_in_turn(little: Path) -> None:
    model = nnrp.load(little, options={"gives": "logits"})

    def wrong(thread: int) -> int:
        draw, odd = np.random.default_rng(thread), 0
        for _ in range(20):
            tokens = draw.integers(0, len(little_llama.TOKENS), 20).astype(np.int32)
            odd += not np.allclose(model(tokens)["logits"], LITTLE.logits(tokens), atol=1e-3)
        return odd

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(wrong, range(4))) == 0


def test_loads_leave_nothing_behind(little: Path) -> None:
    def resident() -> int:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    engine, sizes = nnrp.Engine(), []
    for _ in range(4):
        for _ in range(50):
            model = engine.load(little, "m")
            ask(model, max_tokens=2)
            del model
            engine.unload("m")
        sizes.append(resident())
    assert min(after - before for before, after in pairwise(sizes)) < 1 << 20, sizes


def test_files_that_are_no_models_are_typed_errors(little: Path, tmp_path: Path) -> None:
    weights, values, bad = little_llama.weights(), little_llama.metadata(), tmp_path / "bad.gguf"
    odd: list[tuple[dict[str, Any], dict[str, Any]]] = [({**weights, "output.weight": weights["output.weight"][:1]}, values)]
    odd += [({name: tensor for name, tensor in weights.items() if name != left}, values) for left in ("token_embd.weight", "blk.1.attn_q.weight")]
    wrong = [("general.architecture", "nobody"), ("llama.attention.head_count", 5), ("llama.block_count", 9)]
    odd += [(weights, values | {key: value}) for key, value in wrong]
    odd += [(weights, values | {"tokenizer.ggml.model": "nobody"}), (weights, values | {"tokenizer.ggml.scores": [0.0]}), (weights, {})]
    for tensors, told in odd:
        little_llama.write(bad, tensors, told)
        with pytest.raises(errors.InvalidModel, match=r"llama\.cpp cannot read it: ") as refused:
            nnrp.load(bad, runtime="llama-cpp")
        assert str(tmp_path) not in refused.value.message
    assert ask(nnrp.load(little), max_tokens=3)[1] == LITTLE.greedy(AB, 3)


def test_a_file_that_ends_the_process_ends_that_of_its_model_alone(tmp_path: Path) -> None:
    # A vocabulary of another kind than its tokens are: llama.cpp ends the process.
    odd = little_llama.write(tmp_path / "odd.gguf", None, little_llama.metadata() | {"tokenizer.ggml.model": "bert"})
    with pytest.raises(errors.LoadFailed, match=r"it ended \(SIGABRT\) while it loaded the model"):
        nnrp.load(odd, runtime="llama-cpp", isolation="process")


def test_it_prints_nothing(little: Path) -> None:
    program = f"import nnrp; print(nnrp.load({str(little)!r}).infer({{'prompt': ['ab']}}, parameters={{'max_tokens': 2}})['tokens'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


def test_a_server_answers_texts_and_streams_over_the_wire(little: Path) -> None:
    engine = nnrp.Engine()
    engine.load(little, "whole")
    engine.load(little, "pieces", options={"gives": "stream"})
    with nnrp.serve(engine, http_port=0, grpc_port=0) as server:
        expected = LITTLE.greedy(AB, 12)
        for url in (server.http_url, server.grpc_url):
            assert ask(nnrp.connect(url or "", model="whole"), max_tokens=12)[1] == expected
        remote = nnrp.connect(server.grpc_url or "", model="pieces")
        answers = remote.stream({"prompt": ["ab"]}, parameters={"max_tokens": 12})
        assert [token for answer in answers for token in answer["tokens"].tolist()] == expected
    assert not [thread for thread in threading.enumerate() if "llama" in thread.name]


def test_the_page_runs_as_written(tmp_path: Path) -> None:
    little_llama.write(tmp_path / "model.gguf")
    assert page.run("llama-cpp", "llama-cpp", tmp_path) == 3
