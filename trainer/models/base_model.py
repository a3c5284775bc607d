"""Base models: files in an installed package, a local folder, or the hub."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from cluster.errors import ModelError, first_line
from cluster.paths import expand_home

_PACKAGE = "package://"
# JSON, vocabularies and safetensors; never a pickle or a repository's own Python code.
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]


def locate_base_model(base: str) -> Path:
    """Return the folder with the base model's files; downloads them from the hub if necessary.

    Raises `ModelError` if there is no such model, or if it has no config.json or no safetensors weights.
    """
    if base.startswith(_PACKAGE):
        folder = _folder_in_package(base)
    elif expand_home(base).is_absolute():
        folder = expand_home(base)
        if not folder.is_dir():
            raise ModelError(
                f"model.base={base!r}: there is no such folder", "correct the path, or give a hub id such as `org/name`"
            )
    else:
        folder = _download_from_hub(base)
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"model.base={base!r}: {folder} has no config.json", "name a folder saved by save_pretrained()"
        )
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"model.base={base!r}: {folder} has no *.safetensors; raymill reads no pickled weights",
            "save the model with transformers 5, which writes safetensors, or choose another model",
        )
    return folder


def is_local_base(base: str) -> bool:
    """Whether `base` is a local folder or a folder in a package, so that nothing is downloaded from the hub."""
    return base.startswith(_PACKAGE) or expand_home(base).is_absolute()


def max_positions(config: dict[str, object]) -> int:
    """Return the maximum number of tokens of a model, from its config.json; 8192 if the config does not say.

    RoBERTa and related models reserve the first `pad_token_id + 1` positions.
    """
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int):
        return 8192
    if str(config.get("model_type", "")) in {"roberta", "xlm-roberta", "camembert", "mpnet"}:
        pad_id = config.get("pad_token_id")
        return positions - (pad_id if isinstance(pad_id, int) else 1) - 1
    return positions


def _folder_in_package(base: str) -> Path:
    package, _, inner = base.removeprefix(_PACKAGE).partition("/")
    try:
        spec = importlib.util.find_spec(package) if package else None
    except (ImportError, ValueError):
        spec = None
    locations = list(spec.submodule_search_locations or []) if spec else []
    if not locations:
        hint = package.replace("_", "-") or "NAME"
        raise ModelError(f"model.base={base!r}: the package '{package}' is not installed", f"pip install {hint}")
    root = Path(locations[0]).resolve()
    folder = (root / inner).resolve()
    if not folder.is_relative_to(root) or not folder.is_dir():
        raise ModelError(f"model.base={base!r}: the package has no folder '{inner}'", f"name a folder inside {root}")
    return folder


def _download_from_hub(base: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(base, allow_patterns=_HUB_FILES))
    except HFValidationError as error:
        raise ModelError(
            f"model.base={base!r} is neither a folder beside the spec nor a hub id",
            "give a folder, or a hub id such as `org/name`",
        ) from error
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"model.base={base!r} is not a folder beside the spec, and the hub cannot be reached",
            "give a local folder or `package://NAME/folder`, or download it once on a machine with network access",
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise ModelError(
            f"model.base={base!r} could not be downloaded from the hub: {first_line(error)}",
            "correct the id, or give a local folder",
        ) from error
