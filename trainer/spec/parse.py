"""From a YAML file and `--set` overrides to a `RunSpec`, or to one message that says what to change."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from cluster.errors import SpecError
from trainer.spec.explain import _explain
from trainer.spec.run import RunSpec

if TYPE_CHECKING:
    pass


_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


# Path-like keys, relative to the spec's file when they are not absolute.
_SOURCE_KEYS = ("train", "validation", "test")


# Keys that change a row's content, by which it is held out or not.
_SPLIT_BY = ("data.steps", "data.features", "data.columns")


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads `1e-4` as a number (YAML 1.2 does, PyYAML's 1.1 rules do not) and refuses a key given twice."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+$|^[-+]?\.\d+([eE][-+]?\d+)?$"),
    list("-+0123456789."),
)


def _mapping_without_repeats(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if isinstance(key, (list, dict)):
            raise yaml.constructor.ConstructorError(None, None, "a key must be plain text", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key '{key}' is given twice", key_node.start_mark)
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_repeats)


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError(
            f"there is no spec at {path}", "give the path of a YAML file, as examples/support_tickets/run.yaml"
        ) from None
    except IsADirectoryError:
        raise SpecError(
            f"{path} is a folder, not a spec", f"name the YAML file in it, as {path / 'run.yaml'}"
        ) from None
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is not UTF-8 text (byte {error.start})", "save it as UTF-8") from None
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}", "check the path and its permissions") from None
    try:
        raw = yaml.load(text, _Loader)  # noqa: S506  a SafeLoader with two stricter rules
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise SpecError(
            f"{path}{where} is not YAML: {getattr(error, 'problem', error)}", "check quotes and indentation"
        ) from None
    if not isinstance(raw, dict):
        found = "empty" if raw is None else f"a {type(raw).__name__}"
        raise SpecError(f"{path} is {found}, not a mapping of keys", "start with `name:`, `data:` and `model:`")
    return raw


def _apply(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise SpecError(f"--set {override!r} has no value", "write it as --set train.epochs=1")
    try:
        value = yaml.load(text, _Loader)  # noqa: S506
    except (yaml.YAMLError, ValueError, RecursionError):
        value = text
    _put(raw, key.strip(), value)


def _put(raw: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key; the sections on its way are copied, because specs of trials share them."""
    # Keys of the search space hold dots themselves.
    path = ["tune", "space", key.removeprefix("tune.space.")] if key.startswith("tune.space.") else key.split(".")
    place = raw
    for depth, part in enumerate(path[:-1]):
        section = place.get(part)
        if section is not None and not isinstance(section, dict):
            above = ".".join(path[: depth + 1])
            raise SpecError(f"'{key}' cannot be set: '{above}' is a value, not a section", f"set '{above}' itself")
        place[part] = dict(section or {})
        place = place[part]
    place[path[-1]] = value


def _fill_variables(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _fill_variables(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill_variables(item) for item in value]
    return _VARIABLE.sub(_variable, value) if isinstance(value, str) else value


def _variable(match: re.Match[str]) -> str:
    name, default = match.groups()
    found = os.environ.get(name, default)
    if found is None:
        raise SpecError(
            f"the spec uses ${{{name}}}, and the environment variable {name} is not set",
            f"export {name}=..., or give a default as ${{{name}:-value}}",
        )
    return found


def _absolute(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    def full(path: str) -> str:
        try:
            return path if "://" in path else str(folder / Path(path).expanduser())
        except RuntimeError:
            raise SpecError(f"{path!r} names a home folder that is not there", "write the path out") from None

    def base(given: str) -> str:
        # A hub id looks like a relative path: it is one only if such a folder is there, or it says so.
        local = given.startswith((".", "~", "/")) or (
            "://" not in given and len(given) < 250 and (folder / given).is_dir()
        )
        return full(given) if local else given

    data = dict(raw["data"])
    for key in _SOURCE_KEYS:
        if isinstance(data.get(key), str):
            data[key] = full(data[key])
        elif isinstance(data.get(key), list):
            data[key] = [full(item) for item in data[key]]
    model = dict(raw.get("model") or {})
    if model.get("base"):
        model["base"] = base(model["base"])
    storage = raw.get("storage", RunSpec.model_fields["storage"].default)
    if "://" in storage:
        raise SpecError(
            f"storage={storage!r}: only folders are written to", "name a folder, on a cluster one that all nodes see"
        )
    found = {**raw, "data": data, "model": model, "storage": full(storage)}
    space = ((raw.get("tune") or {}).get("space") or {}).get("model.base", {})
    if space.get("choice"):
        tune = {
            **raw["tune"],
            "space": {**raw["tune"]["space"], "model.base": {**space, "choice": [base(b) for b in space["choice"]]}},
        }
        found["tune"] = tune
    return found


def _check_space(spec: RunSpec) -> None:
    if spec.tune is None:
        return
    for key, domain in spec.tune.space.items():
        section, _, rest = key.partition(".")
        if section not in {"data", "model", "train"} or not rest:
            raise SpecError(
                f"tune.space.{key} cannot be searched",
                "search single keys of data, model and train, as train.epochs",
            )
        if key in {"data.train", "data.validation", "data.test"} or key.startswith("data.split"):
            raise SpecError(f"tune.space.{key} would compare trials on different rows", "take it out of the space")
        if key.startswith(_SPLIT_BY) and spec.data.validation is None:
            raise SpecError(
                f"tune.space.{key} would hold out other rows for each value: a row's part goes by its cleaned content",
                "give validation rows of their own with data.validation",
            )
        if key.startswith(("data.", "model.base")) and domain.choice is None:
            raise SpecError(
                f"tune.space.{key} changes the prepared data, which is made once for each value before the search",
                f"list its values: {key}: {{choice: [...]}}",
            )
        for value in domain.edges:
            raw = spec.model_dump(mode="json", exclude_unset=True)
            raw.pop("tune")
            _put(raw, key, value)
            try:
                RunSpec.model_validate(raw)
            except ValidationError as error:
                raise SpecError(
                    f"tune.space.{key} holds {value!r}, which is not valid: {_explain(error.errors()[0])}",
                    "change the key's name or its values; `raymill schema` lists all keys",
                ) from None
