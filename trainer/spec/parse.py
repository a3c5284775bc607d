"""Read a spec: YAML with `${VARIABLES}`, `--set` overrides, relative paths, and the rules of a search space.

`trainer.tasks.load_spec.load_spec` calls these functions and then fills in what the spec leaves to its task.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cluster.errors import SpecError
from trainer.spec.error_messages import explain_error
from trainer.spec.renames import check_key
from trainer.spec.run import RunSpec
from trainer.spec.space import DomainSpec

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")

# Paths are relative to the spec's file if they are not absolute.
_SOURCE_KEYS = ("train", "validation", "test")

# Keys that change the content of a row. The content decides whether a row is for training, validation or test.
_CONTENT_KEYS = ("data.steps", "data.features", "data.columns")


class _Loader(yaml.SafeLoader):
    """A SafeLoader that reads `1e-4` as a number (as YAML 1.2 does, unlike PyYAML) and refuses a repeated key."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+$|^[-+]?\.\d+([eE][-+]?\d+)?$"),
    list("-+0123456789."),
)


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    """Return a mapping; raises `ConstructorError` for a repeated key and for a key that is a list or a mapping."""
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if isinstance(key, (list, dict)):
            raise yaml.constructor.ConstructorError(None, None, "a key must be plain text", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key '{key}' is given twice", key_node.start_mark)
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)


def read_spec_file(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file. Raises `SpecError` if the file is missing, unreadable or not a mapping."""
    text = _read_text(path)
    try:
        raw = yaml.load(text, _Loader)  # noqa: S506  a SafeLoader with two stricter rules
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise SpecError(
            f"{path}{where} is not YAML: {getattr(error, 'problem', error)}", "check quotes and indentation"
        ) from None
    if not isinstance(raw, dict):
        content = "empty" if raw is None else f"a {type(raw).__name__}"
        raise SpecError(f"{path} is {content}, not a mapping of keys", "start with `name:`, `data:` and `model:`")
    return raw


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError(
            f"there is no spec at {path}", "give the path of a YAML file, for example examples/support_tickets/run.yaml"
        ) from None
    except IsADirectoryError:
        raise SpecError(
            f"{path} is a folder, not a spec", f"name the YAML file in it, for example {path / 'run.yaml'}"
        ) from None
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is not UTF-8 text (byte {error.start})", "save it as UTF-8") from None
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}", "check the path and its permissions") from None


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Set the key of an override such as `train.epochs=1`; the value is YAML. Raises `SpecError`."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise SpecError(f"--set {override!r} has no value", "write it as --set train.epochs=1")
    check_key(key.strip())
    try:
        value = yaml.load(text, _Loader)  # noqa: S506
    except (yaml.YAMLError, ValueError, RecursionError):
        value = text
    set_key(raw, key.strip(), value)


def set_key(raw: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key; sections on the way are copied, because the specs of trials share them."""
    # The keys of the search space contain dots themselves.
    path = ["tune", "space", key.removeprefix("tune.space.")] if key.startswith("tune.space.") else key.split(".")
    parent = raw
    for depth, name in enumerate(path[:-1]):
        section = parent.get(name)
        if section is not None and not isinstance(section, dict):
            above = ".".join(path[: depth + 1])
            raise SpecError(f"'{key}' cannot be set: '{above}' is a value, not a section", f"set '{above}' itself")
        parent[name] = dict(section or {})
        parent = parent[name]
    parent[path[-1]] = value


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
        if isinstance(data.get(key), str):
            data[key] = _absolute_path(data[key], folder)
        elif isinstance(data.get(key), list):
            data[key] = [_absolute_path(item, folder) for item in data[key]]
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


def _absolute_path(path: str, folder: Path) -> str:
    try:
        return path if "://" in path else str(folder / Path(path).expanduser())
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
                f"tune.space.{key} holds {value!r}, which is not valid: {explain_error(error.errors()[0])}",
                "change the key's name or its values; `raymill schema` lists all keys",
            ) from None
