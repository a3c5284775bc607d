"""HTTP endpoints of registered models: serve them, choose their engines, make the config for `serve deploy`."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from raymill.held_out import load_held_out_rows
from raymill.session import STORAGE, console_or_default, find_version, storage_folder

if TYPE_CHECKING:
    from cluster.console import Console
    from cluster.progress import Progress
    from raymill.engine_choice import EngineChoice
    from raymill.held_out import HeldOutLoader
    from serve.endpoint import RayEndpoint
    from serve.engines.selection import SelectedEngine
    from serve.local.endpoint import LocalEndpoint
    from trainer.registry.registry import Version
    from trainer.spec.serve import ServeSpec

# Endpoints of this process that run now.
_running: list[RayEndpoint | LocalEndpoint] = []
# How often to look whether an endpoint has failed.
_LOOK_EVERY_S = 0.5


@contextlib.contextmanager
def serve(
    model: str,
    *,
    storage: str | Path = STORAGE,
    address: str | None = None,
    wait_for_engine: bool = False,
    console: Console | None = None,
    overrides: Iterable[str] = (),
    **changes: Any,
) -> Iterator[str]:
    """Serve a registered model while the block runs; yield the endpoint's URL.

    With `wait_for_engine`, choose the engine first, if none is stored for this hardware. Otherwise the endpoint answers
    at once with the model itself, and takes the engine over once it is chosen. `changes` override keys of the spec's
    `serve:`, for example `replicas=2`. `overrides` override any key of the spec, for example `["serve.replicas=2"]`.
    """
    from cluster.connect import joins_cluster
    from cluster.ray_address import LOCAL
    from serve.haproxy import check_access, check_port
    from trainer.pipeline.version_spec import load_version_spec
    from trainer.runs.folder import RAY_LOG, create_run, lock_run

    version = find_version(model, storage)
    spec = load_version_spec(version, [*overrides, *_serve_overrides(changes)])
    versions = [version, *[find_version(ref, storage) for ref in spec.serve.models]]
    check_access(spec.serve)
    console = console_or_default(console)
    folder = create_run(spec.model_copy(update={"storage": str(storage_folder(storage))}), "serve")
    console.print(f"{', '.join(version.ref for version in versions)}: {folder}", style="bold")
    console.redirect_ray_output(folder / RAY_LOG)
    if address is None and spec.cluster.address == LOCAL:
        address = LOCAL
    with contextlib.ExitStack() as stack:
        stack.enter_context(lock_run(folder))
        if not joins_cluster(address):
            check_port(spec.serve.host, spec.serve.port)
        if _needs_ray(spec.serve, address):
            stack.enter_context(_ray_for_serving(spec.serve, console, address))
        yield stack.enter_context(
            serve_versions(versions, spec.serve, console, wait_for_engine=wait_for_engine, log_folder=str(folder))
        )


@contextlib.contextmanager
def serve_versions(
    versions: Sequence[Version],
    spec: ServeSpec,
    console: Console,
    *,
    held_out: HeldOutLoader | None = None,
    wait_for_engine: bool = False,
    log_folder: str | None = None,
    stop_within_s: float = 1.0,
) -> Iterator[str]:
    """Serve `versions` while the block runs; yield the endpoint's URL.

    Serves on the connected Ray. If no Ray is connected, serves in one process of its own, or starts Ray on this machine
    if the endpoint needs Ray Serve. `held_out` returns the rows to check a version's engines on if they are measured
    first; by default, the rows that the version was registered with. See `serve` for `wait_for_engine`. At the end,
    wait up to `stop_within_s` until Ray Serve has stopped the endpoint. If it has not, a local Ray ends it when Ray
    stops.
    """
    from cluster.plan import check_fits, joined_nodes, local_nodes
    from cluster.progress import Progress, run_in_thread
    from serve.replica_settings import check_names
    from trainer.pipeline.resources import serving_demand

    check_names(versions)
    with contextlib.ExitStack() as stack:
        uses_ray = _needs_ray(spec)
        if uses_ray:
            stack.enter_context(_ray_for_serving(spec, console, None))
        check_fits([serving_demand(spec)], joined_nodes() if uses_ray else local_nodes(with_gpus=False))
        with console.stage("serve") as show:
            engines = _select_engines(versions, spec, console, held_out, show, wait=wait_for_engine)
            endpoint = _create_endpoint(versions, spec, engines, console, log_folder, uses_ray=uses_ray)
            stack.callback(endpoint.stop, stop_within_s)
            run_in_thread(endpoint.start, lambda: show(Progress()))
        awaited = [version for version, engine in zip(versions, engines, strict=True) if engine.awaited]
        if awaited:
            stack.callback(_choose_beside(awaited, spec, endpoint, console).stop)
        _running.append(endpoint)
        stack.callback(_running.remove, endpoint)
        stack.enter_context(_named_for_prometheus(versions[0], endpoint.url))
        yield endpoint.url
        endpoint.raise_failure()


@contextlib.contextmanager
def _named_for_prometheus(version: Version, url: str) -> Iterator[None]:
    """Name the endpoint in the storage folder while the block runs, so that a Prometheus on this machine can scrape it.

    On a cluster that exports metrics, Ray's exporter has the metrics of all replicas, and they must not count twice.
    """
    import socket
    from urllib.parse import urlsplit

    from cluster.errors import ResourceError
    from cluster.monitoring.gauges import TARGETS_FOLDER, ray_exports_metrics, write_targets

    if ray_exports_metrics():
        yield
        return
    address = urlsplit(url).netloc.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]")
    path = version.storage / TARGETS_FOLDER / f"endpoint-{socket.gethostname()}-{urlsplit(url).port}.json"
    with contextlib.suppress(ResourceError, OSError):  # storage that can only be read
        write_targets(path, address)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _needs_ray(spec: ServeSpec, address: str | None = None) -> bool:
    """Return whether to serve with Ray Serve: the endpoint needs it, or an address or a connected Ray asks for it."""
    from cluster.connect import asks_for_ray
    from serve.local.endpoint import fits_one_process

    return asks_for_ray(address) or not fits_one_process(spec)


@contextlib.contextmanager
def _ray_for_serving(spec: ServeSpec, console: Console, address: str | None) -> Iterator[None]:
    """Connect to Ray while the block runs. A Ray that is started on this machine gets the spec's proxy."""
    from cluster.connect import connect_to_ray, is_connected, joins_cluster
    from cluster.ray_address import OPTION
    from serve.haproxy import configure_proxy

    if is_connected():
        yield
        return
    with contextlib.ExitStack() as stack:
        if not joins_cluster(address):
            stack.enter_context(configure_proxy(spec))
        with console.stage("ray"):
            stack.enter_context(connect_to_ray(address, source=OPTION, quiet=console.quiet))
        yield


