"""Machine types of the clouds, and the smallest one on which a process fits.

Sizes are those that AWS, Google Cloud and Azure publish. A type that is missing here can be named in the spec.
"""

from __future__ import annotations

from typing import NamedTuple

from cluster.errors import SpecError, suggest
from cluster.manifests.node_memory import needed_gib
from cluster.plan import Node, capacity
from trainer.spec.deploy_machines import MachineSpec


class MachineType(NamedTuple):
    """One machine type of a cloud."""

    name: str
    """The cloud's name of it."""
    cpus: int
    memory_gb: int
    """0: not known."""
    gpus: int = 0
    gpu_type: str = ""
    """Ray's name of the GPUs, for example `A100-80G`; empty: none, or not known."""

    def room(self, cpus_each: float, gpus_each: float, memory_each: int = 0) -> int:
        """Return how many processes of this size fit on one machine. `memory_each`: bytes; 0: not known."""
        room = capacity([Node(float(self.cpus), float(self.gpus))], cpus_each, gpus_each)
        while self.memory_gb and room and needed_gib(memory_each, room) > self.memory_gb:
            room -= 1
        return room


#: Provider -> types, the smaller ones of a kind of GPU first.
MACHINE_TYPES: dict[str, list[MachineType]] = {
    "aws": [
        MachineType("m6i.xlarge", 4, 16),
        MachineType("m6i.2xlarge", 8, 32),
        MachineType("m6i.4xlarge", 16, 64),
        MachineType("m6i.8xlarge", 32, 128),
        MachineType("m6i.16xlarge", 64, 256),
        MachineType("g4dn.xlarge", 4, 16, 1, "T4"),
        MachineType("g4dn.2xlarge", 8, 32, 1, "T4"),
        MachineType("g4dn.4xlarge", 16, 64, 1, "T4"),
        MachineType("g4dn.12xlarge", 48, 192, 4, "T4"),
        MachineType("g5.xlarge", 4, 16, 1, "A10G"),
        MachineType("g5.2xlarge", 8, 32, 1, "A10G"),
        MachineType("g5.4xlarge", 16, 64, 1, "A10G"),
        MachineType("g5.12xlarge", 48, 192, 4, "A10G"),
        MachineType("g5.48xlarge", 192, 768, 8, "A10G"),
        MachineType("g6.xlarge", 4, 16, 1, "L4"),
        MachineType("g6.2xlarge", 8, 32, 1, "L4"),
        MachineType("g6.4xlarge", 16, 64, 1, "L4"),
        MachineType("g6.12xlarge", 48, 192, 4, "L4"),
        MachineType("g6.48xlarge", 192, 768, 8, "L4"),
        MachineType("g6e.xlarge", 4, 32, 1, "L40S"),
        MachineType("g6e.2xlarge", 8, 64, 1, "L40S"),
        MachineType("g6e.4xlarge", 16, 128, 1, "L40S"),
        MachineType("g6e.12xlarge", 48, 384, 4, "L40S"),
        MachineType("g6e.48xlarge", 192, 1536, 8, "L40S"),
        MachineType("p4d.24xlarge", 96, 1152, 8, "A100-40G"),
        MachineType("p4de.24xlarge", 96, 1152, 8, "A100-80G"),
        MachineType("p5.48xlarge", 192, 2048, 8, "H100"),
        MachineType("p5en.48xlarge", 192, 2048, 8, "H200"),
    ],
    "gcp": [
        MachineType("n2-standard-4", 4, 16),
        MachineType("n2-standard-8", 8, 32),
        MachineType("n2-standard-16", 16, 64),
        MachineType("n2-standard-32", 32, 128),
        MachineType("n2-standard-64", 64, 256),
        MachineType("g2-standard-4", 4, 16, 1, "L4"),
        MachineType("g2-standard-8", 8, 32, 1, "L4"),
        MachineType("g2-standard-16", 16, 64, 1, "L4"),
        MachineType("g2-standard-24", 24, 96, 2, "L4"),
        MachineType("g2-standard-48", 48, 192, 4, "L4"),
        MachineType("g2-standard-96", 96, 384, 8, "L4"),
        MachineType("a2-highgpu-1g", 12, 85, 1, "A100-40G"),
        MachineType("a2-highgpu-2g", 24, 170, 2, "A100-40G"),
        MachineType("a2-highgpu-4g", 48, 340, 4, "A100-40G"),
        MachineType("a2-highgpu-8g", 96, 680, 8, "A100-40G"),
        MachineType("a2-ultragpu-1g", 12, 170, 1, "A100-80G"),
        MachineType("a2-ultragpu-2g", 24, 340, 2, "A100-80G"),
        MachineType("a2-ultragpu-4g", 48, 680, 4, "A100-80G"),
        MachineType("a2-ultragpu-8g", 96, 1360, 8, "A100-80G"),
        MachineType("a3-highgpu-8g", 208, 1872, 8, "H100"),
        MachineType("a3-ultragpu-8g", 224, 2952, 8, "H200"),
    ],
    "azure": [
        MachineType("Standard_D4s_v5", 4, 16),
        MachineType("Standard_D8s_v5", 8, 32),
        MachineType("Standard_D16s_v5", 16, 64),
        MachineType("Standard_D32s_v5", 32, 128),
        MachineType("Standard_D64s_v5", 64, 256),
        MachineType("Standard_NC4as_T4_v3", 4, 28, 1, "T4"),
        MachineType("Standard_NC8as_T4_v3", 8, 56, 1, "T4"),
        MachineType("Standard_NC16as_T4_v3", 16, 110, 1, "T4"),
        MachineType("Standard_NC64as_T4_v3", 64, 440, 4, "T4"),
        MachineType("Standard_NC24ads_A100_v4", 24, 220, 1, "A100-80G"),
        MachineType("Standard_NC48ads_A100_v4", 48, 440, 2, "A100-80G"),
        MachineType("Standard_NC96ads_A100_v4", 96, 880, 4, "A100-80G"),
        MachineType("Standard_NC40ads_H100_v5", 40, 320, 1, "H100"),
        MachineType("Standard_NC80adis_H100_v5", 80, 640, 2, "H100"),
        MachineType("Standard_ND96isr_H100_v5", 96, 1900, 8, "H100"),
        MachineType("Standard_ND96isr_H200_v5", 96, 1900, 8, "H200"),
    ],
}


