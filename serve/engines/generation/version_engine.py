"""The engine of a version that a replica starts with."""

from __future__ import annotations

import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import ModelError
from serve.engines import engine_store
from serve.engines.base import EngineError
from serve.engines.generation.catalog import LoadSettings, build_engine, load_engine
from serve.engines.generation.choose import own_engine
from trainer.export.transformers_folder import write_transformers_folder

if TYPE_CHECKING:
    from trainer.generation.engine import Engine
    from trainer.inference.predictor import Predictor
    from trainer.registry.registry import Version


def load_version_engine(
    predictor: Predictor, version: Version, name: str, choice: dict[str, Any] | None, settings: LoadSettings
) -> Engine:
    """Return engine `name` of a version, from the files of the stored choice, or else built here.

    Raises `ModelError` if the files have changed or the engine cannot be loaded.
    """
    try:
        if choice is not None:
            built = engine_store.engine_folder(version, choice["hardware"]) / choice["folder"]
            engine_store.check_built_files(built, choice["built"])
            return load_engine(name, built, settings, own_engine(predictor, settings))
        return _build_and_load(predictor, version, name, settings)
    except EngineError as error:
        raise ModelError(
            f"engine {name} of {version.ref} cannot be loaded: {error}", "set `serve.engine: native`"
        ) from error


def _build_and_load(predictor: Predictor, version: Version, name: str, settings: LoadSettings) -> Engine:
    """Build an engine into a temporary folder, which is removed with the engine."""
    built = tempfile.TemporaryDirectory(prefix="raymill-engine-")
    with tempfile.TemporaryDirectory(prefix="raymill-model-") as folder:
        if name.partition("-")[0] != "native":
            write_transformers_folder(version.folder, Path(folder))
        build_engine(name, Path(folder), Path(built.name))
    engine = load_engine(name, Path(built.name), settings, own_engine(predictor, settings))
    weakref.finalize(engine, built.cleanup)
    return engine