def _select_engines(
    versions: Sequence[Version],
    spec: ServeSpec,
    console: Console,
    held_out: HeldOutLoader | None,
    show: Callable[[Progress], None],
    *,
    wait: bool,
) -> list[SelectedEngine]:
    """Return the engine that replicas start with, for each version.

    Engines that must be measured are measured now if `wait` is true, or if the spec names one engine. Otherwise
    replicas start with the model itself.
    """
    from cluster.progress import Progress, run_in_thread
    from serve.engines.catalog import ENGINE_NAMES
    from serve.engines.selection import awaited_engine, current_engine
    from trainer.spec.serve import GenerationEngineName

    load = held_out or load_held_out_rows

    def select(version: Version) -> SelectedEngine:
        if wait or spec.engine in (*ENGINE_NAMES, *get_args(GenerationEngineName)):
            from serve.engines.choose import select_engine

            return select_engine(version, spec, lambda: load(version), lambda line: console.print(f"    {line}"))
        return current_engine(version, spec) or awaited_engine(version, spec, spec.max_metric_drop)

    return run_in_thread(lambda: [select(version) for version in versions], lambda: show(Progress()))


def _create_endpoint(
    versions: Sequence[Version],
    spec: ServeSpec,
    engines: Sequence[SelectedEngine],
    console: Console,
    log_folder: str | None,
    *,
    uses_ray: bool,
) -> RayEndpoint | LocalEndpoint:
    from serve.haproxy import check_access
    from serve.replica_settings import build_replica_settings

    check_access(spec)
    settings = build_replica_settings(versions, spec, engines, log_folder)
    if uses_ray:
        from serve.endpoint import RayEndpoint

        return RayEndpoint(versions[0], spec, settings, console.print)
    from serve.local.endpoint import LocalEndpoint

    return LocalEndpoint(versions[0], spec, settings, console.print)


