"""Known types of accelerators, by Ray's names, with the memory of one.

The sizes are those of the vendors' data sheets (nvidia.com/en-us/data-center, amd.com/en/products/accelerators), read as GB
of 10^9 bytes, the smaller reading. A type that is sold in several sizes has the smallest. The names are those of
`ray.util.accelerators`, which Ray writes into a node's resources as `accelerator_type:NAME`.
"""

from __future__ import annotations

from typing import Any

_GB = 10**9
#: Type -> GB of memory of one GPU.
_GB_OF_TYPE = {
    "K80": 12,
    "P4": 8,
    "P100": 16,
    "V100": 16,
    "T4": 16,
    "A10G": 24,
    "L4": 24,
    "L40S": 48,
    "A100": 40,
    "A100-40G": 40,
    "A100-80G": 80,
    "RTX-PRO-6000": 96,
    "H100": 80,
    "H20": 96,
    "H200": 141,
    "B200": 180,
    "B300": 270,
    "GB200": 186,
    "GB300": 279,
    "AMD-Instinct-MI100": 32,
    "AMD-Instinct-MI210": 64,
    "AMD-Instinct-MI300X-OAM": 192,
    "AMD-Instinct-MI325X-OAM": 256,
    "AMD-Instinct-MI355X-OAM": 288,
}
_RESOURCE = "accelerator_type:"


def known_types() -> list[str]:
    """Return the known types, those with the least memory first."""
    return sorted(_GB_OF_TYPE, key=lambda name: _GB_OF_TYPE[name])


def memory_of_type(name: str) -> int:
    """Return the bytes of memory of one GPU of a type; 0 if the type is not known."""
    return _GB_OF_TYPE.get(name, 0) * _GB


def type_in_resources(resources: dict[str, Any]) -> str:
    """Return the type of a node's GPUs from Ray's resources of the node; empty if they do not say."""
    return next((name.removeprefix(_RESOURCE) for name in sorted(resources) if name.startswith(_RESOURCE)), "")
