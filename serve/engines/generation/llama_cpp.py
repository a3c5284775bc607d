"""llama.cpp as an engine, through the package xllamacpp: a GGUF file with weights of 8 or 4 bits.

llama.cpp's server runs in this process, in threads of its own, and is called by functions; the HTTP server that it
brings listens on a socket file that only this user can open. The vocabulary of the file names tokens by their ids
(`plain_vocabulary`), so token ids go in and come out.
"""

from __future__ import annotations

import json
import re
import signal
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from serve.engines.base import EngineError
from serve.engines.generation.answer import GrowingAnswer
from serve.engines.generation.native_signals import restored_signals
from serve.engines.generation.parameters import TOP_LOGPROBS, refuse_unsupported
from trainer.export.gguf_vocabulary import plain_piece
from trainer.generation.engine import (
    EngineFull,
    EngineStats,
    GenerationEvent,
    GenerationRequest,
    TokenLogprob,
    check_request,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from trainer.generation.torch_engine import EngineOptions

#: Sampling parameters that llama.cpp computes as the model's own engine does. Its penalties count the prompt's tokens
#: too, and its grammars have another form.
EXACT = frozenset(
    {
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "stop",
        "logit_bias",
        "logprobs",
        TOP_LOGPROBS,
        "ignore_eos",
    }
)
# Added to the logit of a token that is to be chosen whatever the model computes.
_CERTAIN = 1e4
# How long a step waits for a token; requests are added and cancelled between steps.
_STEP_S = 0.005
# Tokens of prompts in one forward pass, beside one of each running answer.
_PROMPT_TOKENS = 64
_PIECE = re.compile(r"<(\d{6})>")


class LlamaCppEngine:
    """An `Engine` over a GGUF file with a plain vocabulary."""

    def __init__(
        self,
        path: Path,
        tokenizer: Tokenizer | None,
        eos_ids: Sequence[int],
        options: EngineOptions,
        *,
        model_length: int,
        threads: int = 1,
    ) -> None:
        """`eos_ids` are the tokens that end an answer, first the one in the file.

        `model_length` is the most tokens that the model can read. Raises `EngineError` if llama.cpp cannot run it.

        Each of `options.slots` requests has an equal share of `options.cache_tokens`.
        """
        self._options, self._tokenizer, self._eos_ids = options, tokenizer, tuple(eos_ids)
        share = min(options.cache_tokens // options.slots, model_length)
        self.max_length = min(share, options.max_length or share)
        self._folder = tempfile.TemporaryDirectory(prefix="raymill-llama-")
        self._server = _start_server(path, Path(self._folder.name), options.slots, share, threads)
        self._workers = ThreadPoolExecutor(options.slots, thread_name_prefix="raymill-llama")
        self._chunks: SimpleQueue[tuple[str, bytes | Exception]] = SimpleQueue()
        self._answers: dict[str, GrowingAnswer] = {}
        self._started: set[str] = set()
        self._prompt_tokens = self._cached_tokens = self._generated_tokens = 0

    @property
    def has_work(self) -> bool:
        """Whether a request runs or waits."""
        return bool(self._answers)

    def add(self, request: GenerationRequest) -> None:
        """Queue a request. Raises `EngineFull`; `ValueError` for a bad prompt, and for what llama.cpp does not support."""
        refuse_unsupported(request, EXACT, "llama.cpp")
        check_request(request, self.max_length, has_tokenizer=self._tokenizer is not None)
        if len(self._answers) >= self._options.slots + self._options.max_waiting:
            raise EngineFull(f"{len(self._answers)} requests run or wait already")
        answer = GrowingAnswer(request, self._tokenizer, self._eos_ids)
        self._answers[request.id] = answer
        self._workers.submit(self._generate, answer)

    def cancel(self, request_id: str) -> None:
        """Drop a request. Its slot is free after the token that is computed now. No event follows."""
        answer = self._answers.pop(request_id, None)
        if answer is not None:
            answer.is_finished = True

    def step(self) -> list[GenerationEvent]:
        """Return the tokens that have come since the last call; waits some milliseconds for the next one."""
        events: list[GenerationEvent] = []
        try:
            chunk = self._chunks.get(timeout=_STEP_S) if self._answers else self._chunks.get_nowait()
            while True:
                events += self._read(*chunk)
                chunk = self._chunks.get_nowait()
        except Empty:
            return events

    def score(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Return the log-probability of each token after the first, given those before it: float32, (T - 1,) each."""
        futures: list[Future[np.ndarray]] = [self._workers.submit(self._score, list(ids)) for ids in sequences]
        return [future.result() for future in futures]

    def stats(self) -> EngineStats:
        """Return the load and the counts."""
        running = len(self._started & self._answers.keys())
        return EngineStats(
            running=running,
            waiting=len(self._answers) - running,
            cache_tokens=sum(len(answer.request.prompt_ids) + answer.n_tokens for answer in self._answers.values()),
            cache_capacity=self._options.cache_tokens,
            prompt_tokens=self._prompt_tokens,
            cached_prompt_tokens=self._cached_tokens,
            generated_tokens=self._generated_tokens,
        )

    def close(self) -> None:
        """Free the model. Requests that still run are dropped."""
        for request_id in list(self._answers):
            self.cancel(request_id)
        self._workers.shutdown(wait=True, cancel_futures=True)
        del self._server
        self._folder.cleanup()

    # -- in the worker threads

    def _generate(self, answer: GrowingAnswer) -> None:
        """Run one request, from its slot's start to its end."""
        request_id = answer.request.id

        def take(chunk: bytes) -> bool:
            """Take a part of the answer; return whether llama.cpp shall stop."""
            if not answer.is_finished:
                self._chunks.put((request_id, chunk))
            return answer.is_finished

        if answer.is_finished:
            return
        self._started.add(request_id)
        try:
            self._server.handle_completions(json.dumps(_query(answer.request)).encode(), take)
        except Exception as error:
            self._chunks.put((request_id, error))
        finally:
            self._started.discard(request_id)

    def _score(self, ids: list[int]) -> np.ndarray:
        parts = [np.zeros(0, np.float32)]
        start = 1
        while start < len(ids):
            end = next((index + 1 for index in range(start, len(ids)) if ids[index] == self._eos_ids[0]), len(ids))
            parts.append(self._force(ids[:start], ids[start:end]))
            start = end
        return np.concatenate(parts)

    def _force(self, prompt: list[int], tokens: list[int]) -> np.ndarray:
        """Return the log-probabilities of `tokens` after `prompt`. Only the last one may be the end of a turn.

        A grammar that allows exactly these tokens makes llama.cpp write them; it reports log-probabilities without it.
        """
        end = self._eos_ids[0]
        query: dict[str, Any] = {"prompt": prompt, "max_tokens": len(tokens), "temperature": 0, "logprobs": 1}
        if tokens == [end]:
            query["logit_bias"] = [[end, _CERTAIN]]
        else:  # once the text is complete, a grammar allows nothing but the end of the turn
            query["grammar"] = 'root ::= "' + "".join(plain_piece(token) for token in tokens if token != end) + '"'
        reply = self._server.handle_completions(query)
        if "choices" not in reply:
            raise EngineError(f"llama.cpp could not score a sequence: {reply}")
        content = reply["choices"][0]["logprobs"]["content"][: len(tokens)]
        if [entry["id"] for entry in content] != tokens:
            raise EngineError("llama.cpp did not follow the tokens of a sequence")
        return np.array([entry["logprob"] for entry in content], np.float32)

    # -- in the engine's thread

    def _read(self, request_id: str, chunk: bytes | Exception) -> list[GenerationEvent]:
        """Return the events of one part of an answer."""
        answer = self._answers.get(request_id)
        if answer is None:
            return []
        problem = str(chunk) if isinstance(chunk, Exception) else ""
        value = {} if isinstance(chunk, Exception) else json.loads(chunk)
        if "choices" not in value:
            del self._answers[request_id]
            return [answer.fail(problem or f"llama.cpp failed: {value.get('message', value)}")]
        events = []
        for token, logprob in self._tokens(answer, value["choices"][0]):
            event = answer.add(token, logprob)
            if answer.n_tokens == 1:
                self._prompt_tokens += len(answer.request.prompt_ids)
            self._generated_tokens += 1
            events.append(event)
            if answer.is_finished:
                del self._answers[request_id]
                break
        cached = value.get("usage", {}).get("prompt_tokens_details", {}).get("cached_tokens", 0)
        self._cached_tokens += cached
        return events

    def _tokens(self, answer: GrowingAnswer, choice: dict[str, Any]) -> list[tuple[int, TokenLogprob | None]]:
        """Return the tokens of a part, with their log-probabilities if the request asks for them."""
        n_top = answer.request.params.logprobs
        entries = (choice.get("logprobs") or {}).get("content") or []
        if n_top is not None and entries:
            return [
                (
                    entry["id"],
                    TokenLogprob(
                        entry["id"],
                        entry["logprob"],
                        tuple((top["id"], top["logprob"]) for top in entry["top_logprobs"][:n_top]),
                    ),
                )
                for entry in entries
            ]
        tokens: list[tuple[int, TokenLogprob | None]] = [
            (int(piece), None) for piece in _PIECE.findall(choice.get("text") or "")
        ]
        if not tokens and choice.get("finish_reason") == "stop" and not answer.is_finished:
            tokens.append((self._eos_ids[0], None))  # the end of the turn has no text
        return tokens


def _query(request: GenerationRequest) -> dict[str, Any]:
    """Return a request in llama.cpp's terms."""
    params = request.params
    query: dict[str, Any] = {
        "prompt": list(request.prompt_ids),
        "max_tokens": params.max_tokens,
        "stream": True,
        "temperature": params.temperature,
        "samplers": ["temperature", "top_k", "top_p", "min_p"],
        "top_k": params.top_k,
        "top_p": params.top_p,
        "min_p": params.min_p,
        "repeat_penalty": 1.0,
        "seed": params.seed % 0xFFFFFFFF,  # 0xFFFFFFFF means a random one
        "ignore_eos": params.ignore_eos,
        "cache_prompt": True,
    }
    if params.logit_bias:
        query["logit_bias"] = [[token, bias] for token, bias in params.logit_bias.items()]
    if params.logprobs is not None:
        query["logprobs"] = max(1, params.logprobs)
    return query


def _start_server(path: Path, folder: Path, slots: int, length: int, threads: int) -> Any:
    try:
        import xllamacpp
    except ImportError as error:
        raise EngineError("xllamacpp is not installed; run `pip install 'raymill[llama-cpp]'`") from error
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.hostnames = [str(folder / "http.sock")]
    params.n_threads_http = 1
    params.ui = params.endpoint_slots = params.endpoint_props = False
    params.n_parallel, params.n_ctx, params.kv_unified = slots, slots * length, False
    params.n_batch = params.n_ubatch = slots + _PROMPT_TOKENS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.cache_ram_mib = 0  # keeps prompts of ended requests in memory beside the slots, 8 GB by default
    params.verbosity = -1
    try:
        with restored_signals(signal.SIGINT, signal.SIGTERM):  # it would end this process on its own
            return xllamacpp.Server(params)
    except RuntimeError as error:
        raise EngineError(f"llama.cpp cannot load {path.name}: {error}") from error
