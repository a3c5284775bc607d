"""Write a registered version in the format of another tool."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cluster.errors import ModelError, SpecError, suggest
from cluster.files import folder_bytes, new_folder
from raymill.session import STORAGE, find_version

if TYPE_CHECKING:
    from trainer.export.gguf_file import Precision
    from trainer.registry.registry import Version


def export(
    model: str, to: str, output: str | Path, *, precision: str | None = None, storage: str | Path = STORAGE
) -> dict[str, Any]:
    """Write a registered version to `output` in the format `to`, and return what was written.

    `gguf`: one file for llama.cpp and tools that use it, with weights in `precision` (f32, f16, q8_0 or q4_0; default
    q8_0). `hf`: a folder of transformers. `onnx`: an ONNX graph, for models of texts and images.
    """
    if to not in _WRITERS:
        raise SpecError(f"'{to}' is no format to export to", suggest(to, _WRITERS))
    if precision is not None and to != "gguf":
        raise SpecError(f"precision={precision} is for `gguf` only", "leave it out")
    version, path = find_version(model, storage), Path(output)
    if path.exists():
        raise ModelError(f"{path} exists already", "name a new path, or remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    _WRITERS[to](version, path, precision or "q8_0")
    size = folder_bytes(path) if path.is_dir() else path.stat().st_size
    return {"model": version.name, "version": version.number, "format": to, "output": str(path), "bytes": size}


def _write_gguf(version: Version, path: Path, precision: str) -> None:
    from trainer.export.gguf_file import write_gguf
    from trainer.export.transformers_folder import write_transformers_folder

    _check_writes_text(version, "gguf")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        write_transformers_folder(version.folder, Path(folder))
        write_gguf(Path(folder), path, cast("Precision", precision), name=version.ref)


def _write_hf(version: Version, path: Path, precision: str) -> None:
    from trainer.export.transformers_folder import write_transformers_folder

    _check_writes_text(version, "hf")
    with new_folder(path) as unfinished:
        write_transformers_folder(version.folder, unfinished)


def _write_onnx(version: Version, path: Path, precision: str) -> None:
    """Write the graph that the engine onnx-fp32 computes."""
    from serve.engines.base import EngineError
    from serve.engines.catalog import build_engine
    from serve.engines.selection import GENERATION, service_of
    from trainer.inference import golden
    from trainer.inference.predictor import Predictor

    if service_of(version) == GENERATION:
        raise ModelError(
            f"{version.ref} writes text; its steps over a cache are no single ONNX graph",
            "export it with `--to gguf` or `hf`",
        )
    predictor = Predictor(version.folder)
    sample = predictor.encode(predictor.parse(golden.load_requests(version.folder)))
    try:
        with new_folder(path) as unfinished, tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as scratch:
            build_engine("onnx-fp32", predictor, sample, unfinished, Path(scratch))
            shutil.copyfile(version.folder / "contract.json", unfinished / "contract.json")
    except EngineError as error:
        raise ModelError(f"{version.ref} cannot be written as ONNX: {error}", "serve it with raymill") from error


def _check_writes_text(version: Version, to: str) -> None:
    from serve.engines.selection import GENERATION, service_of

    if service_of(version) != GENERATION:
        raise ModelError(
            f"{version.ref} does not write text, and `{to}` is for models that do", "export it with `--to onnx`"
        )


_WRITERS: dict[str, Callable[[Version, Path, str], None]] = {"gguf": _write_gguf, "hf": _write_hf, "onnx": _write_onnx}
