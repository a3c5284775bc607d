"""Kind `ray-up`: machines of a cloud that Ray starts and stops itself, or hosts that it reaches by ssh.

`ray up cluster.yaml` starts the head, which starts and stops the other machines.
"""

from __future__ import annotations

import shlex
from typing import Any

from cluster.errors import SpecError
from cluster.manifests.documents import Document, Rendered
from cluster.manifests.environment import node_environment
from cluster.manifests.inputs import ManifestInputs
from cluster.manifests.machine_types import MachineType, choose_type, named_type
from cluster.manifests.process_needs import Bounds, ProcessNeed, list_needs, machine_bounds, most_memory
from cluster.manifests.ray_up_machines import AUTOSCALER_PACKAGES, machine_config, provider_config
from trainer.spec.deploy_machines import RayUpSpec

CLUSTER_FILE, SPEC_FILE = "cluster.yaml", "run.yaml"
HEAD = "head"
# The token on a machine: where Ray copies it to, and where the container's user may read it.
_SYNCED_TOKEN, _TOKEN_FOLDER = "/tmp/raymill-token", "/etc/raymill"
_HEAD_CPUS = 4
_AUTOSCALER_FOLDER = "$HOME/autoscaler"


def render(inputs: ManifestInputs) -> Rendered:
    """Return the config of `ray up` and the spec that runs on its machines."""
    config = inputs.deploy.ray_up
    if config is None:
        raise SpecError(
            "deploy.ray_up is not set, and `ray up` needs to know where the machines come from",
            "set it, for example `deploy: {ray_up: {provider: aws, region: us-east-1, machine_image: ami-...}}`",
        )
    return {CLUSTER_FILE: [_cluster(inputs, config)], SPEC_FILE: inputs.spec_text}


def _cluster(inputs: ManifestInputs, config: RayUpSpec) -> Document:
    """Return the document that `ray up` reads."""
    is_local = config.provider == "local"
    node_types = {} if is_local else _node_types(inputs, config)
    most = len(config.worker_hosts) if is_local else sum(kind["max_workers"] for kind in node_types.values())
    auth = {"ssh_user": config.ssh_user, "ssh_private_key": config.ssh_private_key}
    return {
        "cluster_name": inputs.name,
        "max_workers": most,
        **({} if is_local else {"idle_timeout_minutes": config.idle_minutes}),
        "provider": provider_config(config),
        "auth": {key: value for key, value in auth.items() if value is not None},
        "docker": {
            "image": inputs.image,
            "container_name": "raymill",
            "pull_before_run": True,
            "run_options": _run_options(inputs),
            **({"worker_run_options": ["--gpus all"]} if is_local and _uses_gpus(inputs) else {}),
        },
        **({} if is_local else {"available_node_types": node_types, "head_node_type": HEAD}),
        "file_mounts": {_SYNCED_TOKEN: config.token_file},
        "cluster_synced_files": [],
        "initialization_commands": _initialization(inputs, config),
        "setup_commands": [],
        "head_setup_commands": _head_setup(config),
        "worker_setup_commands": [],
        "head_start_ray_commands": _start_commands(
            "--head --port=6379 --object-manager-port=8076 --dashboard-host=127.0.0.1 "
            "--autoscaling-config=~/ray_bootstrap_config.yaml",
            uses_cloud=not is_local,
        ),
        "worker_start_ray_commands": _start_commands("--address=$RAY_HEAD_IP:6379 --object-manager-port=8076"),
    }


def _uses_gpus(inputs: ManifestInputs) -> bool:
    return any(demand.gpus_each for demand in inputs.demands)


def _node_types(inputs: ManifestInputs, config: RayUpSpec) -> dict[str, Any]:
    """Return the machines of a cloud: the head, and workers by the accelerator that they have."""
    head = (
        named_type(config.head_machine)
        if config.head_machine
        else choose_type(config.provider, _HEAD_CPUS, 0, "", "deploy.ray_up.head_machine")
    )
    # No CPU of the head is offered to Ray: it runs the driver, Ray's own services and the autoscaler.
    types = {HEAD: _node_type(config, head, Bounds(0, 0), cpus=0, is_spot=False)}
    with_gpus, without = list_needs(inputs, with_gpus=True), list_needs(inputs, with_gpus=False)
    if with_gpus:
        gpu_type = inputs.deploy.gpu_type or ""
        cpus, gpus = max(need.cpus_each for need in with_gpus), max(need.gpus_each for need in with_gpus)
        machine = (
            named_type(config.gpu_machine, gpu_type)
            if config.gpu_machine
            else choose_type(config.provider, cpus, gpus, gpu_type, "deploy.ray_up.gpu_machine", most_memory(with_gpus))
        )
        types |= _worker_types(config, f"gpu-{machine.gpu_type.lower()}".rstrip("-"), machine, with_gpus)
    cpus = max(need.cpus_each for need in without)
    machine = (
        named_type(config.cpu_machine)
        if config.cpu_machine
        else choose_type(config.provider, cpus, 0, "", "deploy.ray_up.cpu_machine", most_memory(without))
    )
    if with_gpus:
        # The machines with GPUs have cores for what needs no GPU, too.
        without = [need._replace(minimum=0) for need in without]
    return types | _worker_types(config, "cpu", machine, without, further=config.data_machines)


