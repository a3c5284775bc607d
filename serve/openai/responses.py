"""POST /v1/responses: a request to an engine's parameters and a writer of its answer."""

from __future__ import annotations

from typing import Any

from serve.generation.generation_model import GenerationModel
from serve.openai.answer_parts import new_head
from serve.openai.chat import answer_form, render_chat
from serve.openai.chat_request import plain_messages
from serve.openai.responses_answer import ResponsesWriter
from serve.openai.responses_request import ResponsesRequest
from serve.openai.sampling import answer_length
from serve.openai.session import PromptJob

_ECHOED = {"instructions", "max_output_tokens", "temperature", "top_p", "tool_choice", "parallel_tool_calls", "tools"}


def responses_job(model: GenerationModel, request: ResponsesRequest) -> tuple[PromptJob, ResponsesWriter]:
    """Return what a request asks of the engine, and the writer of its answer. Raises `ParameterError`."""
    chat = request.as_chat()
    form = answer_form(model, chat)
    prompt = render_chat(model, plain_messages(chat.messages, "input"), form.tools, "input")
    asked, param = request.max_output_tokens, "max_output_tokens"
    logprobs = chat.number_of_logprobs()
    params = chat.sampling_params(
        model.vocabulary,
        max_tokens=answer_length(asked, param, len(prompt), "input", model.max_length),
        logprobs=logprobs,
        grammar=form.grammar,
    )
    writer = ResponsesWriter(
        new_head("resp_", model.identity),
        model.texts,
        _echo(request),
        form=form.tool_format,
        logprobs=logprobs is not None,
    )
    return PromptJob([prompt], [params], 1), writer


def _echo(request: ResponsesRequest) -> dict[str, Any]:
    echoed = request.model_dump(include=_ECHOED, mode="json", by_alias=True)
    echoed["tool_choice"] = echoed["tool_choice"] or "auto"
    text = request.text.model_dump(mode="json", by_alias=True, exclude_none=True) if request.text else {}
    return {**echoed, "text": {"format": {"type": "text"}, **text}}
