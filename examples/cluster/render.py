"""Write the manifests of run.yaml into the folders beside this file: `python examples/cluster/render.py`."""

from __future__ import annotations

from pathlib import Path

import raymill
from cluster.manifests.files import write_manifest

HERE = Path(__file__).parent
SPEC = HERE / "run.yaml"
_GCP = (
    "{provider: gcp, region: us-central1, zone: us-central1-a, project: my-project, nfs: '10.0.0.2:/share', "
    "machine_image: projects/deeplearning-platform-release/global/images/family/common-cu128-ubuntu-2204-nvidia-570}"
)
_AZURE = (
    "{provider: azure, region: westeurope, project: my-group, nfs: 'share.file.core.windows.net:/share/raymill', "
    "machine_image: 'microsoft-dsvm:ubuntu-hpc:2204:latest'}"
)
_LOCAL = (
    "{provider: local, head_host: 192.168.1.10, worker_hosts: [192.168.1.11, 192.168.1.12], "
    "ssh_private_key: ~/.ssh/id_ed25519, nfs: '192.168.1.5:/export/raymill'}"
)
# A queue admits all pods of a job at once, so none may join later.
_KUEUE = ["cluster.workers=4", "deploy.kubernetes.data_pods=0", "deploy.kubernetes.queue={kueue: gpu-jobs}"]
#: Folder -> the kind, and what differs from run.yaml. The option `--ha` is part of a folder's name.
RENDERED: dict[str, tuple[str, list[str]]] = {
    "ray-up-aws": ("ray-up", []),
    "ray-up-gcp": ("ray-up", [f"deploy.ray_up={_GCP}"]),
    "ray-up-azure": ("ray-up", [f"deploy.ray_up={_AZURE}", "deploy.gpu_type=T4"]),
    "ray-up-hosts": ("ray-up", [f"deploy.ray_up={_LOCAL}"]),
    "kubernetes-storage": ("kubernetes-storage", []),
    "raycluster": ("raycluster", []),
    "rayjob": ("rayjob", []),
    "rayjob-kueue": ("rayjob", _KUEUE),
    "rayservice": ("rayservice", []),
    "rayservice-ha": ("rayservice", []),
    "raycronjob": ("raycronjob", []),
    "compose": ("compose", []),
    "slurm": ("slurm", []),
    "airflow": ("airflow", []),
    "serve-config": ("serve-config", []),
}


def render(folder: str) -> dict[str, str]:
    """Return the files of a folder: name -> text."""
    kind, overrides = RENDERED[folder]
    return raymill.manifest(SPEC, kind, overrides=overrides, ha=folder.endswith("-ha"))


if __name__ == "__main__":
    for name in RENDERED:
        for path in write_manifest(render(name), HERE / name):
            print(path)
