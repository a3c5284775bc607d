"""The rules of KubeRay's operator, which no schema has: an object that breaks one is accepted and never starts.

Restated from `ray-operator/controllers/ray/utils/validation.go` of KubeRay 1.7.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any
from zoneinfo import ZoneInfo

from cluster.manifests.checks.deletion_rules import deletion_problems

#: Longest name of each kind: the operator appends parts of its own.
LONGEST_NAMES = {"RayCluster": 53, "RayService": 47, "RayJob": 47, "RayCronJob": 36}
_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_START_RESOURCES = ("num-cpus", "num-gpus", "memory", "resources")
_UPGRADES = ("None", "NewCluster", "NewClusterWithIncrementalUpgrade")
# Variables of the head that `gcsFaultToleranceOptions` sets itself.
_STATE_VARIABLES = ("RAY_REDIS_ADDRESS", "REDIS_PASSWORD", "REDIS_USERNAME", "RAY_gcs_storage", "RAY_gcs_storage_path")
_TOKEN_SINCE = (2, 52)
_AUTOSCALER_V2 = "RAY_enable_autoscaler_v2"


def check_operator_rules(document: dict[str, Any]) -> list[str]:
    """Return the operator's rules that a valid object of KubeRay breaks, one sentence each."""
    kind, spec = document["kind"], document["spec"]
    return [*_name_problems(kind, document["metadata"]), *_KINDS[kind](spec)]


def _name_problems(kind: str, metadata: dict[str, Any]) -> Iterator[str]:
    name = metadata.get("name", "")
    if not name and metadata.get("generateName"):
        return
    if not _DNS_1035.fullmatch(name):
        yield f"metadata.name={name}: it is no DNS-1035 label (lower-case letters, digits and -, a letter first)"
    if len(name) > LONGEST_NAMES[kind]:
        yield f"metadata.name={name}: {len(name)} characters, and the operator takes {LONGEST_NAMES[kind]} of a {kind}"


def _cluster_problems(spec: dict[str, Any]) -> Iterator[str]:
    head, workers = spec["headGroupSpec"], spec.get("workerGroupSpecs") or []
    scales = bool(spec.get("enableInTreeAutoscaling"))
    yield from _group_problems("headGroupSpec", head)
    for group in workers:
        where = f"workerGroupSpecs.{group.get('groupName')}"
        yield from _group_problems(where, group)
        yield from _bounds_problems(where, group, scales=scales)
    yield from _autoscaler_problems(spec, head, workers)
    yield from _state_problems(spec, head)
    yield from _token_problems(spec)
    names = [group.get("groupName") for group in workers]
    yield from (f"workerGroupSpecs: {name} occurs twice" for name in {name for name in names if names.count(name) > 1})


def _group_problems(where: str, group: dict[str, Any]) -> Iterator[str]:
    parameters = group.get("rayStartParams") or {}
    if not group["template"]["spec"].get("containers"):
        yield f"{where}: it has no container"
    used = [name for name in _START_RESOURCES if parameters.get(name)]
    if used and group.get("resources"):
        yield f"{where}: resources are set in rayStartParams ({', '.join(used)}) and in `resources`; use one of the two"
    if "labels" in parameters:
        yield f"{where}.rayStartParams.labels: the operator refuses it; use `labels` of the group"


def _bounds_problems(where: str, group: dict[str, Any], *, scales: bool) -> Iterator[str]:
    least, most = group.get("minReplicas"), group.get("maxReplicas")
    if not scales and (least is None or most is None):
        yield f"{where}: without autoscaling it needs minReplicas and maxReplicas"
    for name in ("minReplicas", "maxReplicas", "replicas"):
        if (group.get(name) or 0) < 0:
            yield f"{where}.{name}={group[name]} is negative"
    if least is not None and most is not None and least > most:
        yield f"{where}: minReplicas={least} is over maxReplicas={most}"
    elif most is not None and not (least or 0) <= group.get("replicas", least or 0) <= most:
        yield f"{where}: replicas={group['replicas']} is not from {least or 0} to {most}"


