"""The registry: complete versions, verified files, aliases that move and roll back."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from cluster.errors import ModelError
from trainer.registry import registry
from trainer.registry.registry import Registry


def fill(folder):
    (folder / "weights.safetensors").write_bytes(b"w" * 100)
    (folder / "config.json").write_text("{}")


@pytest.fixture()
def models(tmp_path):
    models = Registry(tmp_path)
    for _ in range(3):
        models.register("demo", fill)
    return models


def test_versions_count_up_and_are_found_by_number_and_alias(models):
    assert [version.number for version in models.versions("demo")] == [1, 2, 3]
    models.promote(models.find("demo@2"))
    models.promote(models.find("demo@3"), "shadow")
    assert models.find("demo").number == models.find("demo@champion").number == 2
    assert models.find("demo@shadow").ref == "demo@3"


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("demos", "did you mean 'demo'"),
        ("../demo", "no model"),
        ("demo@9", "no version 9"),
        ("demo@", "has no version after the @"),
        ("demo@champion", "no alias 'champion'"),
        ("demo", "no alias 'champion'"),
    ],
)
def test_unknown_references(models, ref, message):
    with pytest.raises(ModelError, match=message):
        models.find(ref)


def test_rollback_goes_back_step_by_step(models):
    for number in (1, 2, 3):
        models.promote(models.find(f"demo@{number}"))
    assert models.rollback("demo").number == 2
    assert models.rollback("demo").number == 1
    with pytest.raises(ModelError, match="no earlier version"):
        models.rollback("demo")
    models.promote(models.find("demo@3"), evidence={"reason": "better"})
    assert models.find("demo").number == 3
    assert models.moves("demo")[-1]["evidence"] == {"reason": "better"}


@pytest.mark.parametrize("alias", ["7", "Champion", "../x", ""])
def test_invalid_aliases(models, alias):
    with pytest.raises(ModelError, match="cannot be an alias"):
        models.promote(models.find("demo@1"), alias)


def damage_byte(folder):
    (folder / "weights.safetensors").write_bytes(b"w" * 99 + b"x")


def cut(folder):
    (folder / "weights.safetensors").write_bytes(b"w" * 50)


def remove(folder):
    (folder / "config.json").unlink()


def add(folder):
    (folder / "extra.bin").write_text("")


def cut_manifest(folder):
    path = folder / registry.MANIFEST_FILE
    path.write_text(path.read_text()[:-20])


def wrong_manifest(folder):
    (folder / registry.MANIFEST_FILE).write_text("[]")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_byte, "is damaged"),
        (cut, "is damaged"),
        (remove, "is missing"),
        (add, "not in the manifest"),
        (cut_manifest, "missing or damaged"),
        (wrong_manifest, "missing or damaged"),
    ],
)
def test_a_changed_version_is_refused(models, damage, message):
    version = models.find("demo@1")
    registry.verify_files(version)
    damage(version.folder)
    with pytest.raises(ModelError, match=message):
        registry.verify_files(version)
    with pytest.raises(ModelError, match=message):
        models.promote(version)


def test_a_registration_that_fails_leaves_nothing(models):
    def fill_and_fail(folder):
        fill(folder)
        raise RuntimeError("cut short")

    with pytest.raises(RuntimeError):
        models.register("demo", fill_and_fail)
    assert [path.name for path in (models.root / "demo" / "versions").iterdir() if not path.name.isdigit()] == []
    assert len(models.versions("demo")) == 3


def test_versions_registered_at_the_same_time_get_numbers_of_their_own(models):
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda _: models.register("demo", fill).number, range(16)))
    assert sorted(numbers) == list(range(4, 20))


def test_aliases_moved_at_the_same_time_are_all_stored(models):
    version = models.find("demo@1")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: models.promote(version, f"alias{n}a"), range(16)))
    assert len(models.aliases("demo")) == 16


def test_a_number_that_an_alias_ever_pointed_to_is_not_reused(models):
    import shutil

    models.promote(models.find("demo@3"))
    shutil.rmtree(models.find("demo@3").folder)
    assert models.register("demo", fill).number == 4
    with pytest.raises(ModelError, match="no version 3"):
        models.find("demo@champion")


def test_promoting_the_same_version_twice_is_one_step_back(models):
    for number in (1, 2, 2):
        models.promote(models.find(f"demo@{number}"))
    assert models.rollback("demo").number == 1


def test_an_alias_moves_only_from_what_it_was_compared_with(models):
    one, two, three = models.versions("demo")
    assert models.promote(one, expected=None)
    assert not models.promote(two, expected=None)
    assert models.promote(three, expected=1)
    assert models.find("demo").number == 3


def test_leftovers_of_a_killed_registration_are_swept_after_a_day(models):
    import os

    for name in (".9.0123abcd", ".keep"):
        (models.root / "demo" / "versions" / name).mkdir()
        os.utime(models.root / "demo" / "versions" / name, (0, 0))
    models.register("demo", fill)
    assert sorted(p.name for p in (models.root / "demo" / "versions").iterdir()) == [".keep", "1", "2", "3", "4"]


def test_damaged_aliases_and_metrics_are_named(models):
    with pytest.raises(ModelError, match=r"metrics.json is missing or damaged"):
        _ = models.find("demo@1").metrics
    with pytest.raises(ModelError, match="no alias '\u00b2'"):
        models.find("demo@\u00b2")
    (models.root / "demo" / "aliases.json").write_text("[")
    with pytest.raises(ModelError, match=r"aliases.json is damaged"):
        models.aliases("demo")
