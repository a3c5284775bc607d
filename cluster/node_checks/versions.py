"""Versions: all nodes run the same Python, Ray, torch, raymill and other libraries."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from cluster.environment_checks import Check
from cluster.node_checks.answers import NodeAnswer, describe_groups, fine, look, name_list, nodes_by_value, where, wrong

_PACKAGES = (
    "raymill",
    "ray",
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "pyarrow",
    "numpy",
    "pandas",
    "scikit-learn",
    "xgboost",
    "xgboost-cpu",
    "optuna",
    "peft",
    "onnxruntime",
    "openvino",
)
# Other versions of these give other results or fail; of the others they may.
_MUST_BE_EQUAL = ("python", "raymill", "ray", "torch", "transformers", "pyarrow")
_MISSING = "not installed"


def read_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that raymill uses, `not installed` for those that are absent."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        versions[package] = _MISSING
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def check_versions(nodes: Sequence[NodeAnswer]) -> list[Check]:
    """Check that each library has one version on all nodes, and that torch fits the GPUs there."""
    checks, equal = [], []
    for package in ("python", *_PACKAGES):
        groups = nodes_by_value(nodes, lambda node, package=package: node.facts["versions"][package])  # type: ignore[misc]
        if len(groups) == 1:
            equal += [f"{package} {value}" for value in groups if value != _MISSING]
            continue
        line = wrong if package in _MUST_BE_EQUAL else look
        checks.append(line(f"version of {package}", describe_groups(groups), "install the same version on all nodes"))
    if not checks:
        checks.append(fine("versions", f"the same on all nodes: {', '.join(equal)}"))
    without_raymill = where(nodes, lambda node: node.facts["versions"]["raymill"] == _MISSING)
    if without_raymill:
        fix = "install it on every node: `pip install raymill`, or use an image that has it"
        checks.append(wrong("raymill", f"not installed on {name_list(without_raymill)}", fix))
    cpu_torch = where(nodes, lambda node: bool(node.facts["gpus"]) and node.facts["versions"]["torch"].endswith("+cpu"))
    if cpu_torch:
        fix = "install the torch that is built for its CUDA version"
        checks.append(wrong("torch for GPUs", f"torch without CUDA on {name_list(cpu_torch)}", fix))
    return checks
