"""OpenVINO GenAI as an engine: its pipeline with continuous batching, called step by step with token ids.

The graph comes from a GGUF file, which OpenVINO reads by itself. It is converted once, when the engine is built.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from serve.engines.base import EngineError
from serve.engines.generation.answer import GrowingAnswer
from serve.engines.generation.parameters import refuse_unsupported
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

#: Sampling parameters that OpenVINO computes as the model's own engine does. Alternatives to a token are not reported.
EXACT = frozenset(
    {
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "seed",
        "stop",
        "ignore_eos",
        "logprobs",
    }
)
# Tokens of keys and values in one block of OpenVINO's cache on CPUs.
_BLOCK_TOKENS = 32
# Tokens of prompts in one forward pass, beside one of each running answer.
_PROMPT_TOKENS = 64


def convert_gguf(path: Path, into: Path) -> None:
    """Write OpenVINO's graph of a GGUF file into the folder `into`. Raises `EngineError` if OpenVINO cannot read it."""
    genai = _import_genai()
    source = into / "model.gguf"
    path.replace(source)  # OpenVINO writes the graph beside the file
    try:
        genai.ContinuousBatchingPipeline(
            str(source), genai.SchedulerConfig(), "CPU", {"enable_save_ov_model": True, "INFERENCE_NUM_THREADS": 1}
        )
    except RuntimeError as error:
        raise EngineError(f"OpenVINO GenAI cannot read the model: {str(error).splitlines()[-1]}") from error
    finally:
        source.unlink()


