"""A replica as a Ray Serve deployment. Ray Serve runs the number of replicas in `serve.replicas`."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from typing import Any

import ray.serve

from cluster.ray_internals import broadcast_answers
from serve.asgi.app import HttpApp
from serve.asgi.uvicorn_patch import patch_uvicorn
from serve.haproxy_metrics import refusals
from serve.model.metrics_page import Family, join_families
from serve.model.settings import ReplicaSettings
from serve.ray_metrics import mirror_to_ray
from serve.replica import Replica

# Below the 10 s that Prometheus waits by default.
_SCRAPE_TIMEOUT_S = 5.0
_ID_LETTERS = 8


@ray.serve.deployment(name="Endpoint")
@ray.serve.ingress()
class EndpointReplica:
    """The Ray Serve deployment: loads the models and answers HTTP."""

    def __init__(self, settings: dict[str, Any]) -> None:
        parsed = ReplicaSettings.model_validate(settings)
        self._replica = Replica(parsed, _replica_id(), self._all_metrics)
        patch_uvicorn(parsed.client_timeout_s, self._replica.metrics.count_rejected)
        self._mirror = mirror_to_ray(self._replica.metrics.registry)
        self._machine = ray.get_runtime_context().get_node_id()[:_ID_LETTERS]
        self._collecting: asyncio.Task[str] | None = None

    def __serve_build_asgi_app__(self) -> HttpApp:
        """Return the ASGI application; Ray Serve calls this once the models are loaded."""
        return self._replica.app

    def check_health(self) -> None:
        """Raise `RuntimeError` if a batcher has stopped; Ray Serve then replaces this replica."""
        self._replica.check_health()

    async def own_metrics(self) -> list[tuple[str, dict[str, Family]]]:
        """Return this replica's metrics and those of its machine's HAProxy, each with its source's name.

        The replica that is scraped calls this on all replicas; replicas of one machine name the same HAProxy.
        """
        own = self._replica.name, self._replica.metrics.families(self._replica.name)
        return [own, (self._machine, await refusals(self._machine))]

    def engines(self) -> dict[str, str]:
        """Return the engine that computes new requests, by model; the command that serves asks all replicas."""
        return {str(served.identity["name"]): str(served.identity["engine"]) for served in self._replica.models}

    async def drain(self, within_s: float) -> int:
        """Take no more requests, and answer with 503 what is not answered `within_s`. Return the number of open requests.

        May be called again, with the time that is left.
        """
        app = self._replica.app
        app.drain()
        if within_s <= 0:
            app.give_up()
        return app.n_active

    async def _all_metrics(self) -> str:
        """Return the page for /metrics. Scrapes at the same time share one question to the replicas."""
        if self._collecting is None or self._collecting.done():
            self._collecting = asyncio.ensure_future(self._collect_metrics())
        return await asyncio.shield(self._collecting)

    async def _collect_metrics(self) -> str:
        context = ray.serve.get_replica_context()
        handle = ray.serve.get_deployment_handle(context.deployment, context.app_name)
        # The page shows the other replicas even if one is starting, stopping, gone or stuck.
        answers = await broadcast_answers(handle, "own_metrics", _SCRAPE_TIMEOUT_S) or [await self.own_metrics()]
        return join_families(dict(itertools.chain.from_iterable(answers)).values())


def _replica_id() -> str:
    with contextlib.suppress(Exception):
        return str(ray.serve.get_replica_context().replica_id.unique_id)
    return str(os.getpid())
