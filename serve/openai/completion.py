"""POST /v1/completions: a request to an engine's parameters and a writer of its answers."""

from __future__ import annotations

from cluster.text import is_unicode
from serve.generation.generation_model import GenerationModel
from serve.openai.answer_parts import new_head
from serve.openai.completion_answer import CompletionWriter, EchoedPrompt
from serve.openai.completion_request import CompletionRequest
from serve.openai.errors import ParameterError
from serve.openai.sampling import answer_length
from serve.openai.session import PromptJob


def completion_job(model: GenerationModel, request: CompletionRequest) -> tuple[PromptJob, CompletionWriter]:
    """Return what a request asks of the engine, and the writer of its answers. Raises `ParameterError`."""
    prompts = [_prompt_ids(model, prompt) for prompt in request.prompts()]
    only_prompt = request.max_tokens == 0
    scores_prompt = request.echo and request.logprobs is not None
    params = [
        request.sampling_params(
            model.vocabulary,
            # An engine computes a token for a prompt that is only echoed without its log-probabilities.
            max_tokens=0
            if only_prompt and scores_prompt
            else max(1, answer_length(request.max_tokens, "max_tokens", len(ids), "prompt", model.max_length)),
            logprobs=request.logprobs,
            prompt_logprobs=scores_prompt,
        )
        for ids in prompts
    ]
    echoed = [_echo(model, ids) if request.echo else None for ids in prompts for _ in range(request.n)]
    writer = CompletionWriter(
        new_head("cmpl-", model.identity),
        echoed,
        model.texts,
        logprobs=request.logprobs is not None,
        sends_usage=request.sends_usage,
        only_prompt=only_prompt,
    )
    return PromptJob(prompts, params, request.n), writer


def _prompt_ids(model: GenerationModel, prompt: str | list[int]) -> list[int]:
    if isinstance(prompt, str):
        if not is_unicode(prompt):
            raise ParameterError("prompt", "'prompt' is not valid Unicode: it has half a surrogate pair")
        ids = model.prompts.text_ids(prompt)
    else:
        ids = prompt
    for token_id in ids:
        if token_id >= model.vocabulary:
            raise ParameterError(
                "prompt", f"'prompt' has the token id {token_id}; the model's are below {model.vocabulary}"
            )
    if not ids:
        raise ParameterError("prompt", "'prompt' has no tokens; send at least one")
    return ids


def _echo(model: GenerationModel, ids: list[int]) -> EchoedPrompt:
    return EchoedPrompt(model.prompts.tokenizer.decode(ids, skip_special_tokens=False), ids)
