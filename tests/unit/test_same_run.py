"""A finished run that a new one would repeat."""

import pytest

import raymill
from support.tiny_table import make_table_rows, table_spec, write_rows

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a tiny table, and the outcome of a run on it."""
    folder = tmp_path_factory.mktemp("same_run")
    write_rows(folder / "train.csv", make_table_rows(200, 1))
    write_rows(folder / "test.csv", make_table_rows(60, 2))
    return folder, raymill.run(spec_of(folder))


def spec_of(folder, **sections):
    return table_spec(folder, **sections)


def test_prepare_names_the_run_that_a_new_one_would_repeat(finished):
    folder, outcome = finished
    assert raymill.prepare(spec_of(folder)).same_run == outcome.run.rpartition("/")[2]


@pytest.mark.parametrize("sections", [{"train": {"epochs": 3}}, {"train": {"seed": 7}}, {"name": "another"}])
def test_another_spec_gives_another_result(finished, sections):
    assert raymill.prepare(spec_of(finished[0], **sections)).same_run is None


def test_keys_without_effect_on_the_model_do_not_count(finished):
    folder, outcome = finished
    same = raymill.prepare(spec_of(folder, serve={"replicas": 3}, deploy={"gpu_type": "L4"})).same_run
    assert same == outcome.run.rpartition("/")[2]


def test_new_rows_are_no_repetition(finished, tmp_path):
    folder, _ = finished
    copy = tmp_path / "data"
    copy.mkdir()
    write_rows(copy / "train.csv", make_table_rows(201, 1))
    write_rows(copy / "test.csv", make_table_rows(60, 2))
    spec = spec_of(copy, storage=str(spec_of(folder)["storage"]))
    assert raymill.prepare(spec).same_run is None


def test_a_run_if_changed_trains_nothing_without_new_rows(finished):
    folder, outcome = finished
    again = raymill.run(spec_of(folder), if_changed=True)
    assert again.same_run == outcome.run.rpartition("/")[2] and again.version is None
    assert [version["version"] for version in raymill.models(storage=spec_of(folder)["storage"])] == [1]