class OpenVinoGenAiEngine:
    """An `Engine` over a graph written by `convert_gguf`."""

    def __init__(
        self,
        folder: Path,
        tokenizer: Tokenizer | None,
        eos_ids: Sequence[int],
        options: EngineOptions,
        *,
        model_length: int,
        threads: int = 1,
    ) -> None:
        """`model_length` is the most tokens that the model can read. Raises `EngineError` if it cannot be loaded."""
        self._genai, self._options = _import_genai(), options
        self._tokenizer, self._eos_ids = tokenizer, tuple(eos_ids)
        self._folder, self._threads = folder, threads
        self.max_length = min(model_length, options.max_length or model_length, options.cache_tokens)
        self._pipeline = self._load_pipeline(options.slots + _PROMPT_TOKENS, has_prefix_cache=True)
        self._answers: dict[str, GrowingAnswer] = {}
        self._handles: dict[str, Any] = {}
        self._count = self._prompt_tokens = self._generated_tokens = 0

    @property
    def has_work(self) -> bool:
        """Whether a request runs or waits."""
        return bool(self._answers)

    def add(self, request: GenerationRequest) -> None:
        """Queue a request. Raises `EngineFull`; `ValueError` for a bad prompt, and for what OpenVINO does not support."""
        refuse_unsupported(request, EXACT, "OpenVINO GenAI")
        check_request(request, self.max_length, has_tokenizer=self._tokenizer is not None)
        if len(self._answers) >= self._options.slots + self._options.max_waiting:
            raise EngineFull(f"{len(self._answers)} requests run or wait already")
        self._handles[request.id] = self._submit(self._pipeline, request.prompt_ids, self._config(request))
        self._answers[request.id] = GrowingAnswer(request, self._tokenizer, self._eos_ids)
        self._prompt_tokens += len(request.prompt_ids)

    def cancel(self, request_id: str) -> None:
        """Drop a request and free its memory. No event follows."""
        if self._answers.pop(request_id, None) is not None:
            self._handles.pop(request_id).cancel()

    def step(self) -> list[GenerationEvent]:
        """Compute one step for all running requests, and return what it added."""
        if not self._answers:
            return []
        self._pipeline.step()
        events: list[GenerationEvent] = []
        for request_id, answer in list(self._answers.items()):
            handle = self._handles[request_id]
            while handle.can_read() and not answer.is_finished:
                events += [event for output in handle.read().values() for event in self._read(answer, output)]
            if answer.is_finished:
                self.cancel(request_id)
        return events

    def score(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Return the log-probability of each token after the first, given those before it: float32, (T - 1,) each.

        OpenVINO reports no log-probabilities of tokens that its prefix cache had, so a pipeline without it is loaded.
        """
        pipeline = self._load_pipeline(self.max_length, has_prefix_cache=False)
        config = self._new_config(max_new_tokens=1, echo=True, logprobs=1)
        scores = []
        for ids in sequences:
            handle = self._submit(pipeline, ids, config)
            logprobs: list[float] = []
            while pipeline.has_non_finished_requests():
                pipeline.step()
                while handle.can_read():
                    for output in handle.read().values():
                        logprobs += output.generated_log_probs
            scores.append(np.array(logprobs[1 : len(ids)], np.float32))
        return scores

    def stats(self) -> EngineStats:
        """Return the load and the counts. OpenVINO does not count what its prefix cache had."""
        running = min(len(self._answers), self._options.slots)
        return EngineStats(
            running=running,
            waiting=len(self._answers) - running,
            cache_tokens=sum(len(answer.request.prompt_ids) + answer.n_tokens for answer in self._answers.values()),
            cache_capacity=self._options.cache_tokens,
            prompt_tokens=self._prompt_tokens,
            cached_prompt_tokens=0,
            generated_tokens=self._generated_tokens,
        )

    def close(self) -> None:
        """Free the model. Requests that still run are dropped."""
        for request_id in list(self._answers):
            self.cancel(request_id)
        self._handles.clear()
        del self._pipeline

    def _read(self, answer: GrowingAnswer, output: Any) -> list[GenerationEvent]:
        """Return the events of what OpenVINO has written since the last step."""
        events = []
        wants_logprobs = answer.request.params.logprobs is not None
        for index, token in enumerate(output.generated_ids):
            logprob = TokenLogprob(token, output.generated_log_probs[index]) if wants_logprobs else None
            events.append(answer.add(token, logprob))
            self._generated_tokens += 1
            if answer.is_finished:
                break
        return events

    def _load_pipeline(self, batch_tokens: int, *, has_prefix_cache: bool) -> Any:
        scheduler = self._genai.SchedulerConfig()
        scheduler.max_num_batched_tokens = batch_tokens
        scheduler.max_num_seqs = self._options.slots
        scheduler.num_kv_blocks = max(1, self._options.cache_tokens // _BLOCK_TOKENS)
        scheduler.dynamic_split_fuse, scheduler.enable_prefix_caching = True, has_prefix_cache
        properties = {"INFERENCE_NUM_THREADS": self._threads, "PERFORMANCE_HINT": "LATENCY"}
        try:
            return self._genai.ContinuousBatchingPipeline(str(self._folder), scheduler, "CPU", properties)
        except RuntimeError as error:
            raise EngineError(f"OpenVINO GenAI cannot load the model: {str(error).splitlines()[-1]}") from error

    def _submit(self, pipeline: Any, ids: Sequence[int], config: Any) -> Any:
        import openvino

        self._count += 1
        return pipeline.add_request(self._count, openvino.Tensor(np.array([ids], np.int64)), config)

    def _config(self, request: GenerationRequest) -> Any:
        params = request.params
        settings: dict[str, Any] = {
            "max_new_tokens": params.max_tokens,
            "ignore_eos": params.ignore_eos,
            "repetition_penalty": params.repetition_penalty,
            "presence_penalty": params.presence_penalty,
            "frequency_penalty": params.frequency_penalty,
            "logprobs": 0 if params.logprobs is None else 1,
        }
        if params.temperature > 0:
            settings |= {
                "do_sample": True,
                "temperature": params.temperature,
                "top_p": params.top_p,
                "rng_seed": params.seed,
            }
            if params.top_k:
                settings["top_k"] = params.top_k
        return self._new_config(**settings)

    def _new_config(self, **settings: Any) -> Any:
        config = self._genai.GenerationConfig(do_sample=False)
        config.update_generation_config(**settings)
        if self._eos_ids:
            config.eos_token_id, config.stop_token_ids = self._eos_ids[0], set(self._eos_ids)
        return config


def _import_genai() -> Any:
    try:
        import openvino_genai
    except ImportError as error:
        raise EngineError("openvino-genai is not installed; run `pip install 'raymill[openvino-genai]'`") from error
    return openvino_genai
