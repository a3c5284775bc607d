"""What every kind of manifest is made from: the spec, its plan, and the options of the command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from cluster.errors import SpecError
from cluster.manifests.remote_spec import remote_spec_text, remote_storage
from cluster.plan import Demand, Node
from trainer.pipeline.resources import ResourcePlan, list_demands, plan_resources
from trainer.spec.deploy import DeploySpec
from trainer.spec.run import RunSpec
from trainer.spec.section import AUTO

_DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
# CPU cores of a worker if the spec leaves them open: a cluster that is not there yet has no cores to share out.
_CPUS_OF_A_WORKER, _CPUS_OF_A_GPU = 4, 8
# Trials of a search at the same time if the spec leaves them open: with one machine for each, a hundred trials would rent a
# hundred machines.
_TRIALS_AT_ONCE = 4


class ManifestInputs(NamedTuple):
    """The inputs of a kind's `render`."""

    spec: RunSpec
    """The spec as it was loaded here, with `cluster.cpus_per_worker` filled in."""
    deploy: DeploySpec
    """The spec's section `deploy:`, or its defaults."""
    spec_text: str
    """The spec as YAML, as it runs in the cluster: with the cluster's paths and storage."""
    plan: ResourcePlan
    """The sizes that the spec leaves open."""
    demands: list[Demand]
    """The processes of each stage: prepare, train or tune, evaluate, serve."""
    is_ha: bool
    """Whether the endpoint has to survive the loss of the head."""

    @property
    def name(self) -> str:
        """Name of the objects: the spec's name as a DNS-1035 label, which has no underscores and starts with a letter."""
        name = self.spec.name.replace("_", "-").strip("-")
        return name if name[0].isalpha() else f"m-{name}"

    @property
    def lock(self) -> str:
        """Name of the lock of the storage that the nightly pipeline holds, whatever starts it."""
        return self.spec.name

    @property
    def storage(self) -> str:
        """Path of raymill's storage on the machines of the cluster."""
        return remote_storage(self.deploy)

    @property
    def image(self) -> str:
        """The image, by digest. Raises `SpecError` if the spec names none, or names it by a tag."""
        image = self.deploy.image
        if image is None:
            raise SpecError(
                "deploy.image is not set, and the machines of the cluster need an image with raymill",
                "build one with cluster/images/build.sh, push it, and set `deploy.image: registry/name@sha256:...`",
            )
        if not _DIGEST.fullmatch(image):
            raise SpecError(
                f"deploy.image={image} is not a digest; a tag may name another image tomorrow",
                "write `registry/name@sha256:` and 64 digits; `docker buildx imagetools inspect IMAGE` shows them",
            )
        return image


def build_inputs(spec: RunSpec, folder: Path, *, is_ha: bool = False) -> ManifestInputs:
    """Return the inputs for a spec whose file is in `folder`.

    The cluster need not exist: each worker gets a machine's share of its own. Raises `SpecError` for paths that only
    this machine has, and for `cluster.workers: auto`.
    """
    if spec.cluster.workers == AUTO:
        raise SpecError(
            "cluster.workers=auto: the machines of the cluster are made for the workers, so there are none to count",
            "set `cluster.workers` to a number, or to a range such as [1, 4]",
        )
    deploy = spec.deploy or DeploySpec()
    sized = _with_cpus(spec)
    plan = plan_resources(sized, _nodes(sized))
    return ManifestInputs(
        spec=sized,
        deploy=deploy,
        spec_text=remote_spec_text(sized, deploy, folder),
        plan=plan,
        demands=list_demands(sized, plan),
        is_ha=is_ha,
    )


def _with_cpus(spec: RunSpec) -> RunSpec:
    """Return the spec with `cluster.cpus_per_worker` set."""
    if spec.cluster.cpus_per_worker is not None:
        return spec
    gpus = spec.cluster.gpus_per_worker
    cpus = max(1, round(gpus * _CPUS_OF_A_GPU)) if gpus else _CPUS_OF_A_WORKER
    return spec.model_copy(update={"cluster": spec.cluster.model_copy(update={"cpus_per_worker": cpus})})


def _nodes(spec: RunSpec) -> list[Node]:
    """Return one node for each worker of each trial that may run at the same time."""
    cpus = float(spec.cluster.cpus_per_worker or _CPUS_OF_A_WORKER)
    trials = (spec.tune.max_concurrent or min(spec.tune.n_trials, _TRIALS_AT_ONCE)) if spec.tune else 1
    return [Node(cpus, spec.cluster.gpus_per_worker)] * (trials * spec.cluster.max_workers)
