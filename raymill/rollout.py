"""Roll a model's version out to an endpoint on a cluster."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from raymill.session import STORAGE, find_version


def rollout(
    model: str, *, address: str | None = None, storage: str | Path = STORAGE, within_s: float = 900
) -> dict[str, Any]:
    """Make the endpoint on a cluster serve `model`: a name for its champion, `name@alias` or `name@7`.

    `address` is Ray's dashboard, as for `raymill submit`. Returns `model`, `version`, and `before`: what the endpoint
    served until now, or None if it serves the version already. Raises `ModelError` if the new version does not start
    within `within_s`; then the endpoint serves what it did before. If an alias of the model named the version, it points
    back to the one before.
    """
    from cluster.errors import ModelError
    from cluster.jobs.address import find_jobs_address
    from serve.rollout import ServeClient, roll_out
    from trainer.registry.registry import DEFAULT_ALIAS, Registry

    version = find_version(model, storage)
    selector = model.partition("@")[2] or DEFAULT_ALIAS

    def move_alias_back() -> None:
        if not selector.isdigit():
            with contextlib.suppress(ModelError):  # there is no earlier version
                Registry(storage).rollback(version.name, selector)

    before = roll_out(ServeClient(find_jobs_address(address)), version, within_s, move_alias_back)
    return {"model": version.name, "version": version.number, "before": before}
