"""HTTP endpoints of registered models: serve, choose an engine, write the config for `serve deploy`."""

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
    from serve.app import HeldOutOf
    from serve.engines.benchmark import HeldOut
    from trainer.contract.contract import Contract
    from trainer.inference.evaluate import LabelledRows
    from trainer.registry.registry import Version
    from trainer.spec.run import RunSpec
    from trainer.spec.serve import Serve


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
    """Serve a registered model while the block runs; yields its URL.

    `changes` override keys of the spec's `serve:`; `overrides` override any key, for example `serve.replicas=2`.
    """
    from cluster.connect import connect, joins
    from serve.haproxy import check_access, check_port, prepared
    from trainer.pipeline.models import spec_of
    from trainer.runs import folder as run_folder

    version = find_version(model, storage)
    spec = spec_of(version, [*overrides, *_serve_overrides(changes)])
    versions = [version, *[find_version(ref, storage) for ref in spec.serve.models]]
    check_access(spec.serve)
    shown = console_or_default(console)
    folder = run_folder.create(spec.model_copy(update={"storage": str(storage_folder(storage))}), "serve")
    shown.say(f"{', '.join(each.ref for each in versions)}: {folder}", style="bold")
    shown.send_rays_output_to(folder / run_folder.RAY_LOG)
    with contextlib.ExitStack() as stack:
        if not joins(address):
            check_port(spec.serve.host, spec.serve.port)
            stack.enter_context(prepared(spec.serve))
        with shown.stage("ray"):
            stack.enter_context(connect(address, quiet=shown.quiet))
        yield stack.enter_context(serve_versions(versions, spec.serve, shown, log_folder=str(folder)))


@contextlib.contextmanager
def serve_versions(
    versions: Sequence[Version],
    spec: Serve,
    console: Console,
    *,
    held_out: HeldOutOf | None = None,
    log_folder: str | None = None,
    stop_within_s: float = 1.0,
) -> Iterator[str]:
    """Serve `versions` on the connected Ray while the block runs; yields the URL.

    `held_out` returns the rows that engines are checked on; by default those that the version was registered with. At the
    end, wait up to `stop_within_s` for the endpoint to be gone; a Ray that stops next ends what is left.
    """
    from cluster.plan import check, joined_nodes
    from cluster.progress import Progress, run_watched
    from serve.endpoint import start, stop
    from trainer.pipeline.resources import serving_demand

    check([serving_demand(spec)], joined_nodes())
    messages: list[str] = []

    def work() -> Any:
        return start(versions, spec, held_out or held_out_rows, log_folder=log_folder, say=messages.append)

    def look() -> None:
        while messages:
            console.say(f"    {messages.pop(0)}")
        show(Progress())

    try:
        with console.stage("serve") as show:
            endpoint = run_watched(work, look)
    except KeyboardInterrupt:  # the thread is still starting replicas, on a cluster that outlives this process
        stop(versions[0].name, started_serve=False, within_s=stop_within_s)
        raise
    look()
    try:
        yield endpoint.url
    finally:
        stop(versions[0].name, started_serve=endpoint.started_serve, within_s=stop_within_s)


def optimize(
    model: str,
    *,
    storage: str | Path = STORAGE,
    console: Console | None = None,
    overrides: Iterable[str] = (),
    **changes: Any,
) -> dict[str, Any]:
    """Build and time the engines that can serve a model on this machine, and store the choice beside the version.

    `changes` override keys of the spec's `serve:`. Returns the measurements and the choice.
    """
    from serve.engines import choose
    from trainer.pipeline.models import spec_of

    version = find_version(model, storage)
    spec = spec_of(version, [*overrides, *_serve_overrides(changes)])
    shown = console_or_default(console)
    with shown.stage("optimize"):
        return choose.optimize(version, spec.serve, held_out_rows(version), shown.say)


def deploy_config(model: str, *, storage: str | Path = STORAGE, overrides: Iterable[str] = (), **changes: Any) -> str:
    """Return the config of a model's endpoint for `serve deploy`, as YAML."""
    import yaml

    from serve.deploy_config import config
    from serve.haproxy import check_access
    from trainer.pipeline.models import spec_of

    version = find_version(model, storage)
    spec = spec_of(version, [*overrides, *_serve_overrides(changes)])
    check_access(spec.serve)
    return yaml.safe_dump(config(model, str(storage_folder(storage)), spec.serve), sort_keys=False)


def held_out_rows(version: Version) -> HeldOut | None:
    """Return the rows that a version was registered with, to check engines on; None if they are gone."""
    from cluster.errors import ModelError
    from trainer.contract import contract as contracts
    from trainer.pipeline.models import spec_of
    from trainer.registry import register

    try:
        rows = register.held_out_of(version)
    except (ModelError, KeyError):
        return None
    return rows_to_check(spec_of(version), contracts.load(version.folder), rows)


def rows_to_check(spec: RunSpec, contract: Contract, rows: LabelledRows) -> HeldOut:
    """Return `rows` with their targets and the metric that an engine must keep."""
    from serve.engines.benchmark import HeldOut
    from trainer.inference.evaluate import targets_of

    how = spec.evaluate
    return HeldOut(rows.columns, targets_of(contract, rows), how.metric, how.mode == "max", how.calibration_bins)


def _serve_overrides(changes: Mapping[str, Any]) -> list[str]:
    return [f"serve.{key}={json.dumps(value)}" for key, value in changes.items()]


def wait_for_interrupt() -> None:
    """Block until Ctrl-C or SIGTERM, which raise KeyboardInterrupt here."""
    while True:
        signal.pause()
