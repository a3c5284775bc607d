"""Which engine a replica starts with: the stored choice, the model itself until one is chosen, or a named engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, get_args

from serve.engines import engine_store
from serve.engines.catalog import ENGINE_NAMES, NATIVE
from trainer.contract.contract import load_contract
from trainer.registry.registry import Version
from trainer.spec.serve import GenerationEngineName, ServeSpec
from trainer.tasks.catalog import task_of_contract

#: The service of tasks that write text.
GENERATION = "generation"


class SelectedEngine(NamedTuple):
    """The engine that a replica starts with."""

    name: str
    choice: dict[str, Any] | None = None
    """The stored choice; None for the model itself (`native`) without one."""
    awaited: Path | None = None
    """The file of the choice that replicas take over once it exists; None if they await none."""
    tolerance: float | None = None
    """The tolerance of the awaited choice; None for any."""


def current_engine(version: Version, spec: ServeSpec) -> SelectedEngine | None:
    """Return the engine that `serve.engine` means for a version, or None if engines must be measured to know it."""
    if service_of(version) == GENERATION:
        selected = _generation_engine(version, spec)
        return selected if selected.choice or selected.name == NATIVE else None
    if _is_native(version, spec):
        return SelectedEngine(NATIVE)
    choice = engine_store.load_choice(version, hardware_of(spec), spec.engine)
    if choice is None or (spec.engine not in ENGINE_NAMES and choice["tolerance"] != spec.max_metric_drop):
        return None
    return SelectedEngine(choice["engine"], choice)


def awaited_engine(version: Version, spec: ServeSpec, tolerance: float | None) -> SelectedEngine:
    """Return the model itself, to be replaced by the engine of the choice that is stored later with `tolerance`."""
    return SelectedEngine(
        NATIVE, awaited=engine_store.choice_path(version, hardware_of(spec), spec.engine), tolerance=tolerance
    )


def stored_engine(version: Version, spec: ServeSpec) -> SelectedEngine:
    """Return the engine that was chosen for a version on this hardware, with any tolerance.

    Without a stored choice, returns the model itself, and any choice that is stored later replaces it.
    """
    if service_of(version) == GENERATION:
        return _generation_engine(version, spec)
    if _is_native(version, spec):
        return SelectedEngine(NATIVE)
    choice = engine_store.load_choice(version, hardware_of(spec), spec.engine)
    return SelectedEngine(choice["engine"], choice) if choice else awaited_engine(version, spec, None)


def service_of(version: Version) -> str:
    """Return how the task of a version is served; see `trainer.tasks.request_options`."""
    return task_of_contract(load_contract(version.folder)).service


def _generation_engine(version: Version, spec: ServeSpec) -> SelectedEngine:
    """Return the engine of a model that writes text: the stored choice, the one that the spec names, or the model's own.

    Measuring takes minutes and all cores, so it is never done beside an endpoint: `raymill optimize` does it.
    """
    if spec.engine != NATIVE and _has_device(spec):
        choice = engine_store.load_choice(version, hardware_of(spec), spec.engine)
        if choice is not None:
            return SelectedEngine(choice["engine"], choice)
    return SelectedEngine(spec.engine if spec.engine in get_args(GenerationEngineName) else NATIVE)


def device_and_threads(spec: ServeSpec) -> tuple[str, int]:
    """Return the device and the number of threads of a replica."""
    return "cuda" if spec.gpus_per_replica > 0 else "cpu", max(1, int(spec.cpus_per_replica))


def hardware_of(spec: ServeSpec) -> dict[str, Any]:
    """Return the hardware of a replica on this machine, as `engine_store.detect_hardware` describes it."""
    return engine_store.detect_hardware(*device_and_threads(spec))


def _is_native(version: Version, spec: ServeSpec) -> bool:
    """Whether it is certain without measuring that the model itself computes."""
    return spec.engine == NATIVE or not _has_device(spec) or not _has_alternatives(version, spec)


def _has_alternatives(version: Version, spec: ServeSpec) -> bool:
    """Whether an engine other than the model itself can compute it: an estimator computes its predictions itself."""
    if spec.engine in ENGINE_NAMES:
        return True
    return not task_of_contract(load_contract(version.folder)).learns_from_features


def _has_device(spec: ServeSpec) -> bool:
    """Whether this machine has the device that a replica uses. Only then can engines be measured here."""
    if not spec.gpus_per_replica:
        return True
    import torch

    return torch.cuda.is_available()
