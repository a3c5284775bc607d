"""Find and remove placement groups of the connected Ray that still hold resources."""

from __future__ import annotations

from collections.abc import Iterable


def active_placement_groups() -> dict[str, str]:
    """Return the placement groups that hold resources now: hexadecimal id -> name."""
    from ray.util import placement_group_table

    return {group: info["name"] for group, info in placement_group_table().items() if info["state"] != "REMOVED"}


def remove_placement_groups(groups: Iterable[str]) -> None:
    """Remove placement groups by id and free their resources."""
    import ray
    from ray.util import remove_placement_group
    from ray.util.placement_group import PlacementGroup

    for group in groups:
        remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(group))))
