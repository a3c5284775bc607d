"""Manifests: what a cluster manager needs to run a spec."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.spec.run import RunSpec


def manifest(
    spec: str | Path | RunSpec | Mapping[str, Any], kind: str, *, overrides: Iterable[str] = (), ha: bool = False
) -> dict[str, str]:
    """Return the files of a manifest for `spec`: name -> text. They are checked first.

    `kind` is one of `cluster.manifests.kinds.KINDS`, for example `rayjob`. With `ha`, the endpoint of a `rayservice`
    survives the loss of the head. Raises `SpecError` if the spec does not say what the kind needs, or if the files are
    refused by the checks.
    """
    from cluster.manifests.files import render_manifest
    from cluster.manifests.inputs import build_inputs
    from cluster.paths import expand_home
    from trainer.tasks.load_spec import load_spec

    folder = expand_home(spec).resolve().parent if isinstance(spec, (str, Path)) else Path.cwd()
    return render_manifest(kind, build_inputs(load_spec(spec, overrides), folder, is_ha=ha))


def check_manifest(folder: str | Path, kind: str) -> list[Path]:
    """Check the files of a folder as a manifest of `kind`, and return their paths.

    Raises `SpecError` with every problem: the file, the key, the value and the rule.
    """
    from cluster.manifests.files import check_folder
    from cluster.paths import expand_home

    return check_folder(kind, expand_home(folder))
