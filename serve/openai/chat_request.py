"""The body of POST /v1/chat/completions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from cluster.text import is_unicode
from serve.openai.errors import ParameterError
from serve.openai.parse import OpenAiModel, Unsupported
from serve.openai.sampling import MAX_TOP_LOGPROBS, UNSUPPORTED, SamplingRequest

ToolName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class TextPart(OpenAiModel):
    """A part of a message's content. Only texts are supported."""

    type: Literal["text"]
    text: str


class CalledFunction(OpenAiModel):
    """The function of a tool call."""

    name: str
    arguments: str
    """A JSON object as text."""


class ToolCall(OpenAiModel):
    """A call of a tool by the assistant."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(OpenAiModel):
    """A message of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    """The text, or its parts. An assistant's message with tool calls may have none."""
    name: str | None = None
    """The name of the author, for templates that use it."""
    tool_calls: list[ToolCall] | None = None
    """Calls of the assistant."""
    tool_call_id: str | None = None
    """The call that a tool's message answers."""
    refusal: None = None


class FunctionTool(OpenAiModel):
    """A function that the model may call."""

    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """JSON Schema of the arguments, an object."""
    strict: bool | None = None
    """Arguments always follow the schema here, with or without it."""


class Tool(OpenAiModel):
    """A tool that the model may call."""

    type: Literal["function"]
    function: FunctionTool


class NamedFunction(OpenAiModel):
    """The name of a function."""

    name: str


class NamedTool(OpenAiModel):
    """The tool that the model must call."""

    type: Literal["function"]
    function: NamedFunction


class JsonSchema(OpenAiModel):
    """A schema that the answer must follow."""

    name: ToolName
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None
    """The answer always follows the schema here, with or without it."""


class ResponseFormat(OpenAiModel):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class ChatRequest(SamplingRequest):
    """The body of POST /v1/chat/completions. Parameters of OpenAI's that are not listed are refused by name."""

    unsupported: ClassVar[Mapping[str, Unsupported]] = {
        **UNSUPPORTED,
        "audio": Unsupported("the models write text"),
        "modalities": Unsupported("the models write text", (["text"],)),
        "prediction": Unsupported("the engine predicts from the prompt by itself"),
        "reasoning_effort": Unsupported("the models have no such setting", ("none",)),
        "verbosity": Unsupported("the models have no such setting", ("medium",)),
        "web_search_options": Unsupported("it searches nothing"),
        "functions": Unsupported("use 'tools'"),
        "function_call": Unsupported("use 'tool_choice'"),
    }

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    """The chat so far."""
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    """Most tokens of an answer. Default: as many as the model takes."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """The former name of `max_completion_tokens`."""
    logprobs: bool = False
    """Whether the answer has the log-probability of each token."""
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    """Number of most probable tokens at each position; needs `logprobs`."""
    response_format: ResponseFormat | None = None
    """Text, any JSON object, or JSON that follows a schema: the engine writes nothing else."""
    tools: list[Tool] = Field(default_factory=list)
    """Functions that the model may call."""
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    """Whether the model may, must not or must call functions, or which one. Default: `auto` if there are tools."""
    parallel_tool_calls: bool = True
    """Whether one answer may have several calls."""

    def asked_tokens(self) -> tuple[int | None, str]:
        """Return the most tokens of an answer, if the request says so, and the parameter's name."""
        both = {value for value in (self.max_tokens, self.max_completion_tokens) if value is not None}
        if len(both) > 1:
            raise ParameterError("max_tokens", "'max_tokens' and 'max_completion_tokens' differ; send one of them")
        name = "max_tokens" if self.max_tokens is not None else "max_completion_tokens"
        return (both.pop() if both else None), name

    def number_of_logprobs(self) -> int | None:
        """Return how many alternatives each token is reported with; None for no log-probabilities."""
        if self.top_logprobs is not None and not self.logprobs:
            raise ParameterError("top_logprobs", "'top_logprobs' needs 'logprobs': true")
        return (self.top_logprobs or 0) if self.logprobs else None


def plain_messages(messages: list[ChatMessage], param: str = "messages") -> list[dict[str, Any]]:
    """Return messages as the chat template takes them: contents are texts, arguments are objects.

    Raises `ParameterError` naming the message that cannot be used.
    """
    return [_plain_message(message, f"{param}[{index}]") for index, message in enumerate(messages)]


def _plain_message(message: ChatMessage, where: str) -> dict[str, Any]:
    content = message.content
    text = content if isinstance(content, str) else "".join(part.text for part in content or [])
    if not is_unicode(text):
        raise ParameterError(f"{where}.content", f"{where}.content is not valid Unicode: it has half a surrogate pair")
    if content is None and not (message.role == "assistant" and message.tool_calls):
        raise ParameterError(f"{where}.content", f"{where}.content is missing", "missing_required_parameter")
    if message.tool_calls and message.role != "assistant":
        raise ParameterError(
            f"{where}.tool_calls", f"{where} has the role {message.role}; only an assistant calls tools"
        )
    if (message.tool_call_id is not None) != (message.role == "tool"):
        problem = "is missing" if message.role == "tool" else "is only for messages of the role tool"
        raise ParameterError(f"{where}.tool_call_id", f"{where}.tool_call_id {problem}")
    plain: dict[str, Any] = {"role": "system" if message.role == "developer" else message.role, "content": text}
    if message.name is not None:
        plain["name"] = message.name
    if message.tool_call_id is not None:
        plain["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        plain["tool_calls"] = [
            _plain_call(call, f"{where}.tool_calls[{index}]") for index, call in enumerate(message.tool_calls)
        ]
    return plain


def _plain_call(call: ToolCall, where: str) -> dict[str, Any]:
    try:
        arguments = json.loads(call.function.arguments)
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        param = f"{where}.function.arguments"
        raise ParameterError(param, f"{param} is not a JSON object as text")
    return {"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": arguments}}
