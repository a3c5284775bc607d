"""The run of a submitted job, on the cluster: store what travelled with it, then run or resume its spec."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raymill.stages import run

if TYPE_CHECKING:
    from cluster.console import Console
    from trainer.pipeline.outcome import Outcome


def run_submitted(job: dict[str, Any], package: Path, console: Console) -> Outcome:
    """Run the job that `raymill.submission_plan` wrote. `package` is the folder of the files that travelled with it.

    The data and base models among them are copied into the storage first: all nodes see them there, under a name that is
    the same whenever the content is.
    """
    inputs = job["inputs"]
    store_inputs(package, inputs["files"], Path(inputs["folder"]))
    return run(job["spec"], console=console, continue_unfinished=not job["new"])


def store_inputs(package: Path, files: list[str], folder: Path) -> None:
    """Copy files of the package to the same relative paths in `folder`, all or none. Existing ones are the same."""
    import shutil

    from cluster.files import new_folder

    if not files or folder.is_dir():
        return
    with contextlib.suppress(FileExistsError), new_folder(folder) as new:  # another job may store the same files
        for name in files:
            target = new / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(package / name, target)