def _worker_types(
    config: RayUpSpec, name: str, machine: MachineType, needs: list[ProcessNeed], further: int = 0
) -> dict[str, Any]:
    """Return one type of workers, and a second one for those that an elastic training may lose again.

    `further` is a number of machines beyond the needs.
    """
    every = machine_bounds(needs, machine)
    if not config.spot:
        return {name: _node_type(config, machine, every.with_more(further), cpus=machine.cpus, is_spot=False)}
    steady = machine_bounds([need.without_growth() for need in needs], machine)
    extra = Bounds(0, every.maximum - steady.maximum)
    types = {}
    if steady.maximum + further:
        types[name] = _node_type(config, machine, steady.with_more(further), cpus=machine.cpus, is_spot=False)
    if extra.maximum:
        types[f"{name}-spot"] = _node_type(config, machine, extra, cpus=machine.cpus, is_spot=True)
    return types


def _node_type(config: RayUpSpec, machine: MachineType, bounds: Bounds, *, cpus: int, is_spot: bool) -> dict[str, Any]:
    resources = {"CPU": cpus}
    labels = {"ray.io/market-type": "spot" if is_spot else "on-demand"}
    if machine.gpus:
        resources |= {"GPU": machine.gpus}
        if machine.gpu_type:
            resources[f"accelerator_type:{machine.gpu_type}"] = 1
            labels["ray.io/accelerator-type"] = machine.gpu_type
    return {
        "min_workers": bounds.minimum,
        "max_workers": bounds.maximum,
        "resources": resources,
        "labels": labels,
        "node_config": machine_config(config, machine, is_spot=is_spot),
        **({"docker": {"worker_run_options": ["--gpus all"]}} if machine.gpus else {}),
    }


def _run_options(inputs: ManifestInputs) -> list[str]:
    """Return the options of `docker run` on every machine."""
    storage = inputs.deploy.storage.path
    variables = node_environment(inputs, f"{_TOKEN_FOLDER}/token")
    return [
        "--entrypoint tini",  # Ray runs `bash` in the container, and the image's own entry point adds `raymill`
        "--ulimit nofile=65536:65536",
        "--cap-drop ALL",
        "--security-opt no-new-privileges",
        f"-v {storage}:{storage}",
        f"-v {_TOKEN_FOLDER}:{_TOKEN_FOLDER}:ro",
        *(f"-e {name}={shlex.quote(value)}" for name, value in variables.items()),
    ]


def _initialization(inputs: ManifestInputs, config: RayUpSpec) -> list[str]:
    """Return the commands for each machine, before its container starts: the shared folder, and the token."""
    storage, image = shlex.quote(inputs.deploy.storage.path), shlex.quote(inputs.image)
    mount = f"sudo mkdir -p {storage}"
    commands = [f"test -d {storage}"]
    if config.nfs:
        client = "command -v mount.nfs4 || (sudo apt-get update -qq && sudo apt-get install -y -qq nfs-common)"
        options = "nfsvers=4.1,rsize=1048576,wsize=1048576,hard,timeo=600,retrans=2,noresvport"
        export = shlex.quote(config.nfs)
        commands = [
            client,
            f"{mount} && (mountpoint -q {storage} || sudo mount -t nfs4 -o {options} {export} {storage})",
        ]
    # Only the container's user may read the token: from the container of the head, it is copied on to the other machines.
    user = f"docker run --rm --entrypoint id {image} -u"
    synced = shlex.quote(f"{_synced_folder(inputs)}{_SYNCED_TOKEN}")
    install = f"sudo install -D -m 0400 -o $user {synced} {_TOKEN_FOLDER}/token"
    return [*commands, f"user=$({user}) && {install} && sudo chown $user {synced}"]


def _synced_folder(inputs: ManifestInputs) -> str:
    """Return the folder on a machine below which Ray puts the files of `file_mounts` for the container."""
    return f"/tmp/ray_tmp_mount/{inputs.name}"


def _head_setup(config: RayUpSpec) -> list[str]:
    """Return the commands in the head's container: install what the autoscaler needs to call the cloud."""
    packages = AUTOSCALER_PACKAGES.get(config.provider)
    if packages is None:
        return []
    module, names = packages
    packages_text = " ".join(shlex.quote(name) for name in names)
    return [
        f"python -c 'import {module}' || python -m pip install --quiet --target {_AUTOSCALER_FOLDER} {packages_text}"
    ]


def _start_commands(options: str, *, uses_cloud: bool = False) -> list[str]:
    path = f"export PYTHONPATH={_AUTOSCALER_FOLDER}; " if uses_cloud else ""
    return ["ray stop", f"{path}ulimit -n 65536; ray start {options}"]
