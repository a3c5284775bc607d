"""Answers to held-out prompts, written with the engine of endpoints.

A row's prompt is what stands before its last learned tokens; these are its own answer, the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from trainer.chat.rules import CHAT_STEP, ChatRules
from trainer.chat.tokens import learned_mask, token_ids
from trainer.contract.contract import Contract
from trainer.spec.answers import AnswersSpec
from trainer.targets.answers.base import Answered

if TYPE_CHECKING:
    from trainer.generation.engine import Completion, GenerationRequest

_NOTHING = np.empty(0, np.int32)


class PromptAndReference(NamedTuple):
    """Token ids of a row before its last learned tokens, and these tokens."""

    prompt_ids: np.ndarray
    reference_ids: np.ndarray


def split_answer(tokens: np.ndarray) -> PromptAndReference | None:
    """Return a row's prompt and reference; None if it has no learned tokens, or none before them."""
    learned = np.flatnonzero(learned_mask(tokens))
    if not len(learned):
        return None
    end = int(learned[-1]) + 1
    unlearned = np.flatnonzero(~learned_mask(tokens[:end]))
    if not len(unlearned):
        return None
    ids, start = token_ids(tokens), int(unlearned[-1]) + 1
    return PromptAndReference(ids[:start], ids[start:end])


class AnswerWriter:
    """The methods of a task whose model writes answers."""

    def completer(
        self, model: Any, contract: Contract, folder: Path, limits: AnswersSpec
    ) -> Callable[[Sequence[np.ndarray]], list[dict[str, Any]]]:
        from trainer.generation.engine import complete_all
        from trainer.generation.load import make_engine, read_tokenizer

        engine = make_engine(model, read_tokenizer(folder), eos_ids=_stop_ids(contract))

        def complete(inputs: Sequence[np.ndarray]) -> list[dict[str, Any]]:
            rows = [split_answer(tokens) or PromptAndReference(token_ids(tokens), _NOTHING) for tokens in inputs]
            requests = answer_requests(rows, limits, engine.max_length, logprobs=0)
            completions = dict(zip([request.id for request in requests], complete_all(engine, requests), strict=True))
            return [_as_answer(completions.get(_request_id(index, 0))) for index in range(len(rows))]

        return complete

    def write_answers(
        self,
        model: Any,
        contract: Contract,
        folder: Path,
        inputs: Sequence[np.ndarray],
        spec: AnswersSpec,
        on_progress: Callable[[int], None],
    ) -> list[list[Answered]]:
        from trainer.generation.engine import complete_all
        from trainer.generation.load import make_engine, read_tokenizer

        stop_ids = _stop_ids(contract)
        tokenizer = read_tokenizer(folder)
        rows = [split_answer(tokens) for tokens in inputs]
        engine = make_engine(model, tokenizer, eos_ids=stop_ids)
        try:
            requests = answer_requests(rows, spec, engine.max_length)
            completions = complete_all(engine, requests, on_progress)
        finally:
            engine.close()
        texts = {request.id: completion.text for request, completion in zip(requests, completions, strict=True)}

        def decode(ids: np.ndarray, *, whole: bool) -> str:
            used = [number for number in ids.tolist() if whole or number not in stop_ids]
            text: str = tokenizer.decode(used, skip_special_tokens=not whole)
            return text

        return [
            [
                Answered(
                    decode(row.prompt_ids, whole=True),
                    texts.get(_request_id(index, sample), ""),
                    decode(row.reference_ids, whole=False),
                )
                for sample in range(spec.samples)
            ]
            if row
            else []
            for index, row in enumerate(rows)
        ]


def _stop_ids(contract: Contract) -> list[int]:
    return ChatRules.model_validate(contract.step_params(CHAT_STEP)).stop_ids


def answer_requests(
    rows: Sequence[PromptAndReference | None], spec: AnswersSpec, max_length: int, logprobs: int | None = None
) -> list[GenerationRequest]:
    """Return the requests for the answers to `rows`. A prompt that leaves no room within `max_length` has none."""
    from trainer.generation.engine import GenerationRequest, SamplingParams

    requests = []
    for index, row in enumerate(rows):
        room = max_length - len(row.prompt_ids) if row else 0
        if row is None or room <= 0:
            continue
        for sample in range(spec.samples):
            params = SamplingParams(
                max_tokens=min(spec.max_tokens, room),
                temperature=spec.temperature,
                seed=index * spec.samples + sample,
                stop=tuple(spec.stop),
                logprobs=logprobs,
            )
            requests.append(GenerationRequest(_request_id(index, sample), row.prompt_ids.tolist(), params))
    return requests


def _as_answer(completion: Completion | None) -> dict[str, Any]:
    """Return an answer as files of predictions have it; `None` is a prompt that leaves no room for one."""
    if completion is None:
        return {"text": "", "finish_reason": "length", "tokens": 0, "mean_logprob": None}
    logprobs = [token.logprob for token in completion.logprobs]
    return {
        "text": completion.text,
        "finish_reason": completion.finish_reason,
        "tokens": len(completion.token_ids),
        "mean_logprob": round(sum(logprobs) / len(logprobs), 6) if logprobs else None,
    }


def _request_id(row: int, sample: int) -> str:
    return f"{row}/{sample}"
