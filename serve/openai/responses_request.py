"""The body of POST /v1/responses, and the chat request that asks for the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from serve.openai.chat_request import ChatRequest, ToolName
from serve.openai.errors import ParameterError
from serve.openai.parse import OpenAiModel, OpenAiRequest, Unsupported, read_request
from serve.openai.sampling import MAX_TOP_LOGPROBS, UNSUPPORTED, StreamOptions

_STATUS = Literal["in_progress", "completed", "incomplete"]
LOGPROBS = "message.output_text.logprobs"


class ContentPart(OpenAiModel):
    """A part of a message. Only texts are supported."""

    type: Literal["input_text", "output_text", "text"]
    text: str
    annotations: list[Any] = Field(default_factory=list, max_length=0)
    logprobs: list[Any] | None = None


class InputMessage(OpenAiModel):
    """A message of the chat so far."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[ContentPart]
    id: str | None = None
    status: _STATUS | None = None


class InputCall(OpenAiModel):
    """A call of a function by the model."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: _STATUS | None = None


class InputResult(OpenAiModel):
    """What a called function returned."""

    type: Literal["function_call_output"]
    call_id: str
    output: str
    id: str | None = None
    status: _STATUS | None = None


class ResponseTool(OpenAiModel):
    """A function that the model may call."""

    type: Literal["function"]
    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ChosenTool(OpenAiModel):
    """The function that the model must call."""

    type: Literal["function"]
    name: str


class TextFormat(OpenAiModel):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: ToolName | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class TextOptions(OpenAiModel):
    """Options of the text."""

    format: TextFormat | None = None


class ResponsesRequest(OpenAiRequest):
    """The body of POST /v1/responses. Parameters of OpenAI's that are not listed are refused by name."""

    unsupported: ClassVar[Mapping[str, Unsupported]] = {
        **UNSUPPORTED,
        "previous_response_id": Unsupported("it stores no answers; send the whole chat as 'input'"),
        "conversation": Unsupported("it stores no answers; send the whole chat as 'input'"),
        "background": Unsupported("it stores no answers", (False,)),
        "prompt": Unsupported("it stores no prompts"),
        "truncation": Unsupported("a prompt is never cut", ("disabled",)),
        "reasoning": Unsupported("the models have no such setting"),
        "max_tool_calls": Unsupported("only the client calls functions"),
        "context_management": Unsupported("a prompt is never cut"),
    }

    input: str | list[InputMessage | InputCall | InputResult]
    """A text of the user, or the chat so far."""
    instructions: str | None = None
    """The first message, of the system."""
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    """Most tokens of the answer. Default: as many as the model takes."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    """0 takes the most probable token."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Only the most probable tokens that have this probability together."""
    seed: int | None = None
    """The same request with the same seed has the same answer."""
    text: TextOptions | None = None
    """Text, any JSON object, or JSON that follows a schema."""
    tools: list[ResponseTool] = Field(default_factory=list)
    """Functions that the model may call."""
    tool_choice: Literal["none", "auto", "required"] | ChosenTool | None = None
    """Whether the model may, must not or must call functions, or which one."""
    parallel_tool_calls: bool = True
    """Whether one answer may have several calls."""
    include: list[Literal["message.output_text.logprobs"]] = Field(default_factory=list)
    """What else the answer has: the log-probabilities of its tokens."""
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    """Number of most probable tokens at each position."""
    stream_options: StreamOptions | None = None
    """Options of a streamed answer; its last event always has the counts of tokens."""

    def as_chat(self) -> ChatRequest:
        """Return the chat request that asks for the same. Raises `ParameterError`."""
        messages: list[dict[str, Any]] = []
        if self.instructions is not None:
            messages.append({"role": "system", "content": self.instructions})
        if isinstance(self.input, str):
            messages.append({"role": "user", "content": self.input})
        else:
            for item in self.input:
                _append(messages, item)
        if not messages or not self.input:
            raise ParameterError("input", "'input' has no messages; send at least one")
        shared = self.model_dump(include={"model", "temperature", "top_p", "seed", "parallel_tool_calls", "user"})
        choice = self.tool_choice
        return read_request(
            ChatRequest,
            {
                **shared,
                "messages": messages,
                "max_completion_tokens": self.max_output_tokens,
                "logprobs": LOGPROBS in self.include,
                "top_logprobs": self.top_logprobs,
                "tools": [_chat_tool(tool) for tool in self.tools],
                "tool_choice": _chat_choice(choice) if isinstance(choice, ChosenTool) else choice,
                "response_format": _chat_format(self.text.format if self.text else None),
            },
        )


def _append(messages: list[dict[str, Any]], item: InputMessage | InputCall | InputResult) -> None:
    if isinstance(item, InputMessage):
        text = item.content if isinstance(item.content, str) else "".join(part.text for part in item.content)
        messages.append({"role": item.role, "content": text})
    elif isinstance(item, InputResult):
        messages.append({"role": "tool", "tool_call_id": item.call_id, "content": item.output})
    else:  # all calls in a row, and the text before them, are one message
        if not messages or messages[-1]["role"] != "assistant":
            messages.append({"role": "assistant", "content": ""})
        call = {"id": item.call_id, "function": {"name": item.name, "arguments": item.arguments}}
        messages[-1].setdefault("tool_calls", []).append(call)


def _chat_tool(tool: ResponseTool) -> dict[str, Any]:
    return {"type": "function", "function": tool.model_dump(exclude={"type"})}


def _chat_choice(choice: ChosenTool) -> dict[str, Any]:
    return {"type": "function", "function": {"name": choice.name}}


def _chat_format(form: TextFormat | None) -> dict[str, Any] | None:
    if form is None or form.type != "json_schema":
        return None if form is None else {"type": form.type}
    if form.schema_ is None:
        raise ParameterError("text.format.schema", "'text.format.schema' is missing", "missing_required_parameter")
    schema = {"name": form.name or "answer", "schema": form.schema_}
    return {"type": "json_schema", "json_schema": schema}
