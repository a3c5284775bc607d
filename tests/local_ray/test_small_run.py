"""A small run, which starts no Ray, has the same results as the same run through Ray, byte for byte."""

import hashlib
import json

import pytest

import raymill
from support.commands import run_raymill
from support.tiny_table import make_table_rows, table_spec, write_rows
from support.tiny_text import tiny_spec, write_spec

# The lineage, the manifest and the spec name the run and its storage folder.
_OWN_TO_A_RUN = {"lineage.json", "manifest.json", "spec.yaml"}


@pytest.fixture
def table_folder(tmp_path):
    write_rows(tmp_path / "train.csv", make_table_rows(200, seed=1))
    write_rows(tmp_path / "test.csv", make_table_rows(60, seed=2))
    return tmp_path


def table(folder, kind, task, **train):
    return table_spec(folder, task, model={"kind": kind}, train=train)


@pytest.fixture(params=["linear_regression", "mlp", "text"])
def spec(request, table_folder, tiny_base, tiny_data):
    """A spec, and the file to predict."""
    if request.param == "linear_regression":
        return table(table_folder, "linear_regression", "tabular-regression", folds=3), table_folder / "test.csv"
    if request.param == "mlp":
        train = {"epochs": 3, "batch_size": 16, "learning_rate": 1e-2}
        return table(table_folder, "mlp", "tabular-classification", **train), table_folder / "test.csv"
    train = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3}
    return tiny_spec(tiny_base, tiny_data, table_folder / "storage", train=train), tiny_data / "test.csv"


def test_the_same_bytes(spec, tmp_path):
    spec, rows = spec
    spec = {**spec, "cluster": {"cpus": 2}}
    through_ray = raymill.run({**spec, "storage": str(tmp_path / "ray")})
    raymill.predict(spec["name"], str(rows), tmp_path / "ray.csv", storage=tmp_path / "ray")

    file = write_spec(tmp_path / "run.yaml", {**spec, "storage": str(tmp_path / "small")})
    done = run_raymill("run", file, "--json")
    assert done.code == 0, done
    predicted = run_raymill(
        "predict", spec["name"], rows, "-o", tmp_path / "small.csv", "--storage", tmp_path / "small"
    )
    assert predicted.code == 0, predicted

    small = json.loads(done.stdout)
    assert "ray" not in small["stages"], "the run started Ray"
    assert small["metrics"] == through_ray.metrics
    assert digests(tmp_path / "small", spec["name"]) == digests(tmp_path / "ray", spec["name"])
    assert (tmp_path / "small.csv").read_bytes() == (tmp_path / "ray.csv").read_bytes()


def digests(storage, name):
    folder = storage / "models" / name / "versions" / "1"
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name not in _OWN_TO_A_RUN
    }
