"""vLLM as an engine, on GPUs: its `LLMEngine`, called step by step with token ids.

Written for vLLM's V1 engine and not run by raymill's own tests, which have no GPU. It is called directly, because
ray.serve.llm puts a batching timer between the engine and the client.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from serve.engines.base import EngineError
from serve.engines.generation.answer import GrowingAnswer
from serve.engines.generation.parameters import TOP_LOGPROBS, refuse_unsupported
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

#: Sampling parameters that vLLM computes as the model's own engine does.
EXACT = frozenset(
    {
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "seed",
        "stop",
        "logit_bias",
        "logprobs",
        TOP_LOGPROBS,
        "ignore_eos",
    }
)


class VllmEngine:
    """An `Engine` over a transformers folder."""

    def __init__(
        self,
        folder: Path,
        tokenizer: Tokenizer | None,
        eos_ids: Sequence[int],
        options: EngineOptions,
        *,
        model_length: int,
    ) -> None:
        """`model_length` is the most tokens that the model can read. Raises `EngineError` if it cannot be loaded."""
        try:
            import vllm
        except ImportError as error:
            raise EngineError("vllm is not installed; run `pip install 'raymill[vllm]'`") from error
        self._vllm, self._options = vllm, options
        self._tokenizer, self._eos_ids = tokenizer, tuple(eos_ids)
        self.max_length = min(model_length, options.max_length or model_length)
        arguments = vllm.EngineArgs(
            model=str(folder),
            skip_tokenizer_init=True,  # ids go in and come out
            max_model_len=self.max_length,
            max_num_seqs=options.slots,
            enable_prefix_caching=True,
            generation_config="vllm",  # or the folder's file would change sampling parameters
            disable_log_stats=True,
        )
        self._engine = vllm.LLMEngine.from_engine_args(arguments)
        self._answers: dict[str, GrowingAnswer] = {}
        self._prompt_tokens = self._cached_tokens = self._generated_tokens = 0

    @property
    def has_work(self) -> bool:
        """Whether a request runs or waits."""
        return bool(self._answers)

    def add(self, request: GenerationRequest) -> None:
        """Queue a request. Raises `EngineFull`; `ValueError` for a bad prompt, and for what vLLM does not support."""
        refuse_unsupported(request, EXACT, "vLLM")
        check_request(request, self.max_length, has_tokenizer=self._tokenizer is not None)
        if len(self._answers) >= self._options.slots + self._options.max_waiting:
            raise EngineFull(f"{len(self._answers)} requests run or wait already")
        self._engine.add_request(request.id, {"prompt_token_ids": list(request.prompt_ids)}, self._params(request))
        self._answers[request.id] = GrowingAnswer(request, self._tokenizer, self._eos_ids)
        self._prompt_tokens += len(request.prompt_ids)

    def cancel(self, request_id: str) -> None:
        """Drop a request and free its memory. No event follows."""
        if self._answers.pop(request_id, None) is not None:
            self._engine.abort_request([request_id])

    def step(self) -> list[GenerationEvent]:
        """Compute one step for all running requests, and return what it added."""
        events: list[GenerationEvent] = []
        for output in self._engine.step() if self._answers else ():
            answer = self._answers.get(output.request_id)
            if answer is None:
                continue
            is_first = answer.n_tokens == 0
            new = self._read(answer, output.outputs[0])
            if is_first and new:
                cached = getattr(output, "num_cached_tokens", None) or 0
                self._cached_tokens += cached
                new[0] = new[0]._replace(cached_tokens=cached)
            events += new
            if answer.is_finished:
                # vLLM goes on after a stop string, which it does not know; it ignores ids that it has finished itself.
                self.cancel(output.request_id)
            elif output.finished:
                del self._answers[output.request_id]
                events.append(answer.fail(f"vLLM ended the answer: {output.outputs[0].finish_reason}"))
        return events

    def score(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Return the log-probability of each token after the first, given those before it: float32, (T - 1,) each.

        Not while requests run: their steps would be lost.
        """
        if self._answers:
            raise RuntimeError("score() was called while requests run")
        params = self._vllm.SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
        for index, ids in enumerate(sequences):
            self._engine.add_request(f"score-{index}", {"prompt_token_ids": list(ids)}, params)
        scores: dict[str, np.ndarray] = {}
        while self._engine.has_unfinished_requests():
            for output in self._engine.step():
                if output.prompt_logprobs is not None:
                    ids = output.prompt_token_ids
                    pairs = zip(ids[1:], output.prompt_logprobs[1:], strict=True)
                    scores[output.request_id] = np.array([entry[token].logprob for token, entry in pairs], np.float32)
        return [scores[f"score-{index}"] for index in range(len(sequences))]

    def stats(self) -> EngineStats:
        """Return the load and the counts."""
        running = min(len(self._answers), self._options.slots)
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
        self._engine.engine_core.shutdown()
        del self._engine

    def _read(self, answer: GrowingAnswer, output: Any) -> list[GenerationEvent]:
        """Return the events of the tokens that a step has added to an answer."""
        n_top = answer.request.params.logprobs
        events = []
        for index, token in enumerate(output.token_ids):
            logprob = None if n_top is None else _token_logprob(token, output.logprobs[index], n_top)
            events.append(answer.add(token, logprob))
            self._generated_tokens += 1
            if answer.is_finished:
                break
        return events

    def _params(self, request: GenerationRequest) -> Any:
        from vllm.sampling_params import RequestOutputKind

        params = request.params
        return self._vllm.SamplingParams(
            max_tokens=params.max_tokens,
            temperature=params.temperature,
            top_p=params.top_p,
            top_k=params.top_k,
            min_p=params.min_p,
            presence_penalty=params.presence_penalty,
            frequency_penalty=params.frequency_penalty,
            repetition_penalty=params.repetition_penalty,
            seed=params.seed,
            logit_bias=dict(params.logit_bias) or None,
            logprobs=params.logprobs,
            ignore_eos=params.ignore_eos,
            stop_token_ids=list(self._eos_ids),
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )


def _token_logprob(token: int, entry: Mapping[int, Any], n_top: int) -> TokenLogprob:
    """Return a token's log-probability from vLLM's, which may have the token itself beside the most probable ones."""
    ranked = sorted(entry.items(), key=lambda item: item[1].rank)[:n_top]
    return TokenLogprob(token, entry[token].logprob, tuple((other, value.logprob) for other, value in ranked))
