"""Kind `slurm`: a batch job that starts Ray on its machines and runs the spec on the first one."""

from __future__ import annotations

import math
import shlex

from cluster.errors import SpecError
from cluster.manifests.documents import Rendered
from cluster.manifests.environment import node_environment
from cluster.manifests.inputs import ManifestInputs
from cluster.manifests.node_memory import needed_gib
from cluster.manifests.process_needs import list_needs, most_memory
from cluster.manifests.text_templates import render_template

SCRIPT_FILE, SPEC_FILE = "run.sbatch", "run.yaml"
# Time that a run gets to save a checkpoint before Slurm ends it.
_NOTICE_S = 120


def render(inputs: ManifestInputs) -> Rendered:
    """Return the batch script and the spec that it runs."""
    script = render_template(
        "run.sbatch.j2",
        name=inputs.spec.name,
        directives=_directives(inputs),
        storage=inputs.storage,
        project=inputs.deploy.project,
        setup=inputs.deploy.slurm.setup,
        environment=node_environment(inputs, None, in_image=inputs.deploy.slurm.apptainer),
        container=_container(inputs),
    )
    return {SCRIPT_FILE: script, SPEC_FILE: inputs.spec_text}


def _directives(inputs: ManifestInputs) -> list[str]:
    """Return the options of sbatch: the machines of the largest stage, each with the cores of its workers."""
    slurm = inputs.deploy.slurm
    with_gpus, without = list_needs(inputs, with_gpus=True), list_needs(inputs, with_gpus=False)
    # A job trains; what it serves, it serves for a load test.
    needs = [need for need in with_gpus or without if need.stage != "serve"]
    least = max(math.ceil(need.minimum / slurm.workers_per_machine) for need in needs)
    most = max(math.ceil(need.maximum / slurm.workers_per_machine) for need in needs)
    cpus = max(math.ceil(need.cpus_each * min(need.maximum, slurm.workers_per_machine)) for need in needs)
    gpus = max(need.gpus_each * slurm.workers_per_machine for need in needs)
    if gpus != int(gpus):
        raise SpecError(
            f"cluster.gpus_per_worker={inputs.spec.cluster.gpus_per_worker:g} makes {gpus:g} GPUs for each machine, and "
            "Slurm gives whole GPUs",
            "set `deploy.slurm.workers_per_machine` so that the workers of a machine share whole GPUs",
        )
    memory = slurm.memory_gb or needed_gib(most_memory(needs), slurm.workers_per_machine)
    gpu_type = f"{inputs.deploy.gpu_type.lower()}:" if inputs.deploy.gpu_type else ""
    options = {
        "job-name": inputs.name,
        "nodes": f"{least}-{most}" if most > least else str(least),
        "ntasks-per-node": "1",
        "cpus-per-task": str(cpus),
        "gpus-per-node": f"{gpu_type}{int(gpus)}" if gpus else None,
        "mem": f"{memory}G" if memory else None,
        "time": slurm.time,
        "partition": slurm.partition,
        "account": slurm.account,
        "qos": slurm.qos,
        "constraint": slurm.constraint,
        "output": "%x-%j.log",
        "open-mode": "append",
        "signal": f"B:TERM@{_NOTICE_S}",
    }
    flags = ["--requeue", *(["--no-kill"] if most > least else [])]
    return [*(f"--{name}={shlex.quote(value)}" for name, value in options.items() if value is not None), *flags]


def _container(inputs: ManifestInputs) -> str:
    """Return the words before a command that runs in the image, or nothing."""
    if not inputs.deploy.slurm.apptainer:
        return ""
    storage, image = inputs.deploy.storage.path, f"docker://{inputs.image}"
    gpus = "--nv " if any(demand.gpus_each for demand in inputs.demands) else ""
    return f"apptainer exec {gpus}--bind {shlex.quote(storage)} {shlex.quote(image)} "
