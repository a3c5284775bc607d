"""Renamed keys and values of the spec: every old one is refused, in every way to give it, with the new one's name."""

import pytest

from cluster.errors import SpecError, classify_error
from trainer.spec import renames
from trainer.spec.error_messages import _known_keys
from trainer.spec.renames import KEYS, VALUES, explain_renamed_key, new_key, new_value
from trainer.tasks.load_spec import load_spec

SPEC = {"name": "a", "data": {"train": "a.csv"}, "model": {"base": "b"}}
SPACE = {"train.learning_rate": {"loguniform": [1e-5, 1e-2]}}
IN_SPACE = {old: new for old, new in KEYS.items() if old.startswith(("data.", "model.", "train.")) and "*" not in old}


def spec_with(key, value):
    """Return a short spec with one dotted key; `*` in the key makes a list of one item."""
    section, _, rest = key.partition(".")
    for name in reversed(rest.split(".")):
        value = [value] if name == "*" else {name: value}
    needed = {"tune": {"space": SPACE}, "data": SPEC["data"]}.get(section, {})
    return {**SPEC, section: {**needed, **value}}


def error_of(*args):
    with pytest.raises(SpecError) as caught:
        load_spec(*args)
    assert classify_error(caught.value).exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize(("old", "new"), KEYS.items())
def test_every_old_key_in_a_file_or_mapping_names_the_new_one(old, new):
    message = f"{old}: renamed; use {new}".replace("*", "0")
    assert message in error_of(spec_with(old, {}))


@pytest.mark.parametrize(("old", "new"), [item for item in KEYS.items() if "*" not in item[0]])
def test_every_old_key_in_an_override_names_the_new_one(old, new):
    assert f"{old}: renamed; use {new}" in error_of(SPEC, [f"{old}=1"])
    assert f"{old}.below: renamed; use {new}.below" in error_of(SPEC, [f"{old}.below=1"])


@pytest.mark.parametrize(("key", "values"), VALUES.items())
def test_every_old_value_names_the_new_one(key, values):
    for old, new in values.items():
        assert f"{key}='{old}': renamed; use {new}" in error_of(spec_with(key, old))
        assert f"{key}='{old}': renamed; use {new}" in error_of({**SPEC, "tune": {"space": SPACE}}, [f"{key}={old}"])


@pytest.mark.parametrize(("old", "new"), IN_SPACE.items())
def test_old_keys_in_a_search_space_name_the_new_ones(old, new):
    domain = {"choice": [1, 2]}
    assert f"tune.space.{old}: renamed; use tune.space.{new}" in error_of({**SPEC, "tune": {"space": {old: domain}}})
    message = error_of({**SPEC, "tune": {"space": SPACE}}, [f"tune.space.{old}={{choice: [1, 2]}}"])
    assert f"tune.space.{old}: renamed; use tune.space.{new}" in message
    tune = {"space": {**SPACE, new: domain}, "initial_points": [{old: 1}]}
    assert f"initial_points: {old} is not a key of the space; it is renamed, use {new}" in error_of(
        {**SPEC, "tune": tune}
    )
    tune = {"space": {new: domain, "train.seed": {"randint": [1, 3], "when": {old: 1}}}}
    assert f"it is renamed, use {new}" in error_of({**SPEC, "tune": tune})


def test_old_values_in_a_search_space_name_the_new_ones():
    space = {"data.image.mode": {"choice": ["grey", "rgb"]}}
    assert "data.image.mode='grey': renamed; use gray" in error_of({**SPEC, "tune": {"space": space}})
    space = {"data.steps": {"choice": [[], ["normalise"]]}}
    spec = {**SPEC, "data": {"train": "a.csv", "validation": "b.csv"}, "tune": {"space": space}}
    assert "data.steps.0.normalise: renamed; use data.steps.0.normalize" in error_of(spec)


def test_an_old_key_with_an_old_value_names_both():
    assert "serve.too_long: renamed; use serve.overlong: reject" in error_of({**SPEC, "serve": {"too_long": "refuse"}})


def test_old_keys_are_listed_with_the_other_mistakes():
    message = error_of({**SPEC, "serve": {"idle_s": 3, "prot": 8000}, "cluster": {"sharding": "fsdp"}})
    assert "3 keys are wrong" in message and "did you mean 'port'?" in message
    assert "serve.idle_s: renamed; use serve.downscale_delay_s" in message
    assert "cluster.sharding: renamed; use cluster.strategy" in message


def test_an_old_step_written_as_its_name_alone():
    spec = {**SPEC, "data": {"train": "a.csv", "steps": ["strip_html", "normalise"]}}
    assert "data.steps.1.normalise: renamed; use data.steps.1.normalize" in error_of(spec)


def test_the_table_names_keys_that_exist():
    for new in KEYS.values():
        *section, name = new.split(".")
        assert name in _known_keys(section), new
    for old in KEYS:
        assert old not in KEYS.values() and new_key(KEYS[old]) is None


def test_a_key_that_is_renamed_twice_names_the_last_name(monkeypatch):
    monkeypatch.setitem(renames.KEYS, "serve.downscale_delay_s", "serve.scaling.delay_s")
    assert explain_renamed_key("serve.idle_s") == "serve.idle_s: renamed; use serve.scaling.delay_s"


def test_keys_and_values_that_are_not_renamed():
    assert new_key("train.epochs") is None and new_key("data.allow_issues") is None and new_key("serve") is None
    assert new_value("tune.algorithm", "tpe") is None and new_value("train.epochs", 3) is None
