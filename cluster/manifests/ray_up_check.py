"""Check a config of `ray up`: Ray's own schema, the clouds' names, and what neither of them says."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from cluster.manifests.documents import parse_yaml
from cluster.manifests.machine_types import MACHINE_TYPES
from cluster.manifests.node_check import image_problems, node_problems
from cluster.manifests.ray_up import CLUSTER_FILE
from cluster.manifests.secret_check import find_secrets
from cluster.manifests.shell_check import shell_problem

_PROVIDER_KEYS = {
    "aws": {"type", "region", "availability_zone", "cache_stopped_nodes", "use_internal_ips", "security_group", "cloudwatch",
            "use_external_head_ip"},
    "gcp": {"type", "region", "availability_zone", "project_id", "use_internal_ips", "gcp_credentials"},
    "azure": {"type", "location", "resource_group", "availability_zone", "subscription_id", "subnet_mask", "unique_id",
              "tags", "use_internal_ips", "cache_stopped_nodes", "msi_identity_id", "msi_identity_principal_id"},
    "local": {"type", "head_ip", "worker_ips", "external_head_ip"},
}  # fmt: skip
# Keys of an instance in Google's API, https://cloud.google.com/compute/docs/reference/rest/v1/instances/insert
_GCP_KEYS = {"machineType", "disks", "metadata", "scheduling", "networkInterfaces", "guestAccelerators", "serviceAccounts",
             "tags", "labels", "shieldedInstanceConfig", "minCpuPlatform", "reservationAffinity", "sourceMachineImage"}  # fmt: skip
_GCP_SCHEDULING = {
    "onHostMaintenance",
    "provisioningModel",
    "instanceTerminationAction",
    "automaticRestart",
    "preemptible",
}


def check(files: Mapping[str, str]) -> list[str]:
    """Return what is wrong with the files of kind `ray-up`."""
    try:
        documents = list(parse_yaml(files.get(CLUSTER_FILE, "")))
    except yaml.YAMLError as error:
        return [f"{CLUSTER_FILE}: it is no YAML: {' '.join(str(error).split())[:200]}"]
    if len(documents) != 1 or not isinstance(documents[0], dict):
        return [f"{CLUSTER_FILE}: it must hold one document, which `ray up` reads"]
    from cluster.ray_internals import cluster_config_problem

    config = documents[0]
    refused = cluster_config_problem(config)
    problems = [refused] if refused else [*_rules(config)]
    return [f"{CLUSTER_FILE}: {problem}" for problem in problems] + find_secrets(files)


def _rules(config: dict[str, Any]) -> Iterator[str]:
    """Yield the broken rules of a config that Ray's schema accepts."""
    kind = config["provider"]["type"]
    if kind not in _PROVIDER_KEYS:
        yield f"provider.type={kind}: it is one of {', '.join(_PROVIDER_KEYS)}"
        return
    for key in sorted(set(config["provider"]) - _PROVIDER_KEYS[kind]):
        yield f"provider.{key}: {kind} has no such key"
    yield from _container_problems(config)
    yield from _command_problems(config)
    if kind == "local":
        hosts = [config["provider"].get("head_ip"), *config["provider"].get("worker_ips", [])]
        if len(set(hosts)) < len(hosts):
            yield "provider: a host is named twice in head_ip and worker_ips"
        return
    for name, node_type in config["available_node_types"].items():
        where = f"available_node_types.{name}"
        yield from _type_problems(where, node_type, kind, is_head=name == config["head_node_type"])
    most = sum(node_type.get("max_workers", 0) for node_type in config["available_node_types"].values())
    if config["max_workers"] < most:
        yield f"max_workers={config['max_workers']}: the types of machines add up to {most}, of which some would never start"


def _container_problems(config: dict[str, Any]) -> Iterator[str]:
    docker = config.get("docker") or {}
    yield from image_problems("docker.image", docker.get("image"))
    words = [word for option in docker.get("run_options", []) for word in shlex.split(option)]
    variables = dict(
        word.split("=", 1) for before, word in zip(["", *words], words, strict=False) if before == "-e" and "=" in word
    )
    yield from node_problems("docker.run_options", variables)
    if "--entrypoint" not in words:
        yield "docker.run_options: without --entrypoint, the image takes Ray's `bash` for a command of raymill's"
    if "--privileged" in words:
        yield "docker.run_options: --privileged gives the container the machine"
    token = variables.get("RAY_AUTH_TOKEN_PATH", "")
    if token and not any(token in command for command in config.get("initialization_commands", [])):
        yield f"initialization_commands: none writes the token to {token}, where RAY_AUTH_TOKEN_PATH says it is"
    if not config.get("file_mounts"):
        yield "file_mounts: the token's file is not copied to the machines"


def _command_problems(config: dict[str, Any]) -> Iterator[str]:
    for key in (key for key in config if key.endswith("_commands")):
        for command in config[key]:
            problem = shell_problem(command)
            if problem:
                yield f"{key}: bash does not read {command[:60]}...: {problem}"
    head = _start_command(config.get("head_start_ray_commands", []))
    worker = _start_command(config.get("worker_start_ray_commands", []))
    if "--head" not in head:
        yield "head_start_ray_commands: no `ray start --head`"
    if "--autoscaling-config" not in head:
        yield "head_start_ray_commands: without --autoscaling-config, the head starts no other machine"
    if re.search(r"--dashboard-host=(0\.0\.0\.0|::)", head):
        yield "head_start_ray_commands: --dashboard-host shows the dashboard to the network; `ray dashboard` forwards it"
    if "--head" in worker:
        yield "worker_start_ray_commands: --head would start a cluster of its own on every machine"
    port = re.search(r"--port=(\d+)", head)
    if port and f"--address=$RAY_HEAD_IP:{port[1]}" not in worker:
        yield f"worker_start_ray_commands: they do not join the head at $RAY_HEAD_IP:{port[1]}"


