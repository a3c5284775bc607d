"""Complete a spec that was read: `${VARIABLES}`, relative paths, and the rules of a search space.

`trainer.spec.spec_file` reads the file and `trainer.spec.overrides` applies `--set`. `trainer.tasks.load_spec.load_spec`
calls these functions and then fills in what the spec leaves to its task.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cluster.encoding import check_path
from cluster.errors import SpecError
from cluster.paths import expand_home
from trainer.spec.error_messages import explain_errors
from trainer.spec.overrides import set_key
from trainer.spec.renames import check_key
from trainer.spec.run import RunSpec
from trainer.spec.space import DomainSpec

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")

# Paths are relative to the spec's file if they are not absolute.
_SOURCE_KEYS = ("train", "validation", "test")

# Keys that change the content of a row. The content decides whether a row is for training, validation or test.
_CONTENT_KEYS = ("data.steps", "data.features", "data.columns")


def fill_variables(value: Any) -> Any:
    """Return a value with `${NAME}` and `${NAME:-default}` replaced in all its texts. Raises `SpecError`."""
    if isinstance(value, dict):
        return {key: fill_variables(item) for key, item in value.items()}
    if isinstance(value, list):
        return [fill_variables(item) for item in value]
    return _VARIABLE.sub(_fill_variable, value) if isinstance(value, str) else value


def _fill_variable(match: re.Match[str]) -> str:
    name, default = match.groups()
    value = os.environ.get(name, default)
    if value is None:
        raise SpecError(
            f"the spec uses ${{{name}}}, and the environment variable {name} is not set",
            f"export {name}=..., or give a default: ${{{name}:-value}}",
        )
    return value


def resolve_paths(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a valid spec with the paths of its sources, base models and storage made absolute from `folder`."""
    data = dict(raw["data"])
    for key in _SOURCE_KEYS:
        if isinstance(data.get(key), list):
            data[key] = [_absolute_source(item, folder) for item in data[key]]
        elif data.get(key):
            data[key] = _absolute_source(data[key], folder)
    chat = data.get("chat") or {}
    if chat.get("template") and not is_template_text(chat["template"]):
        data["chat"] = {**chat, "template": _read_template(_absolute_path(chat["template"], folder))}
    model = dict(raw.get("model") or {})
    if model.get("base"):
        model["base"] = _absolute_base(model["base"], folder)
    storage = raw.get("storage", RunSpec.model_fields["storage"].default)
    if "://" in storage:
        raise SpecError(
            f"storage={storage!r} is an address, and raymill writes only to folders",
            "name a folder; on a cluster, a folder that all nodes can reach",
        )
    absolute = {**raw, "data": data, "model": model, "storage": _absolute_path(storage, folder)}
    space = (raw.get("tune") or {}).get("space") or {}
    bases = space.get("model.base", {})
    if bases.get("choice"):
        bases = {**bases, "choice": [_absolute_base(base, folder) for base in bases["choice"]]}
        absolute["tune"] = {**raw["tune"], "space": {**space, "model.base": bases}}
    return absolute


def _read_template(path: str) -> str:
    """Return the chat template in a file: a spec that travels or is stored needs no file beside it."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(
            f"data.chat.template={path!r} cannot be read: {error}",
            "name a file with a Jinja template, or write the template itself",
        ) from None


def is_template_text(template: str) -> bool:
    """Return whether `data.chat.template` is a template itself, and not the path of a file."""
    return "{{" in template or "{%" in template


def _absolute_source(source: Any, folder: Path) -> Any:
    """Return a path, or a mapping with a path, made absolute; a query is returned unchanged."""
    if isinstance(source, str):
        return _absolute_path(source, folder)
    return {**source, "path": _absolute_path(source["path"], folder)} if "path" in source else source


def _absolute_path(path: str, folder: Path) -> str:
    try:
        return path if "://" in path else check_path(str(folder / expand_home(path)))
    except RuntimeError:
        raise SpecError(f"{path!r} names a home folder that does not exist", "write the full path") from None


def _absolute_base(base: str, folder: Path) -> str:
    """Return a local base model as an absolute path. A name such as `org/name` is a folder if that folder exists."""
    is_local = base.startswith((".", "~", "/")) or ("://" not in base and len(base) < 250 and (folder / base).is_dir())
    return _absolute_path(base, folder) if is_local else base


def check_search_space(spec: RunSpec) -> None:
    """Raise `SpecError` if the spec's search has a key or a value that cannot be searched."""
    if spec.tune is None:
        return
    for key, domain in spec.tune.space.items():
        check_key(f"tune.space.{key}")
        _check_searchable(spec, key, domain)
        _check_values(spec, key, domain)


def _check_searchable(spec: RunSpec, key: str, domain: DomainSpec) -> None:
    section, _, rest = key.partition(".")
    if section not in {"data", "model", "train"} or not rest:
        raise SpecError(
            f"tune.space.{key} cannot be searched",
            "search single keys of `data`, `model` and `train`, for example `train.epochs`",
        )
    if key in {"data.train", "data.validation", "data.test"} or key.startswith("data.split"):
        raise SpecError(f"tune.space.{key} would compare trials on different rows", f"remove `{key}` from `tune.space`")
    if key.startswith(_CONTENT_KEYS) and spec.data.validation is None:
        raise SpecError(
            f"tune.space.{key} would hold out other rows for each value: a row's part depends on its cleaned content",
            "give separate validation rows with `data.validation`",
        )
    if key.startswith(("data.", "model.base")) and domain.choice is None:
        raise SpecError(
            f"every value of tune.space.{key} needs its own prepared rows, so a range is not possible",
            f"list its values: `{key}: {{choice: [...]}}`",
        )


def _check_values(spec: RunSpec, key: str, domain: DomainSpec) -> None:
    for value in domain.sample_values:
        raw = spec.model_dump(mode="json", exclude_unset=True)
        raw.pop("tune")
        set_key(raw, key, value)
        try:
            RunSpec.model_validate(raw)
        except ValidationError as error:
            raise SpecError(
                f"tune.space.{key} holds {value!r}, which is not valid: {explain_errors(error.errors(), raw)[0]}",
                "change the key's name or its values; `raymill schema` lists all keys",
            ) from None
