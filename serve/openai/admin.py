"""Add and remove adapters while the endpoint answers: POST /admin/models, DELETE /admin/models/NAME.

Who may do it: keys with `admin`, or on an endpoint without keys, everybody who reaches its loopback address.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import ClassVar

from cluster.errors import ModelError, RequestError, UserError
from serve.asgi.exchange import Exchange, Reply, json_reply
from serve.asgi.service import Intake, Route
from serve.generation.adapters import ModelSet
from serve.model.settings import ModelSettings
from serve.openai.parse import OpenAiRequest, Unsupported, parse_request
from trainer.registry.registry import Registry, Version

_PATH = "/admin/models"


class AddRequest(OpenAiRequest):
    """The body of POST /admin/models: `model` is name, name@alias or name@7 of the registry."""

    unsupported: ClassVar[dict[str, Unsupported]] = {}


class ModelAdmin:
    """The paths that add and remove adapters."""

    def __init__(
        self,
        models: ModelSet,
        like: ModelSettings,
        intake: Intake,
        *,
        admins: Collection[str],
        is_open: bool,
        replicas: int,
    ) -> None:
        """New models get the settings `like`. `admins` are names of keys; without keys, `is_open` lets everybody in.

        With several `replicas`, a request would reach only one: it is refused.
        """
        self._models, self._like, self._intake = models, like, intake
        self._admins, self._is_open, self._replicas = admins, is_open, replicas
        self._lock = asyncio.Lock()

    def find_route(self, path: str) -> Route | None:
        """Return the route of a path, or None for a path of others."""
        if path == _PATH:
            return Route("POST", self._add)
        if path.startswith(f"{_PATH}/"):
            name = path.removeprefix(f"{_PATH}/")
            return Route("DELETE", lambda exchange: self._remove(exchange, name))
        return None

    async def _add(self, exchange: Exchange) -> Reply:
        self._check(exchange)
        body = await self._intake.read(exchange, next(iter(self._models.models.values())))
        request = parse_request(AddRequest, body, exchange.header(b"content-type"))
        like = self._like
        async with self._lock:
            try:
                storage = Version(like.name, like.version, Path(like.folder)).storage
                version = Registry(storage).find(request.model)
                changes = {"name": version.name, "version": version.number, "folder": str(version.folder)}
                settings = like.model_copy(update={**changes, "engine": "native", "choice": None})
                model = await asyncio.to_thread(self._models.add_adapter, settings)
            except UserError as error:
                raise _refused(error) from None
        return json_reply({"added": model.identity, "adapter_of": model.base_name})

    async def _remove(self, exchange: Exchange, name: str) -> Reply:
        self._check(exchange)
        async with self._lock:
            try:
                await asyncio.to_thread(self._models.remove, name)
            except UserError as error:
                raise _refused(error) from None
        return json_reply({"removed": name})

    def _check(self, exchange: Exchange) -> None:
        """Raise `RequestError` 403 or 409 unless the request may change the models."""
        if exchange.key not in self._admins if exchange.key else not self._is_open:
            raise RequestError(403, "not_allowed", "this needs a key of `raymill keys add NAME --admin`")
        if self._replicas > 1:
            raise RequestError(409, "several_replicas", "models of several replicas change by `raymill rollout` only")


def _refused(error: UserError) -> RequestError:
    status = 404 if isinstance(error, ModelError) else 422
    return RequestError(status, "refused_model", f"{error.problem}; {error.fix}")