def _autoscaler_problems(spec: dict[str, Any], head: dict[str, Any], workers: list[dict[str, Any]]) -> Iterator[str]:
    options = spec.get("autoscalerOptions") or {}
    variable = _variables(head).get(_AUTOSCALER_V2)
    if not spec.get("enableInTreeAutoscaling"):
        if options:
            yield "autoscalerOptions have no effect without enableInTreeAutoscaling: true"
        if variable in ("1", "true"):
            yield f"headGroupSpec: {_AUTOSCALER_V2}={variable} needs enableInTreeAutoscaling: true"
        for group in workers:
            if group.get("idleTimeoutSeconds") is not None or group.get("priority"):
                yield f"workerGroupSpecs.{group['groupName']}: idleTimeoutSeconds and priority need autoscaler v2"
        return
    if options.get("version") and variable is not None:
        yield f"autoscalerOptions.version and the head's {_AUTOSCALER_V2} are both set; use the former"
    if options.get("version") == "v2":
        for where, group in [("headGroupSpec", head), *[(f"workerGroupSpecs.{g['groupName']}", g) for g in workers]]:
            policy = group["template"]["spec"].get("restartPolicy")
            if policy not in (None, "Never"):
                yield f"{where}: restartPolicy={policy}; with autoscaler v2 it is Never or not set"
    if (options.get("idleTimeoutSeconds") or 0) < 0:
        yield f"autoscalerOptions.idleTimeoutSeconds={options['idleTimeoutSeconds']} is negative"


def _state_problems(spec: dict[str, Any], head: dict[str, Any]) -> Iterator[str]:
    options = spec.get("gcsFaultToleranceOptions")
    variables = [name for name in _STATE_VARIABLES if name in _variables(head)]
    parameters = head.get("rayStartParams") or {}
    if variables:
        yield f"headGroupSpec: {', '.join(variables)} as variables are refused; use gcsFaultToleranceOptions"
    for name in ("redis-password", "redis-username"):
        if parameters.get(name):
            yield f"headGroupSpec.rayStartParams.{name} is refused; use gcsFaultToleranceOptions"
    if options is None:
        return
    if options.get("backend", "redis") == "redis":
        if not options.get("redisAddress"):
            yield "gcsFaultToleranceOptions: the backend redis needs redisAddress"
        if options.get("storage"):
            yield "gcsFaultToleranceOptions.storage is for the backend rocksdb"
        return
    foreign = [key for key in options if key.startswith("redis") or key == "externalStorageNamespace"]
    if foreign:
        yield f"gcsFaultToleranceOptions: {', '.join(foreign)} is for the backend redis"
    storage = options.get("storage") or {}
    if storage.get("claimName") and len(storage) > 1:
        yield "gcsFaultToleranceOptions.storage: claimName excludes size, storageClassName and accessModes"


def _token_problems(spec: dict[str, Any]) -> Iterator[str]:
    options = spec.get("authOptions") or {}
    if options.get("mode") != "token":
        if options.get("enableK8sTokenAuth"):
            yield "authOptions.enableK8sTokenAuth needs mode: token"
        return
    version = re.match(r"(\d+)\.(\d+)", str(spec.get("rayVersion", "")))
    if not version or (int(version[1]), int(version[2])) < _TOKEN_SINCE:
        yield f"rayVersion={spec.get('rayVersion')}: authOptions.mode: token needs 2.52.0 or later"
    if options.get("enableK8sTokenAuth") and options.get("secretName"):
        yield "authOptions: enableK8sTokenAuth excludes secretName"


def _job_problems(spec: dict[str, Any]) -> Iterator[str]:
    cluster = spec.get("rayClusterSpec")
    selector = spec.get("clusterSelector") or {}
    if cluster is None and not selector:
        yield "rayClusterSpec or clusterSelector must be set"
    if cluster is not None:
        yield from _cluster_problems(cluster)
    yield from deletion_problems(spec, scales=bool((cluster or {}).get("enableInTreeAutoscaling")))
    if spec.get("suspend") and not spec.get("shutdownAfterJobFinishes"):
        yield "suspend needs shutdownAfterJobFinishes: true"
    for name in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if spec.get(name) is not None and spec[name] <= 0:
            yield f"{name}={spec[name]} is not positive"
    if (spec.get("backoffLimit") or 0) < 0:
        yield f"backoffLimit={spec['backoffLimit']} is negative"
    mode = spec.get("submissionMode", "K8sJobMode")
    if mode not in ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"):
        yield f"submissionMode={mode} is none of K8sJobMode, HTTPMode, InteractiveMode and SidecarMode"
    if mode == "SidecarMode" and (spec.get("submitterPodTemplate") or spec.get("submitterConfig")):
        yield "submissionMode: SidecarMode excludes submitterPodTemplate and submitterConfig"
    submitter = ((spec.get("submitterPodTemplate") or {}).get("spec", {}).get("containers") or [{}])[0]
    if mode != "InteractiveMode" and not submitter.get("command"):
        yield from _entrypoint_problems(spec.get("entrypoint", ""))


