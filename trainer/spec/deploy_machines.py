"""The sections of `deploy:` for what is not Kubernetes: `ray_up`, `hosts`, `slurm` and `airflow`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trainer.spec.section import NonNegative, Positive, SpecSection

#: What `ray up` can rent machines from, and machines that are there already.
Provider = Literal["aws", "gcp", "azure", "local"]
#: An absolute path of a machine.
MachinePath = Annotated[str, Field(pattern=r"^/[^\s:]*$")]
#: `SERVER:/folder` of an NFS server.
NfsExport = Annotated[str, Field(pattern=r"^[A-Za-z0-9.\-]+:/\S*$")]
#: A name or an address of a machine, as ssh takes it.
Host = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.:\-]*$")]


class MachineSpec(SpecSection):
    """A machine type of a cloud that raymill's own list does not have, or another one than it would choose."""

    type: str
    """The cloud's name of it, for example `p5.48xlarge`."""
    cpus: Positive
    """Its CPU cores."""
    gpus: NonNegative = 0
    """Its GPUs."""


class RayUpSpec(SpecSection):
    """`ray up`: machines of a cloud that Ray starts and stops itself, or hosts that it reaches by ssh."""

    provider: Provider = "aws"
    """The cloud, or `local` for hosts of your own."""
    region: str | None = None
    """Region (Azure: location). A cloud needs it."""
    zone: str | None = None
    """Zones, separated by commas. GCP needs one."""
    project: str | None = None
    """GCP: the project's ID. Azure: the resource group."""
    machine_image: str | None = None
    """The disk image that machines start from, with Docker, and with NVIDIA's drivers for GPUs. AWS: an AMI; GCP:
    `projects/...`; Azure: `publisher:offer:sku:version`."""
    head_machine: MachineSpec | None = None
    """Machine of the head, on which no training runs. Default: the smallest with 4 cores and no GPU."""
    cpu_machine: MachineSpec | None = None
    """Machine of workers without GPUs. Default: the smallest of raymill's list on which a worker fits."""
    gpu_machine: MachineSpec | None = None
    """Machine of workers with GPUs. Default: the smallest of raymill's list with GPUs of `deploy.gpu_type` on which a
    worker fits."""
    data_machines: NonNegative = 0
    """Number of machines without GPUs that may join while rows are prepared, besides those that a training needs."""
    spot: bool = True
    """An elastic training (`cluster.workers: [1, 4]`) runs the workers beyond its minimum on machines that the cloud may
    take away."""
    disk_gb: Positive = 200
    """Size of each machine's disk: the image, and what Ray's object store spills."""
    idle_minutes: Positive = 10
    """Minutes after which a machine beyond the minimum is given back if nothing runs on it."""
    ssh_user: str = "ubuntu"
    """User on the machines. It may run `docker` and `sudo`."""
    ssh_private_key: str | None = None
    """Private key on the machine that runs `ray up`. Default: Ray makes one; hosts of your own need it."""
    nfs: NfsExport | None = None
    """NFS export that every machine mounts at `deploy.storage.path`, for example Amazon EFS, Filestore or Azure Files.
    Default: the machines have the folder already."""
    token_file: str = "~/.ray/auth_token"
    """File on the machine that runs `ray up` with Ray's token; `ray get-auth-token --generate` writes it. It is copied to
    every machine and never written into a manifest."""
    head_host: Host | None = None
    """`local`: the host on which the head runs."""
    worker_hosts: tuple[Host, ...] = ()
    """`local`: the other hosts."""

    @model_validator(mode="after")
    def _check_provider(self) -> RayUpSpec:
        if self.provider == "local":
            if self.head_host is None or not self.worker_hosts:
                raise ValueError("provider: local needs `head_host` and `worker_hosts`, the addresses of your hosts")
            if self.head_host in self.worker_hosts:
                raise ValueError(f"head_host={self.head_host} is one of worker_hosts; a host runs one of the two")
            if len(set(self.worker_hosts)) < len(self.worker_hosts):
                raise ValueError("worker_hosts names a host twice")
            if self.ssh_private_key is None:
                raise ValueError("provider: local needs `ssh_private_key`, with which Ray reaches your hosts")
            return self
        if self.head_host or self.worker_hosts:
            raise ValueError(f"head_host and worker_hosts are for `provider: local`, not for {self.provider}")
        for key in ("region", *{"gcp": ("zone", "project"), "azure": ("project",)}.get(self.provider, ())):
            if getattr(self, key) is None:
                raise ValueError(f"provider: {self.provider} needs `{key}`")
        return self


class HostsSpec(SpecSection):
    """Docker Compose on hosts of your own."""

    memory_gb: Positive | None = None
    """Memory that a container may use. Default: all of the host's."""
    shm_gb: Positive = 8
    """Shared memory of a container, which holds Ray's object store."""
    gpus: NonNegative | None = None
    """GPUs of each host. Default: those of one worker."""
    cpus: Positive | None = None
    """CPU cores of each host. Default: those of one worker."""
    token_file: str = "./ray-token"
    """File on each host with Ray's token, the same on all of them."""


class SlurmSpec(SpecSection):
    """A Slurm cluster."""

    partition: str | None = None
    """Default: the cluster's own."""
    account: str | None = None
    """Account that is charged. Default: the user's own."""
    qos: str | None = None
    """Quality of service, for example a preemptible one."""
    constraint: str | None = None
    """Features that the machines must have, for example `a100&nvlink`."""
    workers_per_machine: Positive = 1
    """Number of workers of a training on each machine."""
    memory_gb: Positive | None = None
    """Memory of each machine that the job uses. Default: what the plan counts, or the partition's own rule if that is not
    known."""
    time: Annotated[str, Field(pattern=r"^(\d+-)?\d{1,2}(:\d{2}){2}$")] = "1-00:00:00"
    """Longest time of the job, `days-hours:minutes:seconds`."""
    setup: tuple[str, ...] = ()
    """Lines of shell that make `raymill` and `ray` commands of a job, for example `module load cuda/12.8` and
    `source /shared/raymill/bin/activate`."""
    apptainer: bool = False
    """Run Ray and raymill in `deploy.image` by Apptainer, on all machines."""


class AirflowSpec(SpecSection):
    """Airflow 3, which starts the nightly pipeline on a Ray cluster."""

    ray_address: Annotated[str, Field(pattern=r"^(auto|(ray://)?[A-Za-z0-9.\-]+:\d+)$")] = "auto"
    """Ray's head as Airflow's workers reach it, `host:port` or `ray://host:port`. `auto`: Ray runs on the worker's
    machine."""
    dashboard: Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.\-]+:\d+$")] = "http://127.0.0.1:8265"
    """Ray's dashboard as Airflow's workers reach it. It takes the endpoint's config."""
    token_file: MachinePath = "/etc/raymill/token"
    """File on Airflow's workers with Ray's token."""
    setup: tuple[str, ...] = ()
    """Lines of shell that make `raymill` and `serve` commands of a task, for example
    `source /shared/raymill/bin/activate`."""
    queue: str | None = None
    """Airflow's queue of the workers that have raymill. Default: Airflow's own."""
    retries: NonNegative = 1
    """How many times a step is tried again. The roll-out is not: it goes back to the version before."""
    max_hours: Positive = 20
    """Hours after which Airflow ends the pipeline."""
