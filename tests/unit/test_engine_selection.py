"""The engine that a replica starts with, before any engine was measured."""

import pytest

from serve.engines.selection import SelectedEngine, current_engine
from support.local_training import train_in_process
from support.tiny_table import make_table_rows, table_spec, write_rows
from trainer.registry import register
from trainer.runs.result import RunResult
from trainer.spec.serve import ServeSpec
from trainer.tasks.load_spec import load_spec


@pytest.fixture
def table_version(tmp_path):
    write_rows(tmp_path / "train.csv", make_table_rows(80, seed=1))
    write_rows(tmp_path / "test.csv", make_table_rows(40, seed=2))
    spec = table_spec(tmp_path, model={"kind": "logistic_regression"})
    done = train_in_process(spec, tmp_path / "run")
    result = RunResult(done.best, load_spec(spec), done.prepared.folder, {}, [], tmp_path / "run")
    return register.register_candidate(result, tmp_path / "storage")


def test_nothing_is_measured_for_an_estimator(table_version):
    assert current_engine(table_version, ServeSpec()) == SelectedEngine("native")
    assert current_engine(table_version, ServeSpec(engine="auto-latency")) == SelectedEngine("native")
    assert current_engine(table_version, ServeSpec(engine="onnx-fp32")) is None  # built, or refused with the reason