def _entrypoint_problems(entrypoint: str) -> Iterator[str]:
    """Yield what is wrong with a command that the operator writes into a line of the submitting pod's shell."""
    try:
        words = shlex.shlex(entrypoint, posix=False, punctuation_chars=True)
        words.whitespace_split = True
        operators = sorted({word for word in words if word and set(word) <= set("();<>|&")})
    except ValueError as error:
        yield f"entrypoint: {error}"
        return
    if not entrypoint.strip():
        yield "entrypoint is empty"
    if operators:
        yield f"entrypoint: what follows {operators[0]} would run in the submitting pod; write bash -c '...'"


def _service_problems(spec: dict[str, Any]) -> Iterator[str]:
    cluster = spec["rayClusterConfig"]
    yield from _cluster_problems(cluster)
    if (cluster["headGroupSpec"].get("headService") or {}).get("metadata", {}).get("name"):
        yield "rayClusterConfig.headGroupSpec.headService.metadata.name must not be set"
    upgrade = spec.get("upgradeStrategy") or {}
    if upgrade.get("type") not in (None, *_UPGRADES):
        yield f"upgradeStrategy.type={upgrade['type']} is none of {', '.join(_UPGRADES)}"
    if upgrade.get("type") == "NewClusterWithIncrementalUpgrade":
        yield from _upgrade_problems(cluster, upgrade.get("clusterUpgradeOptions") or {})
    ports = cluster["headGroupSpec"]["template"]["spec"]["containers"][0].get("ports", [])
    # Without any port the operator adds its own, `serve` among them.
    if ports and not spec.get("serveService") and not any(port.get("name", "").startswith("serve") for port in ports):
        yield "rayClusterConfig.headGroupSpec: without a port called `serve` the endpoint gets no service"


def _upgrade_problems(cluster: dict[str, Any], options: dict[str, Any]) -> Iterator[str]:
    where = "upgradeStrategy: NewClusterWithIncrementalUpgrade"
    if not cluster.get("enableInTreeAutoscaling"):
        yield f"{where} needs enableInTreeAutoscaling: true"
    if not options.get("gatewayClassName"):
        yield f"{where} needs gatewayClassName"
    step, surge = options.get("stepSizePercent"), options.get("maxSurgePercent", 100)
    if step is None or not 0 <= step <= surge <= 100:
        yield f"{where}: stepSizePercent={step} is not from 0 to maxSurgePercent={surge}, which is at most 100"
    if (options.get("intervalSeconds") or 0) <= 0:
        yield f"{where} needs intervalSeconds above 0"


def _cron_problems(spec: dict[str, Any]) -> Iterator[str]:
    yield from _schedule_problems(spec.get("schedule", ""))
    zone = spec.get("timeZone")
    if zone is not None:
        try:
            ZoneInfo(zone)
        except (KeyError, ValueError, OSError):
            yield f"timeZone={zone!r} is no time zone of the IANA database"
    yield from (f"jobTemplate: {problem}" for problem in _job_problems(spec["jobTemplate"]))


_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 6))
_SHORTCUTS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")


def _schedule_problems(schedule: str) -> Iterator[str]:
    if "TZ" in schedule:
        yield f"schedule={schedule!r}: a zone belongs into timeZone"
        return
    if schedule in _SHORTCUTS or re.fullmatch(r"@every (\d+[hms])+", schedule):
        return
    parts = schedule.split()
    if len(parts) != len(_FIELDS):
        yield f"schedule={schedule!r} has {len(parts)} fields; it is `minute hour day month weekday`"
        return
    for part, (name, low, high) in zip(parts, _FIELDS, strict=True):
        for item in part.split(","):
            match = re.fullmatch(r"(?:\*|\?|(\w+)(?:-(\w+))?)(?:/(\d+))?", item)
            numbers = [int(number) for number in match.groups()[:2] if number and number.isdigit()] if match else []
            if not match or any(not low <= number <= high for number in numbers) or match[3] == "0":
                yield f"schedule={schedule!r}: {item} is no {name}, which is from {low} to {high}"


def _variables(group: dict[str, Any]) -> dict[str, str | None]:
    containers = group["template"]["spec"].get("containers") or [{}]
    return {item["name"]: item.get("value") for item in containers[0].get("env") or []}


_KINDS = {
    "RayCluster": _cluster_problems,
    "RayJob": _job_problems,
    "RayService": _service_problems,
    "RayCronJob": _cron_problems,
}
