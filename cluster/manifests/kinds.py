"""The kinds of manifests. A new kind is a module with a function `render`, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from cluster.errors import SpecError, suggest
from cluster.manifests import compose, ray_up, raycluster, serve_config, slurm
from cluster.manifests.documents import Rendered
from cluster.manifests.inputs import ManifestInputs


def _no_problems(files: Mapping[str, str]) -> list[str]:
    return []


class ManifestKind(NamedTuple):
    """One kind of manifest."""

    description: str
    """What the files are, in a few words, for `raymill manifest --help`."""
    render: Callable[[ManifestInputs], Rendered]
    """Returns the files: name -> text, or YAML documents."""
    check: Callable[[Mapping[str, str]], list[str]] = _no_problems
    """Returns what is wrong with the files (name -> text), one sentence each: file, key, value and rule."""


#: Name -> kind, in the order of the help.
KINDS: dict[str, ManifestKind] = {
    "ray-up": ManifestKind("machines of AWS, GCP or Azure that Ray starts and stops, or hosts by ssh", ray_up.render),
    "raycluster": ManifestKind("a standing Ray cluster on Kubernetes, by KubeRay", raycluster.render),
    "compose": ManifestKind("containers on hosts of your own, by Docker Compose", compose.render),
    "slurm": ManifestKind("a batch job of a Slurm cluster", slurm.render),
    "serve-config": ManifestKind("the endpoint for `serve deploy`", serve_config.render, serve_config.check),
}


def get_kind(name: str) -> ManifestKind:
    """Return a kind by its name. Raises `SpecError` if there is none."""
    if name not in KINDS:
        raise SpecError(f"{name!r} is no kind of manifest", suggest(name, KINDS))
    return KINDS[name]
