"""The paths of the OpenAI API: /v1/models, /v1/chat/completions, /v1/completions, /v1/responses, /v1/embeddings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from typing import Any

from cluster.errors import RequestError, suggest
from serve.asgi.exchange import Exchange, Reply, StreamReply, json_reply
from serve.asgi.service import Intake, Route
from serve.generation.generation_model import GenerationModel
from serve.openai.admin import ModelAdmin
from serve.openai.answer_parts import ReplyWriter
from serve.openai.chat import chat_job
from serve.openai.chat_page import render_chat_page
from serve.openai.chat_request import ChatRequest
from serve.openai.completion import completion_job
from serve.openai.completion_request import CompletionRequest
from serve.openai.errors import ParameterError
from serve.openai.openapi import build_openai_schema, render_openai_docs
from serve.openai.parse import Request, parse_request
from serve.openai.responses import responses_job
from serve.openai.responses_request import ResponsesRequest
from serve.openai.session import PromptJob, Sessions

# Larger bodies are read in a thread, so that they do not block other requests.
_LARGE_BYTES = 1 << 14


class OpenAiService:
    """A `serve.asgi.service.Service` for models that write text."""

    def __init__(
        self,
        models: MutableMapping[str, GenerationModel],
        intake: Intake,
        sessions: Sessions,
        admin: ModelAdmin | None = None,
    ) -> None:
        """`models` may change while the endpoint answers: adapters come and go, by `admin`."""
        self._admin = admin
        self.models = models
        self._intake, self._sessions = intake, sessions
        self._routes = {
            "/v1/models": Route("GET", self._list),
            "/v1/chat/completions": Route("POST", self._chat),
            "/v1/completions": Route("POST", self._complete),
            "/v1/responses": Route("POST", self._respond),
            "/v1/embeddings": Route("POST", self._embed),
        }

    def find_route(self, path: str) -> Route | None:
        """Return the route of a path, or None for a path of others."""
        route = self._routes.get(path)
        if route is None and path.startswith("/v1/models/"):
            name = path.removeprefix("/v1/models/")
            return Route("GET", lambda exchange: self._show(name))
        return route or (self._admin.find_route(path) if self._admin else None)

    def give_up(self, error: RequestError) -> None:
        """End all requests with `error`."""
        self._sessions.give_up(error)

    def schema(self) -> dict[str, Any]:
        """Return the OpenAPI schema of the paths."""
        return build_openai_schema(list(self.models.values()))

    def docs_page(self, schema: dict[str, Any], root: str) -> str:
        """Return the HTML of /docs."""
        return render_openai_docs(schema, list(self.models.values()), root)

    def try_page(self, root: str) -> str:
        """Return the HTML of `/`, a chat."""
        return render_chat_page([model.identity for model in self.models.values()], root)

    # -- the paths

    async def _list(self, exchange: Exchange) -> Reply:
        return json_reply({"object": "list", "data": [_card(model) for model in self.models.values()]})

    async def _show(self, name: str) -> Reply:
        return json_reply(_card(self._find(name)))

    async def _chat(self, exchange: Exchange) -> Reply | StreamReply:
        return await self._answer(exchange, ChatRequest, chat_job)

    async def _complete(self, exchange: Exchange) -> Reply | StreamReply:
        return await self._answer(exchange, CompletionRequest, completion_job)

    async def _respond(self, exchange: Exchange) -> Reply | StreamReply:
        return await self._answer(exchange, ResponsesRequest, responses_job)

    async def _embed(self, exchange: Exchange) -> Reply:
        names = ", ".join(self.models)
        raise ParameterError(
            "model", f"{names} write text, and no model here makes embeddings", "unsupported_path", 404
        )

    async def _answer(
        self,
        exchange: Exchange,
        kind: type[Request],
        make: Callable[[GenerationModel, Request], tuple[PromptJob, ReplyWriter]],
    ) -> Reply | StreamReply:
        body = await self._intake.read(exchange, next(iter(self.models.values())))
        content_type = exchange.header(b"content-type")

        def parse() -> tuple[GenerationModel, Request, PromptJob, ReplyWriter]:
            request = parse_request(kind, body, content_type)
            model = self._find(request.model)
            exchange.model, exchange.user = model, request.user
            return (model, request, *make(model, request))

        started = asyncio.get_running_loop().time()
        model, request, job, writer = await asyncio.to_thread(parse) if len(body) > _LARGE_BYTES else parse()
        preparing_s = asyncio.get_running_loop().time() - started
        return await self._sessions.answer(exchange, model, job, writer, stream=request.stream, preparing_s=preparing_s)

    def _find(self, name: str) -> GenerationModel:
        """Return a model by its name, with or without its version."""
        model = self.models.get(name)
        if model is None:
            plain, _, version = name.partition("@")
            model = self.models.get(plain)
            if model is None or version != str(model.identity["version"]):
                message = f"this endpoint has no model {name[:80]!a}; {suggest(name[:80], self.models)}"
                raise ParameterError("model", message, "model_not_found", 404)
        return model


def _card(model: GenerationModel) -> dict[str, Any]:
    """Return a model as OpenAI lists it, with what identifies it here."""
    return {
        "id": model.identity["name"],
        "object": "model",
        "created": model.loaded_at,
        "owned_by": "raymill",
        "version": model.identity["version"],
        "fingerprint": model.identity["fingerprint"],
        "checkpoint": model.identity["checkpoint"],
        "engine": model.identity["engine"],
        "adapter_of": model.base_name,
        "max_length": model.max_length,
    }
