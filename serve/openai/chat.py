"""POST /v1/chat/completions: a request to an engine's parameters and a writer of its answers."""

from __future__ import annotations

from typing import Any, NamedTuple

from cluster.errors import suggest
from serve.generation.generation_model import GenerationModel
from serve.generation.tool_format import ToolFormat
from serve.openai.answer_parts import new_head
from serve.openai.chat_answer import ChatWriter
from serve.openai.chat_request import ChatRequest, NamedTool, ResponseFormat, Tool, plain_messages
from serve.openai.errors import ParameterError
from serve.openai.grammar import json_grammar, tool_grammar
from serve.openai.sampling import answer_length
from serve.openai.session import PromptJob


class AnswerForm(NamedTuple):
    """What an answer may be: held to a grammar, with tool calls or without."""

    grammar: str | None = None
    tools: tuple[dict[str, Any], ...] = ()
    """The tools that the template shows."""
    tool_format: ToolFormat | None = None


def chat_job(model: GenerationModel, request: ChatRequest) -> tuple[PromptJob, ChatWriter]:
    """Return what a request asks of the engine, and the writer of its answers. Raises `ParameterError`."""
    messages = plain_messages(request.messages)
    form = answer_form(model, request)
    prompt = render_chat(model, messages, form.tools)
    asked, param = request.asked_tokens()
    logprobs = request.number_of_logprobs()
    params = request.sampling_params(
        model.vocabulary,
        max_tokens=answer_length(asked, param, len(prompt), "messages", model.max_length),
        logprobs=logprobs,
        grammar=form.grammar,
    )
    writer = ChatWriter(
        new_head("chatcmpl-", model.identity),
        request.n,
        model.texts,
        form=form.tool_format,
        logprobs=logprobs is not None,
        sends_usage=request.sends_usage,
    )
    return PromptJob([prompt], [params], request.n), writer


def render_chat(
    model: GenerationModel, messages: list[dict[str, Any]], tools: tuple[dict[str, Any], ...], param: str = "messages"
) -> list[int]:
    """Return the prompt of a chat. Raises `ParameterError` with the template's own message."""
    try:
        return model.prompts.chat_ids(messages, list(tools) or None)
    except ValueError as error:
        raise ParameterError(param, f"'{param}' does not fit the model's chat template: {error}") from None


def answer_form(model: GenerationModel, request: ChatRequest) -> AnswerForm:
    """Return what the answers to a request may be. Raises `ParameterError`."""
    schema, wants_json = _content_schema(request.response_format)
    chosen = _chosen_tools(request)
    if not chosen:
        return AnswerForm(json_grammar(schema, "response_format") if wants_json else None)
    form = tool_format_of(model)
    required = request.tool_choice == "required" or isinstance(request.tool_choice, NamedTool)
    grammar = tool_grammar(
        [(tool.function.name, tool.function.parameters) for tool in chosen],
        form,
        required=required,
        several=request.parallel_tool_calls and not isinstance(request.tool_choice, NamedTool),
        content_schema=(schema or {"type": "object"}) if wants_json and not required else None,
    )
    return AnswerForm(grammar, tuple(tool.model_dump(exclude_none=True) for tool in request.tools), form)


def tool_format_of(model: GenerationModel) -> ToolFormat:
    """Return the format of a model's tool calls. Raises `ParameterError` if its template has none."""
    form = model.tool_format
    if form is None:
        raise ParameterError(
            "tools",
            f"'tools' is not supported by {model.identity['name']}: its chat template writes no tool calls that can be read",
            "unsupported_parameter",
        )
    return form


def _content_schema(form: ResponseFormat | None) -> tuple[dict[str, Any] | None, bool]:
    """Return the schema of an answer that calls no tool, and whether it has to be JSON."""
    if form is None or form.type == "text":
        return None, False
    if form.type == "json_object":
        return None, True
    if form.json_schema is None:
        raise ParameterError(
            "response_format.json_schema", "'response_format.json_schema' is missing", "missing_required_parameter"
        )
    return form.json_schema.schema_, True


def _chosen_tools(request: ChatRequest) -> list[Tool]:
    """Return the tools that the answer may call; none if it must not."""
    choice, names = request.tool_choice, [tool.function.name for tool in request.tools]
    if len(set(names)) < len(names):
        raise ParameterError("tools", "'tools' has two tools with the same name")
    if choice is not None and choice != "none" and not request.tools:
        raise ParameterError("tool_choice", "'tool_choice' is only allowed with 'tools'")
    if choice == "none":
        return []
    if isinstance(choice, NamedTool):
        name = choice.function.name
        if name not in names:
            raise ParameterError("tool_choice", f"'tool_choice' names {name[:80]!a}; {suggest(name[:80], names)}")
        return [tool for tool in request.tools if tool.function.name == name]
    return request.tools
