"""What a platform team expects of every pod: its image, its resources, its rights, and where its secrets come from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

_DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
_SECRET_NAME = re.compile(r"TOKEN|PASSWORD|SECRET|CREDENTIAL|(ACCESS|API|PRIVATE)_?KEY", re.IGNORECASE)
_PATH_OF_A_SECRET = re.compile(r"_(PATH|FILE)$", re.IGNORECASE)
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|[kMGTPE]i?)?")
_UNITS = {None: 1.0, "m": 1e-3} | {
    unit + binary: (1024 if binary else 1000) ** (power + 1)
    for power, unit in enumerate("kMGTPE")
    for binary in ("", "i")
}
_UNITS["Ki"] = 1024.0
# Ray writes its logs and sockets into the one, and its object store into the other.
_WRITABLE = ("/tmp", "/dev/shm")


class Pod(NamedTuple):
    """A pod template of a manifest."""

    where: str
    template: dict[str, Any]
    runs_ray: bool
    """Whether its first container runs a node of Ray; the submitter of a job does not."""


def check_pod(pod: Pod) -> list[str]:
    """Return what a platform team would refuse in a pod, one sentence each."""
    spec = pod.template.get("spec") or {}
    problems = [*_security_problems(pod.where, spec), *_volume_problems(pod.where, spec)]
    for container in [*spec.get("containers", []), *spec.get("initContainers", [])]:
        problems += container_problems(f"{pod.where}.{container.get('name')}", container)
    if pod.runs_ray and spec.get("containers"):
        problems += _ray_problems(f"{pod.where}.{spec['containers'][0].get('name')}", spec["containers"][0])
    return problems


def container_problems(where: str, container: dict[str, Any]) -> Iterator[str]:
    """Yield what a platform team would refuse in a container."""
    image = container.get("image", "")
    if not _DIGEST.fullmatch(image):
        yield f"{where}.image={image} is no digest; a tag may name another image tomorrow"
    yield from resource_problems(where, container.get("resources") or {})
    yield from security_context_problems(where, container.get("securityContext") or {})
    for variable in container.get("env") or []:
        name = variable.get("name", "")
        if variable.get("value") and _SECRET_NAME.search(name) and not _PATH_OF_A_SECRET.search(name):
            yield f"{where}.env.{name} holds a secret as text; refer to a Secret with valueFrom.secretKeyRef"


def security_context_problems(where: str, context: dict[str, Any]) -> Iterator[str]:
    """Yield the rights of a container that Kubernetes' profile `restricted` does not allow, and a writable root."""
    expected = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "privileged": None,
    }
    for key, value in expected.items():
        if context.get(key) != value and not (value is None and context.get(key) is False):
            yield f"{where}.securityContext.{key}={context.get(key)}; it is {value}"
    if "ALL" not in (context.get("capabilities") or {}).get("drop", []):
        yield f"{where}.securityContext.capabilities: drop: [ALL] is missing"
    if (context.get("capabilities") or {}).get("add"):
        yield f"{where}.securityContext.capabilities.add={context['capabilities']['add']} is not empty"


def resource_problems(where: str, resources: dict[str, Any]) -> Iterator[str]:
    """Yield missing, unreadable and contradictory requests and limits of a container."""
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for name in ("cpu", "memory"):
        for kind, amounts in (("requests", requests), ("limits", limits)):
            if name not in amounts:
                yield f"{where}.resources.{kind}.{name} is missing"
    for name in sorted({*requests, *limits}):
        values = [parse_quantity(amounts[name]) for amounts in (requests, limits) if name in amounts]
        if None in values:
            yield f"{where}.resources.{name}: {requests.get(name)}, {limits.get(name)}: no quantity"
        elif len(values) == 2 and values[0] > values[1]:  # type: ignore[operator]
            yield f"{where}.resources.{name}: the request {requests[name]} is over the limit {limits[name]}"
        elif "/" in name and requests.get(name) != limits.get(name):
            yield f"{where}.resources.{name}: the request {requests.get(name)} differs from the limit {limits.get(name)}"


def parse_quantity(value: Any) -> float | None:
    """Return a quantity of Kubernetes as a number, for example 1.5 for `1500m`; None if it is none."""
    match = _QUANTITY.fullmatch(str(value))
    return float(match[1]) * _UNITS[match[2]] if match and match[2] in _UNITS else None


def _security_problems(where: str, spec: dict[str, Any]) -> Iterator[str]:
    context = spec.get("securityContext") or {}
    if context.get("runAsNonRoot") is not True or context.get("runAsUser") == 0:
        yield f"{where}.securityContext: runAsNonRoot: true and a runAsUser other than 0 are missing"
    if (context.get("seccompProfile") or {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield f"{where}.securityContext.seccompProfile is not RuntimeDefault"
    is_head = where.endswith(".headGroupSpec")  # the autoscaler runs there
    if spec.get("automountServiceAccountToken") is not False and not is_head:
        yield f"{where}.automountServiceAccountToken is not false, and nothing in the pod talks to Kubernetes"
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield f"{where}.{key} is set"
    for volume in spec.get("volumes") or []:
        if "hostPath" in volume:
            yield f"{where}.volumes.{volume.get('name')} is a hostPath"


def _volume_problems(where: str, spec: dict[str, Any]) -> Iterator[str]:
    volumes = [volume.get("name") for volume in spec.get("volumes") or []]
    mounted: set[str] = set()
    for container in [*spec.get("containers", []), *spec.get("initContainers", [])]:
        mounts = container.get("volumeMounts") or []
        mounted |= {mount.get("name") for mount in mounts}
        paths = [mount.get("mountPath") for mount in mounts]
        for path in sorted({path for path in paths if paths.count(path) > 1}):
            yield f"{where}.{container.get('name')}.volumeMounts: {path} is mounted twice"
    for name in sorted(mounted - set(volumes)):
        yield f"{where}: the volume {name} is mounted, and there is none"
    for name in sorted(set(volumes) - mounted):
        yield f"{where}.volumes.{name} is never mounted"


def _ray_problems(where: str, container: dict[str, Any]) -> Iterator[str]:
    paths = [mount.get("mountPath") for mount in container.get("volumeMounts") or [] if not mount.get("readOnly")]
    for path in _WRITABLE:
        if path not in paths:
            yield f"{where}.volumeMounts: {path} is missing, and Ray writes there"
    for probe in ("livenessProbe", "readinessProbe"):
        if not container.get(probe):
            yield f"{where}.{probe} is missing"
    names = [port.get("name") for port in container.get("ports") or []]
    numbers = [port.get("containerPort") for port in container.get("ports") or []]
    for twice in sorted({str(item) for items in (names, numbers) for item in items if items.count(item) > 1}):
        yield f"{where}.ports: {twice} occurs twice"
