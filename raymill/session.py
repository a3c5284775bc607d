"""Helpers that the functions of the API share: the storage folder, a version by name, the console, Ray for one run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.paths import expand_home

if TYPE_CHECKING:
    from cluster.console import Console
    from trainer.pipeline.run import Run
    from trainer.registry.registry import Version
    from trainer.spec.run import RunSpec

#: The default storage folder, the same as in the spec.
STORAGE = "~/.raymill"


def storage_folder(storage: str | Path) -> Path:
    """Return `storage` as an absolute path."""
    return expand_home(storage).absolute()


def find_version(model: str, storage: str | Path) -> Version:
    """Return the version that `model` names (`name`, `name@alias` or `name@7`), after checking all its files."""
    from trainer.registry.registry import Registry, verify_files

    version = Registry(storage).find(model)
    verify_files(version)
    return version


def console_or_default(console: Console | None) -> Console:
    """Return `console`, or a console that writes nothing."""
    from cluster.console import Console

    return console or Console()


def is_on_this_machine(spec: RunSpec) -> bool:
    """Return whether a run of `spec` uses only this machine: it joins no cluster, and no Ray is connected."""
    from cluster.connect import is_connected, joins_cluster

    return not joins_cluster(spec.cluster.address) and not is_connected()


@contextlib.contextmanager
def ray_for(run: Run, *, serving: bool = False) -> Iterator[None]:
    """Connect to Ray while the block runs, if the run needs Ray.

    Raises `ResourceError` if the run does not fit. A local Ray is not started then; a cluster is joined to learn its
    size.
    """
    from cluster.connect import connect_to_ray
    from cluster.plan import joined_nodes, local_nodes

    is_local = is_on_this_machine(run.spec)
    is_served = serving or (run.spec.tune is not None and run.spec.tune.measures_serving)
    if is_local:
        uses_gpus = run.spec.cluster.gpus_per_worker > 0 or run.spec.serve.gpus_per_replica > 0
        run.size_resources(local_nodes(run.spec.cluster.cpus, with_gpus=uses_gpus), serving=is_served)
    if not run.needs_ray:
        yield
        return
    with contextlib.ExitStack() as stack:
        if is_local and is_served:
            from serve.haproxy import configure_proxy

            stack.enter_context(configure_proxy(run.spec.serve))
        started = time.monotonic()
        with run.console.stage("ray"):
            stack.enter_context(
                connect_to_ray(run.spec.cluster.address, cpus=run.spec.cluster.cpus, quiet=run.console.quiet)
            )
        run.stages.seconds["ray"] = round(time.monotonic() - started, 2)
        run.size_resources(joined_nodes(), serving=is_served)
        yield
