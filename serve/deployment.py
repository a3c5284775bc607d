"""A replica as a Ray Serve deployment. Ray Serve runs the number of replicas in `serve.replicas`."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any

import ray.serve

from serve.asgi.app import HttpApp
from serve.asgi.uvicorn_patch import patch_uvicorn
from serve.haproxy_metrics import NAME, refusals_page
from serve.model.metrics import merge_pages
from serve.model.settings import ReplicaSettings
from serve.ray_metrics import mirror_to_ray
from serve.replica import Replica

_SCRAPE_TIMEOUT_S = 5.0


@ray.serve.deployment(name="Endpoint")
@ray.serve.ingress()
class EndpointReplica:
    """The Ray Serve deployment: loads the models and answers HTTP."""

    def __init__(self, settings: dict[str, Any]) -> None:
        parsed = ReplicaSettings.model_validate(settings)
        self._replica = Replica(parsed, _replica_id(), self._all_metrics)
        patch_uvicorn(parsed.client_timeout_s, self._replica.metrics.count_rejected)
        self._mirror = mirror_to_ray(self._replica.metrics.registry)

    def __serve_build_asgi_app__(self) -> HttpApp:
        """Return the ASGI application; Ray Serve calls this once the models are loaded."""
        return self._replica.app

    def check_health(self) -> None:
        """Raise `RuntimeError` if a batcher has stopped; Ray Serve then replaces this replica."""
        self._replica.check_health()

    def own_metrics(self) -> tuple[str, str]:
        """Return this replica's id and its metrics; the replica that is scraped calls this on all replicas."""
        return self._replica.name, self._replica.metrics.text()

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
        context = ray.serve.get_replica_context()
        handle = ray.serve.get_deployment_handle(context.deployment, context.app_name)
        # The page shows the other replicas even if one is starting, stopping or gone.
        results: list[Any] = []
        with contextlib.suppress(TimeoutError, asyncio.TimeoutError):  # two classes in Python 3.10
            results = await handle.broadcast("own_metrics").results_async(
                timeout_s=_SCRAPE_TIMEOUT_S, return_exceptions=True
            )
        pages = dict([result for result in results if isinstance(result, tuple)] or [self.own_metrics()])
        if refusals := await refusals_page():
            pages[NAME] = refusals
        return merge_pages(pages)


def _replica_id() -> str:
    with contextlib.suppress(Exception):
        return str(ray.serve.get_replica_context().replica_id.unique_id)
    return str(os.getpid())
