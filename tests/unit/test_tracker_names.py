"""Names for trackers: MLflow's own rules accept what `allowed_names` returns, and a real store takes a whole spec."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.spec.run import RunSpec
from trainer.training.tracking import mlflow as tracking
from trainer.training.tracking.names import allowed_names

ODD = [
    "price (EUR)",
    "price [EUR]",
    "a//b",
    "/a",
    "../a",
    "..",
    ".",
    "",
    "größe",
    "包裹",
    "%",
    "a\nb",
    "x" * 400,
    "km/h",
    "a=b",
]


def allowed(names):
    return allowed_names(names, tracking._REFUSED, tracking._MAX_NAME_LENGTH)


def test_names_that_mlflow_takes_stay_and_others_differ():
    names = allowed(["train/loss", "price _EUR_", "price (EUR)", "price [EUR]", "a b"])
    assert names == {
        "train/loss": "train/loss", "price _EUR_": "price _EUR_", "price (EUR)": "price _EUR__2",
        "price [EUR]": "price _EUR__3", "a b": "a b",
    }  # fmt: skip


@pytest.mark.slow
@given(st.lists(st.text(max_size=300) | st.sampled_from(ODD), max_size=6))
def test_mlflow_takes_every_name(names):
    validation = pytest.importorskip("mlflow.utils.validation")
    result = allowed(names)
    assert list(result) == list(dict.fromkeys(names)) and len(set(result.values())) == len(result)
    for name in result.values():
        validation._validate_param(name, "value")
        validation._validate_metric(name, 1.0, 1, 1)


def spec_of(folder, **data):
    track = {"mlflow": {"uri": f"sqlite:///{folder}/mlflow.db"}}
    return RunSpec.model_validate({"name": "x", "data": {"train": "t.csv", **data}, "track": track})


@pytest.mark.slow
def test_a_real_store_takes_all_parameters_and_metrics_but_those_it_refuses(tmp_path, monkeypatch):
    client_of = pytest.importorskip("mlflow").MlflowClient
    monkeypatch.chdir(tmp_path)
    features = {name: "numeric" for name in ODD if name}
    spec = spec_of(tmp_path, features=features)
    notices = []
    tracker = tracking.start(spec, tmp_path, notices.append)
    tracker.log(1, {"validation/f1 (EUR)": 0.5, "train/loss": 2.0})
    tracker.log(2, {"train/loss": float("nan")})
    tracker.close()
    client = client_of(tracking_uri=spec.track.mlflow.uri)
    [run] = client.search_runs([client.get_experiment_by_name("x").experiment_id])
    assert run.data.params["data.features.price _EUR_.kind"] == "numeric" and run.data.params["name"] == "x"
    assert run.data.metrics["validation/f1 _EUR_"] == 0.5
    assert run.info.status == "FINISHED"
    assert any("'data.features.price (EUR).kind' as 'data.features.price _EUR_.kind'" in text for text in notices)


@pytest.mark.slow
def test_a_refused_parameter_is_left_out_alone(tmp_path, monkeypatch):
    entities = pytest.importorskip("mlflow.entities")
    monkeypatch.chdir(tmp_path)
    spec = spec_of(tmp_path)
    client = tracking._client(spec)
    run_id = tracking._ensure_run(client, spec, tmp_path, lambda text: None)
    items = [entities.Param("own", "1"), entities.Param("refused (here)", "2"), entities.Param("last", "3")]
    assert tracking._log_batch(client, run_id, "params", items) == ["refused (here)"]
    params = client.get_run(run_id).data.params
    assert params["own"] == "1" and params["last"] == "3"
    # A parameter that has another value in the store already, as after a change of the spec before `--resume`.
    assert tracking._log_batch(
        client, run_id, "params", [entities.Param("own", "other"), entities.Param("new", "4")]
    ) == ["own"]
    assert client.get_run(run_id).data.params["new"] == "4"
