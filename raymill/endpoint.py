"""HTTP endpoints of registered models: serve them, choose their engines, make the config for `serve deploy`."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raymill.session import STORAGE, console_or_default, find_version, storage_folder

if TYPE_CHECKING:
    from cluster.console import Console
    from serve.app import HeldOutLoader
    from serve.engines.benchmark import HeldOut
    from trainer.contract.contract import Contract
    from trainer.inference.evaluate import LabeledRows
    from trainer.registry.registry import Version
    from trainer.spec.run import RunSpec
    from trainer.spec.serve import ServeSpec


@contextlib.contextmanager
def serve(
    model: str,
    *,
    storage: str | Path = STORAGE,
    address: str | None = None,
    console: Console | None = None,
    overrides: Iterable[str] = (),
    **changes: Any,
) -> Iterator[str]:
    """Serve a registered model while the block runs; yield the endpoint's URL.

    `changes` override keys of the spec's `serve:`, for example `replicas=2`. `overrides` override any key of the spec,
    for example `["serve.replicas=2"]`.
    """
    from cluster.connect import connect_to_ray, joins_cluster
    from serve.haproxy import check_access, check_port, configure_proxy
    from trainer.pipeline.models import load_version_spec
    from trainer.runs.folder import RAY_LOG, create_run

    version = find_version(model, storage)
    spec = load_version_spec(version, [*overrides, *_serve_overrides(changes)])
    versions = [version, *[find_version(ref, storage) for ref in spec.serve.models]]
    check_access(spec.serve)
    console = console_or_default(console)
    folder = create_run(spec.model_copy(update={"storage": str(storage_folder(storage))}), "serve")
    console.print(f"{', '.join(version.ref for version in versions)}: {folder}", style="bold")
    console.redirect_ray_output(folder / RAY_LOG)
    with contextlib.ExitStack() as stack:
        if not joins_cluster(address):
            check_port(spec.serve.host, spec.serve.port)
            stack.enter_context(configure_proxy(spec.serve))
        with console.stage("ray"):
            stack.enter_context(connect_to_ray(address, quiet=console.quiet))
        yield stack.enter_context(serve_versions(versions, spec.serve, console, log_folder=str(folder)))


@contextlib.contextmanager
def serve_versions(
    versions: Sequence[Version],
    spec: ServeSpec,
    console: Console,
    *,
    held_out: HeldOutLoader | None = None,
    log_folder: str | None = None,
    stop_within_s: float = 1.0,
) -> Iterator[str]:
    """Serve `versions` on the connected Ray while the block runs; yield the endpoint's URL.

    `held_out` returns the rows to check a version's engines on; by default, the rows that the version was registered
    with. At the end, wait up to `stop_within_s` until the endpoint has stopped. If it has not, a local Ray ends it when
    Ray stops.
    """
    from cluster.plan import check_fits, joined_nodes
    from cluster.progress import Progress, run_in_thread
    from serve.endpoint import start_endpoint, stop_endpoint
    from trainer.pipeline.resources import serving_demand

    check_fits([serving_demand(spec)], joined_nodes())
    messages: list[str] = []

    def start() -> Any:
        return start_endpoint(
            versions, spec, held_out or load_held_out_rows, log_folder=log_folder, say=messages.append
        )

    def print_messages() -> None:
        while messages:
            console.print(f"    {messages.pop(0)}")
        show(Progress())

    try:
        with console.stage("serve") as show:
            endpoint = run_in_thread(start, print_messages)
    except KeyboardInterrupt:  # the thread still starts replicas, and a joined cluster would keep them
        stop_endpoint(versions[0].name, started_serve=False, within_s=stop_within_s)
        raise
    print_messages()
    try:
        yield endpoint.url
    finally:
        stop_endpoint(versions[0].name, started_serve=endpoint.started_serve, within_s=stop_within_s)


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
    from trainer.pipeline.models import load_version_spec

    version = find_version(model, storage)
    spec = load_version_spec(version, [*overrides, *_serve_overrides(changes)])
    console = console_or_default(console)
    with console.stage("optimize"):
        return optimize_engine(version, spec.serve, load_held_out_rows(version), console.print)


def deploy_config(model: str, *, storage: str | Path = STORAGE, overrides: Iterable[str] = (), **changes: Any) -> str:
    """Return the config of a model's endpoint for `serve deploy`, as YAML."""
    import yaml

    from serve.deploy_config import build_deploy_config
    from serve.haproxy import check_access
    from trainer.pipeline.models import load_version_spec

    version = find_version(model, storage)
    spec = load_version_spec(version, [*overrides, *_serve_overrides(changes)])
    check_access(spec.serve)
    return yaml.safe_dump(build_deploy_config(model, str(storage_folder(storage)), spec.serve), sort_keys=False)


def load_held_out_rows(version: Version) -> HeldOut | None:
    """Return the held-out rows that a version was registered with, to check engines on; None if the rows are gone."""
    from cluster.errors import ModelError
    from trainer.contract.contract import load_contract
    from trainer.pipeline.models import load_version_spec
    from trainer.registry.register import load_registered_rows

    try:
        rows = load_registered_rows(version)
    except (ModelError, KeyError):
        return None
    return build_held_out(load_version_spec(version), load_contract(version.folder), rows)


def build_held_out(spec: RunSpec, contract: Contract, rows: LabeledRows) -> HeldOut:
    """Return `rows` with their targets and the metric that an engine must keep."""
    from serve.engines.benchmark import HeldOut
    from trainer.inference.evaluate import encode_targets

    targets = encode_targets(contract, rows)
    metric, is_maximized = spec.evaluate.metric, spec.evaluate.mode == "max"
    return HeldOut(rows.columns, targets, metric, is_maximized, spec.evaluate.calibration_bins)


def _serve_overrides(changes: Mapping[str, Any]) -> list[str]:
    return [f"serve.{key}={json.dumps(value)}" for key, value in changes.items()]


def wait_for_interrupt() -> None:
    """Block until Ctrl-C or SIGTERM, which raise KeyboardInterrupt in this process."""
    while True:
        signal.pause()
