"""On which nodes a pod with GPUs of a type runs."""

from __future__ import annotations

from typing import Any

from cluster.errors import SpecError, suggest
from cluster.manifests.inputs import ManifestInputs

_PRODUCT_LABEL = "nvidia.com/gpu.product"
#: Ray's name of a type -> the products that NVIDIA's GPU feature discovery writes into a node's label.
PRODUCTS = {
    "T4": ["Tesla-T4"],
    "V100": ["Tesla-V100-SXM2-16GB", "Tesla-V100-SXM2-32GB", "Tesla-V100-PCIE-16GB", "Tesla-V100-PCIE-32GB"],
    "L4": ["NVIDIA-L4"],
    "L40S": ["NVIDIA-L40S"],
    "A10G": ["NVIDIA-A10G"],
    "A100": [
        "NVIDIA-A100-SXM4-40GB",
        "NVIDIA-A100-PCIE-40GB",
        "NVIDIA-A100-SXM4-80GB",
        "NVIDIA-A100-80GB-PCIe",
    ],
    "A100-40G": ["NVIDIA-A100-SXM4-40GB", "NVIDIA-A100-PCIE-40GB"],
    "A100-80G": ["NVIDIA-A100-SXM4-80GB", "NVIDIA-A100-80GB-PCIe"],
    "H100": ["NVIDIA-H100-80GB-HBM3", "NVIDIA-H100-PCIe", "NVIDIA-H100-NVL"],
    "H200": ["NVIDIA-H200", "NVIDIA-H200-NVL"],
    "B200": ["NVIDIA-B200"],
}


def gpu_affinity(inputs: ManifestInputs, gpu_type: str | None) -> dict[str, Any]:
    """Return the node affinity of a type of GPU; an empty one if the spec names labels of its own, or no type.

    Raises `SpecError` for a type whose product names are not known here.
    """
    if inputs.deploy.kubernetes.gpu.labels or gpu_type is None:
        return {}
    if gpu_type not in PRODUCTS:
        raise SpecError(
            f"deploy.gpu_type={gpu_type}: its nodes' label {_PRODUCT_LABEL} is not known here",
            f"set `deploy.kubernetes.gpu.labels` to labels of these nodes. {suggest(gpu_type, PRODUCTS)}",
        )
    term = {"matchExpressions": [{"key": _PRODUCT_LABEL, "operator": "In", "values": PRODUCTS[gpu_type]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}