def _start_command(commands: list[str]) -> str:
    return next((command for command in commands if "ray start" in command), "")


def _type_problems(where: str, node_type: dict[str, Any], kind: str, *, is_head: bool) -> Iterator[str]:
    least, most = node_type.get("min_workers", 0), node_type.get("max_workers", 0)
    if not 0 <= least <= most:
        yield f"{where}: min_workers={least} and max_workers={most}: 0 <= min_workers <= max_workers"
    is_spot = _is_spot(node_type["node_config"], kind)
    if is_head and most:
        yield f"{where}.max_workers={most}: the head's type is for the head only"
    if is_head and is_spot:
        yield f"{where}: the head must not be a machine that the cloud takes away; with it, the cluster ends"
    if least and is_spot:
        yield f"{where}: min_workers={least}: a training that needs at least {least} machines cannot wait for spot machines"
    labels = node_type.get("labels", {})
    if labels.get("ray.io/market-type", "spot" if is_spot else "on-demand") != ("spot" if is_spot else "on-demand"):
        yield f"{where}.labels: ray.io/market-type={labels['ray.io/market-type']} is not what node_config says"
    yield from _size_problems(where, node_type, kind, is_head=is_head)
    yield from (f"{where}.node_config: {problem}" for problem in _MACHINE_CHECKS[kind](node_type["node_config"]))


def _size_problems(where: str, node_type: dict[str, Any], kind: str, *, is_head: bool) -> Iterator[str]:
    """Yield resources that the machine does not have: Ray would place processes that do not fit."""
    resources, name = node_type["resources"], _type_name(node_type["node_config"], kind)
    known = next((machine for machine in MACHINE_TYPES[kind] if machine.name == name), None)
    if resources.get("GPU") and not any(key.startswith("accelerator_type:") for key in resources):
        yield f"{where}.resources: GPUs without accelerator_type:NAME, which trainings ask for"
    if resources.get("GPU") and "--gpus all" not in node_type.get("docker", {}).get("worker_run_options", []):
        yield f"{where}.docker.worker_run_options: without `--gpus all`, the container sees no GPU"
    if known is None:
        return
    for resource, there in (("CPU", known.cpus), ("GPU", known.gpus)):
        if resources.get(resource, 0) > there:
            yield f"{where}.resources.{resource}={resources[resource]}: {name} has {there}"
    if known.gpus and not is_head and resources.get("GPU", 0) < known.gpus:
        yield f"{where}.resources.GPU={resources.get('GPU', 0)}: {name} has {known.gpus}, and all are paid for"
    if known.gpus and f"accelerator_type:{known.gpu_type}" not in resources and resources.get("GPU"):
        yield f"{where}.resources: the GPUs of {name} are {known.gpu_type}"


def _type_name(machine: dict[str, Any], kind: str) -> Any:
    if kind == "azure":
        return machine.get("azure_arm_parameters", {}).get("vmSize")
    return machine.get("InstanceType" if kind == "aws" else "machineType")


def _is_spot(machine: dict[str, Any], kind: str) -> bool:
    if kind == "aws":
        return bool(machine.get("InstanceMarketOptions", {}).get("MarketType") == "spot")
    if kind == "gcp":
        scheduling = machine.get("scheduling", {})
        return bool(scheduling.get("provisioningModel") == "SPOT" or scheduling.get("preemptible"))
    return bool(machine.get("azure_arm_parameters", {}).get("priority") == "Spot")


def _aws_problems(machine: dict[str, Any]) -> Iterator[str]:
    """Yield what Amazon's API refuses in a machine, if its client is installed."""
    for key in ("InstanceType", "ImageId"):
        if key not in machine:
            yield f"{key} is not set"
    request = _aws_request()
    if request is None:
        return
    from botocore.validate import ParamValidator

    report = ParamValidator().validate({"MinCount": 1, "MaxCount": 1, **machine}, request)
    yield from report.generate_report().splitlines()


@functools.cache
def _aws_request() -> Any:
    """Return what Amazon's API takes to start a machine, by its own client; None if that is not installed."""
    try:
        from botocore.loaders import Loader
        from botocore.model import ServiceModel
    except ImportError:
        return None
    service = ServiceModel(Loader().load_service_model("ec2", "service-2"))
    return service.operation_model("RunInstances").input_shape


def _gcp_problems(machine: dict[str, Any]) -> Iterator[str]:
    for key in sorted(set(machine) - _GCP_KEYS):
        yield f"{key}: Google's API has no such key of a machine"
    for key in sorted(set(machine.get("scheduling", {})) - _GCP_SCHEDULING):
        yield f"scheduling.{key}: Google's API has no such key"
    if not any(disk.get("boot") for disk in machine.get("disks", [])):
        yield "disks: none is the boot disk"


def _azure_problems(machine: dict[str, Any]) -> Iterator[str]:
    from cluster.ray_internals import azure_machine_keys

    for key in sorted(set(machine) - {"azure_arm_parameters"}):
        yield f"{key}: only azure_arm_parameters is read"
    for key in sorted(set(machine.get("azure_arm_parameters", {})) - azure_machine_keys()):
        yield f"azure_arm_parameters.{key}: Ray's template has no such parameter"


_MACHINE_CHECKS = {"aws": _aws_problems, "gcp": _gcp_problems, "azure": _azure_problems}
