"""Where a base model's files are: an installed package, a local folder, or the hub."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from cluster.errors import ModelError

_PACKAGE = "package://"
# JSON, vocabularies and safetensors; never a pickle or a repository's own Python code.
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]


def locate(base: str) -> Path:
    """Return the folder that holds the base model's files, fetching them from the hub if need be.

    Raises `ModelError` if there is none, or if it holds no config.json or no safetensors weights.
    """
    if base.startswith(_PACKAGE):
        folder = _in_package(base)
    elif Path(base).expanduser().is_absolute():
        folder = Path(base).expanduser()
        if not folder.is_dir():
            raise ModelError(
                f"model.base={base!r}: there is no such folder", "correct the path, or give a hub id as org/name"
            )
    else:
        folder = _from_hub(base)
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"model.base={base!r}: {folder} holds no config.json", "name a folder saved by save_pretrained()"
        )
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"model.base={base!r}: {folder} holds no *.safetensors; raymill reads no pickled weights",
            "save the model with transformers 5 (safetensors is its format), or choose another",
        )
    return folder


def is_local(base: str) -> bool:
    """Whether the base model's files are on this machine, or nowhere: only a hub id would have to be fetched."""
    return base.startswith(_PACKAGE) or Path(base).expanduser().is_absolute()


def _in_package(base: str) -> Path:
    package, _, inner = base.removeprefix(_PACKAGE).partition("/")
    try:
        found = importlib.util.find_spec(package) if package else None
    except (ImportError, ValueError):
        found = None
    places = list(found.submodule_search_locations or []) if found else []
    if not places:
        hint = package.replace("_", "-") or "NAME"
        raise ModelError(f"model.base={base!r}: the package '{package}' is not installed", f"pip install {hint}")
    root = Path(places[0]).resolve()
    folder = (root / inner).resolve()
    if not folder.is_relative_to(root) or not folder.is_dir():
        raise ModelError(f"model.base={base!r}: the package has no folder '{inner}'", f"look into {root}")
    return folder


def _from_hub(base: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(base, allow_patterns=_HUB_FILES))
    except HFValidationError as error:
        raise ModelError(
            f"model.base={base!r} is neither a folder beside the spec nor a hub id",
            "give a folder, or a hub id as org/name",
        ) from error
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"model.base={base!r} is no folder beside the spec, and the hub cannot be reached from here",
            "give a local folder or a package:// base, or fetch it once where there is a network",
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise ModelError(
            f"model.base={base!r} could not be fetched from the hub: {str(error).splitlines()[0]}",
            "correct the id, or give a local folder",
        ) from error


def max_positions(config: dict[str, object]) -> int:
    """Return how many tokens the model of this config.json can take (RoBERTa keeps `pad_token_id + 1` back)."""
    found = config.get("max_position_embeddings")
    if not isinstance(found, int):
        return 8192
    if str(config.get("model_type", "")) in {"roberta", "xlm-roberta", "camembert", "mpnet"}:
        pad = config.get("pad_token_id")
        return found - (pad if isinstance(pad, int) else 1) - 1
    return found
