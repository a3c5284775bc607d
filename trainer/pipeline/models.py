"""What a registered model does on files: figures on labelled rows, predictions for unlabelled ones."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cluster.connect import connect
from cluster.console import Console
from cluster.errors import ResourceError
from cluster.plan import Demand, check, joined_nodes
from cluster.progress import Progress, read_all, run_watched, total_of
from trainer.contract import contract as contracts
from trainer.inference import batch_predict, evaluate
from trainer.registry import register
from trainer.registry.registry import Version
from trainer.report import page
from trainer.runs.folder import RAY_LOG, SPEC
from trainer.spec.run import RunSpec
from trainer.tasks import catalog as task_catalog
from trainer.tasks import resolve


def evaluate_version(
    version: Version, data: str | None, storage: Path, console: Console, address: str | None
) -> dict[str, Any]:
    """Return and report the figures of `version` on `data`, or on the held-out rows it was registered with.

    Computed in this process, or in a Ray task where an `address` is given.
    """
    contract = contracts.load(version.folder)
    rows = evaluate.read_labelled(data, contract) if data else register.held_out_of(version)
    folder = _new_folder(storage, version, "evaluate")
    console.say(f"{version.ref}: {len(rows):,} rows, {folder}", style="bold")
    console.send_rays_output_to(folder / RAY_LOG)
    how = spec_of(version).evaluate
    progress = folder / "progress" / "rows.json"
    started = time.monotonic()

    def work() -> Any:
        if address is None:
            return evaluate.score_here(
                str(version.folder), rows.columns, os.cpu_count() or 1, False, how.batch_size, progress
            )
        return evaluate.score(version.folder, rows, cpus=1, gpus=0, batch_size=how.batch_size, progress=progress)

    with contextlib.ExitStack() as stack:
        if address is not None:
            stack.enter_context(connect(address, quiet=console.quiet))
        with console.stage("evaluate") as show:
            scores = run_watched(work, lambda: show(total_of(read_all(progress.parent))))
    found = evaluate.judge(contract, rows, scores, n_bins=how.calibration_bins, n_mistakes=how.mistakes)
    origin = {
        "version": version.ref,
        "rows": data or "held-out rows",
        "digest of the rows": rows.digest,
        **version.lineage,
    }
    page.write(folder / page.FILE, title=f"{version.ref} on {Path(data).name if data else 'its held-out rows'}",
               metric=how.metric, evaluation=found, lineage=origin,
               sections=task_catalog.of(contract).sections(contract, version.folder))  # fmt: skip
    return {
        "run": str(folder),
        "model": version.name,
        "version": version.number,
        "fingerprint": contract.fingerprint,
        "metrics": {"test": found.metrics},
        "rows": found.rows,
        "stages": {"evaluate": round(time.monotonic() - started, 2)},
        "report": str(folder / page.FILE),
    }


def predict_version(
    version: Version, given: str | list[str], output: Path, storage: Path, console: Console, address: str | None
) -> dict[str, Any]:
    """Write the predictions of `version` for files and return the output's path and counts."""
    contract = contracts.load(version.folder)
    batch_predict.must_be_readable(given, output, contract)
    folder = _new_folder(storage, version, "predict")
    console.say(f"{version.ref}: predictions to {output}", style="bold")
    console.send_rays_output_to(folder / RAY_LOG)
    latest = Progress()

    def on_progress(progress: Progress) -> None:
        nonlocal latest
        latest = progress

    started = time.monotonic()
    with console.stage("ray"):
        stack = contextlib.ExitStack()
        stack.enter_context(connect(address, quiet=console.quiet))
    with stack:
        # An actor lives on one node, and half a core is left for Ray Data to read with: it would wait for ever without.
        largest = max((node.cpus for node in joined_nodes()), default=0.0)
        check([Demand("predict", "reading and one model", 1, 1, 0, "nothing")], joined_nodes())
        cpus = largest - 1 if largest >= 2 else largest - 0.5

        def work() -> dict[str, int]:
            return batch_predict.predict_files(
                version.folder, given, output, workers=1, cpus=cpus, gpus=0, on_progress=on_progress
            )

        with console.stage("predict") as show:
            counts = run_watched(work, lambda: show(latest))
    return {
        "output": str(output),
        "model": version.name,
        "version": version.number,
        **counts,
        "stages": {"predict": round(time.monotonic() - started, 2)},
    }


def spec_of(version: Version, overrides: Iterable[str] = ()) -> RunSpec:
    """Return the spec of a registered version. A task of the user's own is compared with the contract's before it runs."""
    contract = contracts.load(version.folder)
    task_catalog.of(contract)
    return resolve.load(version.folder / SPEC, [*overrides, f"task={json.dumps(contract.task)}"])


def _new_folder(storage: Path, version: Version, kind: str) -> Path:
    folder = storage / "runs" / f"{version.name}-{kind}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(
            f"{storage} cannot be written: {error.strerror}", "give a folder you may write to with --storage"
        ) from error
    return folder
