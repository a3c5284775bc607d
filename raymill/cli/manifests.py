"""The command for manifests: manifest."""

from __future__ import annotations

from pathlib import Path

import click

import raymill
from raymill.cli.context import CommandContext
from raymill.cli.options import SPEC_OR_RUN, shared_options


@click.command("manifest")
@SPEC_OR_RUN
@click.option("--kind", required=True, metavar="KIND", help="What to write; `raymill manifest --kind list` lists them.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Folder to write the files into.")
@click.option("--ha", is_flag=True, help="Kind rayservice: the endpoint survives the loss of the head.")
@click.option("--check", "checked", type=click.Path(path_type=Path), metavar="DIR", help="Check the files of a folder.")
@shared_options("set")
def manifest_command(
    context: CommandContext,
    spec: str | None,
    kind: str,
    output: Path | None,
    ha: bool,
    checked: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Write the files that a cluster manager needs to run SPEC.

    They are checked before they are written. Without -o they are printed.
    """
    from cluster.manifests.files import write_manifest
    from cluster.manifests.kinds import KINDS

    if kind == "list":
        context.emit(
            {"kinds": {name: about.description for name, about in KINDS.items()}},
            [f"{name:<14} {about.description}" for name, about in KINDS.items()],
        )
        return
    if (spec is None) == (checked is None):
        raise click.UsageError("give exactly one of SPEC, --check DIR")
    if checked is not None:
        paths = raymill.check_manifest(checked, kind)
        context.emit({"checked": [str(path) for path in paths]}, [f"{len(paths)} files are valid: {checked}"])
        return
    files = raymill.manifest(str(spec), kind, overrides=overrides, ha=ha)
    if output is None:
        context.emit({"files": files}, [f"# {name}\n{text}" for name, text in files.items()])
        return
    paths = write_manifest(files, output)
    context.emit({"files": [str(path) for path in paths]}, [f"written: {path}" for path in paths])
