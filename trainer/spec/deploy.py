"""The `deploy:` section of a spec: what `raymill manifest` must know about images, storage and machines.

A run itself does not read it. Each platform has a section of its own below it.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from trainer.spec.deploy_kubernetes import KubernetesSpec
from trainer.spec.deploy_machines import AirflowSpec, HostsSpec, RayUpSpec, SlurmSpec
from trainer.spec.section import SpecSection

#: An absolute path of a machine of the cluster.
MachinePath = Annotated[str, Field(pattern=r"^/[^\s:]*$")]


class StorageSpec(SpecSection):
    """The folder for prepared rows, runs and models that all machines of the cluster see."""

    path: MachinePath = "/storage"
    """Where the machines of the cluster see the shared folder. Manifests set the spec's `storage` to
    `PATH/raymill`."""


class DeploySpec(SpecSection):
    """What `raymill manifest` writes into manifests; a run itself ignores it."""

    image: str | None = None
    """Container image with raymill, by digest: `registry/name@sha256:...`. A tag may name another image tomorrow, so it
    is refused."""
    gpu_type: str | None = None
    """Type of the GPUs by Ray's name, for example `L4`, `A10G`, `A100-80G` or `H100`."""
    serve_gpu_type: str | None = None
    """Type of the GPUs of replicas. Default: `gpu_type`."""
    project: MachinePath = "/storage/project"
    """Folder of the cluster's machines, on the shared storage or in the image, with what the spec's own folder holds:
    data, base models and modules that the spec names by relative paths."""
    storage: StorageSpec = Field(default_factory=StorageSpec)
    """The folder for prepared rows, runs and models that all machines of the cluster see."""
    schedule: str = "0 2 * * *"
    """When the nightly pipeline starts, in the form of cron: minute, hour, day of the month, month, day of the week."""
    time_zone: str = "UTC"
    """Time zone of `schedule`, by its IANA name, for example `Europe/Vienna`."""
    kubernetes: KubernetesSpec = Field(default_factory=KubernetesSpec)
    """Ray on Kubernetes, by KubeRay's operator."""
    ray_up: RayUpSpec | None = None
    """`ray up`: machines of a cloud that Ray starts and stops itself, or hosts that it reaches by ssh."""
    hosts: HostsSpec = Field(default_factory=HostsSpec)
    """Docker Compose on hosts of your own."""
    slurm: SlurmSpec = Field(default_factory=SlurmSpec)
    """A Slurm cluster."""
    airflow: AirflowSpec = Field(default_factory=AirflowSpec)
    """Airflow 3, which starts the nightly pipeline on a Ray cluster."""