def _choose_beside(
    versions: Sequence[Version], spec: ServeSpec, endpoint: RayEndpoint | LocalEndpoint, console: Console
) -> EngineChoice:
    """Choose the engines of `versions` beside a running endpoint, and say when its replicas use them."""
    from raymill.engine_choice import EngineChoice

    names = ", ".join(version.name for version in versions)
    console.print(
        f"{names}: answers with the model itself while its engine is chosen at low priority; "
        "`--wait-for-engine` chooses it first"
    )
    return EngineChoice(versions, spec, console.print, endpoint.wait_for_engine)


def optimize(
    model: str,
    *,
    storage: str | Path = STORAGE,
    console: Console | None = None,
    overrides: Iterable[str] = (),
    **changes: Any,
) -> dict[str, Any]:
    """Build and time the engines that can serve a model on this machine, and store the choice beside the version.

    `changes` override keys of the spec's `serve:`, and `overrides` override any key. Returns the measurements and the
    choice.
    """
    from serve.engines.choose import optimize_engine
    from trainer.pipeline.version_spec import load_version_spec

    version = find_version(model, storage)
    spec = load_version_spec(version, [*overrides, *_serve_overrides(changes)])
    console = console_or_default(console)
    with console.stage("optimize"):
        return optimize_engine(version, spec.serve, load_held_out_rows(version), console.print)


def deploy_config(model: str, *, storage: str | Path = STORAGE, overrides: Iterable[str] = (), **changes: Any) -> str:
    """Return the config of a model's endpoint for `serve deploy`, as YAML."""
    import yaml

    from serve.deploy_config import build_deploy_config
    from serve.engines.selection import service_of
    from serve.haproxy import check_access
    from serve.model.settings import STREAMING
    from trainer.pipeline.version_spec import load_version_spec

    version = find_version(model, storage)
    spec = load_version_spec(version, [*overrides, *_serve_overrides(changes)])
    check_access(spec.serve)
    streams = service_of(version) in STREAMING
    config = build_deploy_config(model, str(storage_folder(storage)), spec.serve, streams=streams)
    return yaml.safe_dump(config, sort_keys=False)


def node_variables(
    model: str, *, storage: str | Path = STORAGE, overrides: Iterable[str] = (), **changes: Any
) -> dict[str, str]:
    """Return the environment variables with which to start Ray on every node that will serve a model's endpoint.

    With them, HAProxy passes requests on, and keeps to the spec's timeouts and `serve.retries`. The path of the program
    `raymill-haproxy` is this machine's: install raymill in the same folder on all nodes, or change it.
    """
    from serve.haproxy import cluster_variables
    from serve.haproxy_command import program_path
    from trainer.pipeline.version_spec import load_version_spec

    version = find_version(model, storage)
    spec = load_version_spec(version, [*overrides, *_serve_overrides(changes)])
    program = program_path()
    return {**cluster_variables(spec.serve), **({"RAY_SERVE_HAPROXY_BINARY_PATH": program} if program else {})}


def _serve_overrides(changes: Mapping[str, Any]) -> list[str]:
    return [f"serve.{key}={json.dumps(value)}" for key, value in changes.items()]


def wait_for_interrupt() -> None:
    """Block until Ctrl-C or SIGTERM, which raise KeyboardInterrupt in this process.

    Raises the error because of which an endpoint of this process cannot go on, if there is one.
    """
    while True:
        for endpoint in _running:
            endpoint.raise_failure()
        time.sleep(_LOOK_EVERY_S)