def named_type(machine: MachineSpec, gpu_type: str = "") -> MachineType:
    """Return the type that a spec names itself."""
    return MachineType(machine.type, machine.cpus, 0, machine.gpus, gpu_type if machine.gpus else "")


def choose_type(
    provider: str, cpus_each: float, gpus_each: float, gpu_type: str, key: str, memory_each: int = 0
) -> MachineType:
    """Return the smallest type of a provider on which a process of this size fits. GPUs must be of `gpu_type`.

    Raises `SpecError`, which names the spec's `key` for a type of the user's own, if there is none.
    """
    known = MACHINE_TYPES[provider]
    gpu_types = sorted({machine.gpu_type for machine in known if machine.gpus})
    if gpus_each and gpu_type not in gpu_types:
        raise SpecError(
            f"no machine type of {provider} with the GPU {gpu_type or '(deploy.gpu_type is not set)'} is known here",
            f"set `deploy.gpu_type` to one of {', '.join(gpu_types)}, or `{key}: {{type: ..., cpus: ..., gpus: ...}}`. "
            + (suggest(gpu_type, gpu_types) if gpu_type else ""),
        )
    needed_type = gpu_type if gpus_each else ""
    for machine in known:
        if machine.gpu_type == needed_type and machine.room(cpus_each, gpus_each, memory_each):
            return machine
    size = f"{cpus_each:g} CPU" + (f", {gpus_each:g} {gpu_type}" if gpus_each else "")
    size += f" and {needed_gib(memory_each, 1)} GiB of memory" if memory_each else ""
    raise SpecError(
        f"no machine type of {provider} that is known here has room for a process with {size}",
        f"lower its size, or name a machine: `{key}: {{type: ..., cpus: ..., gpus: ...}}`",
    )
