"""examples/breast_cancer and examples/diabetes, run as their READMEs say, and a table behind HTTP."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from cluster.ports import free_port
from support.commands import ROOT, RunningCommand, run_raymill


def run_example(tmp_path_factory: pytest.TempPathFactory, name: str, *options: str) -> tuple[Path, dict]:
    """Make the example's data in a copy of its folder, run its spec, and return the folder and the outcome."""
    folder = tmp_path_factory.mktemp(name)
    for file in ("make_data.py", "run.yaml"):
        shutil.copy(ROOT / "examples" / name / file, folder)
    subprocess.run([sys.executable, folder / "make_data.py"], capture_output=True, check=True)
    done = run_raymill("run", folder / "run.yaml", "--set", f"storage={folder / 'storage'}", *options, "--json")
    assert done.code == 0, done
    return folder, json.loads(done.stdout)


@pytest.fixture(scope="module")
def breast_cancer(tmp_path_factory):
    """The folder and the outcome of a search over four kinds of model with one trial each."""
    grid = "{model.kind: {choice: [logistic_regression, random_forest, xgboost, mlp]}}"
    return run_example(
        tmp_path_factory, "breast_cancer", "--set", f"tune={{algorithm: grid, scheduler: none, space: {grid}}}"
    )


@pytest.fixture(scope="module")
def url(breast_cancer):
    storage = breast_cancer[0] / "storage"
    server = RunningCommand("-m", "raymill", "serve", "breast_cancer", "--storage", storage, "--port", free_port())
    try:
        yield server.wait_for_line("listening on").split()[-1]
    finally:
        server.terminate()


@pytest.fixture(scope="module")
def held_out(breast_cancer):
    with (breast_cancer[0] / "data/test.csv").open() as file:
        return list(csv.DictReader(file))


def features_of(row: dict) -> dict:
    return {name: float(value) for name, value in row.items() if name != "diagnosis"}


def test_a_search_over_kinds_picks_the_best_by_cross_validation(breast_cancer):
    folder, outcome = breast_cancer
    assert outcome["promoted"] and outcome["metrics"]["test"]["roc_auc"] > 0.98
    assert outcome["metrics"]["test"]["accuracy"] > 0.93
    assert 0 < outcome["metrics"]["validation"]["roc_auc_std"] < 0.05
    [page] = (folder / "storage/runs").glob("*/report.html")
    text = page.read_text(encoding="utf-8")
    for word in (
        "Trials",
        "random_forest",
        "logistic_regression",
        "mlp",
        "xgboost",
        "Importance of the columns",
        "ROC",
    ):
        assert word in text, word
    version = folder / "storage/models/breast_cancer/versions/1"
    names = {path.name for path in version.iterdir()}
    assert {"estimator.json", "contract.json", "golden.json", "profile.json", "lineage.json"} <= names
    assert not {path.suffix for path in version.iterdir()} & {".pkl", ".joblib", ".pt", ".bin"}
    profile = json.loads((version / "profile.json").read_text())
    assert len(profile["importance"]["columns"]) == len(profile["columns"]["columns"]) == 30
    assert "skops" in json.loads((version / "lineage.json").read_text())["libraries"]


def test_rows_as_objects_are_answered(url, held_out):
    request = {"inputs": [features_of(row) for row in held_out[:50]]}
    answers = httpx.post(f"{url}/predict", json=request, timeout=30).json()["predictions"]
    is_right = [answer["label"] == row["diagnosis"] for answer, row in zip(answers, held_out, strict=False)]
    assert sum(is_right) >= 45
    assert all(set(answer["scores"]) == {"benign", "malignant"} for answer in answers)
    page = httpx.get(f"{url}/docs").text
    assert "mean_radius" in page


@pytest.mark.parametrize(
    ("change", "status", "code", "words"),
    [
        ({"mean_aera": 1.0}, 422, "wrong_columns", "inputs[0]: unknown column 'mean_aera': did you mean 'mean_area'?"),
        ({"mean_area": "large"}, 422, "refused_input", "inputs[0] cannot be used: mean_area: 'large' is not a number"),
        ({"mean_area": True}, 422, "refused_input", "mean_area: true is not a number"),
        ({"mean_area": [1.0]}, 422, "wrong_type", "inputs[0]: column 'mean_area' is a list"),
        ({"mean_area": 10**400}, 422, "refused_input", "mean_area"),
        ("a text", 422, "wrong_type", "inputs[0]: 'a text' is not an object with the columns mean_radius"),
        ({"mean_area": float("nan")}, 400, "invalid_json", "NaN is not a JSON value"),
        (None, 422, "wrong_columns", "inputs[0]: no column 'mean_area' (null if it is missing)"),
    ],
)
def test_wrong_rows_are_named(url, held_out, change, status, code, words):
    row = features_of(held_out[0])
    if change is None:
        row.pop("mean_area")
    sent = {**row, **change} if isinstance(change, dict) else change or row
    answer = httpx.post(f"{url}/predict", content=json.dumps({"inputs": [sent]}), timeout=30)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code) and words in error["message"]


def test_a_missing_value_and_a_number_as_text_are_fine(url, held_out):
    row = features_of(held_out[0])
    inputs = [{**row, "mean_area": None}, {**row, "mean_area": str(row["mean_area"])}, row]
    answers = httpx.post(f"{url}/predict", json={"inputs": inputs}, timeout=30).json()["predictions"]
    assert answers[1] == answers[2] and answers[0]["label"] == answers[2]["label"]
    # No training row lacked the value, so the request that does is counted.
    lines = httpx.get(f"{url}/metrics", timeout=30).text.splitlines()
    counts = {line.split()[1] for line in lines if "unseen_values_total" in line and 'column="mean_area"' in line}
    assert counts == {"1.0"}


def test_diabetes_is_trained_and_predicted_without_a_search(tmp_path_factory):
    folder, outcome = run_example(tmp_path_factory, "diabetes", "--set", "tune=null")
    assert 0.3 < outcome["metrics"]["test"]["r2"] < 0.7 and outcome["metrics"]["test"]["rmse"] < 65
    assert outcome["metrics"]["validation"]["rmse_std"] > 0
    output = folder / "out.csv"
    storage = folder / "storage"
    with (folder / "data/test.csv").open() as file:
        rows = list(csv.DictReader(file))
    rows[0]["bmi"] = ""  # no training row lacks it
    with (folder / "asked.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    done = run_raymill("predict", "diabetes", folder / "asked.csv", "-o", output, "--storage", storage, "--json")
    assert done.code == 0 and json.loads(done.stdout)["unseen_values"] == {"bmi": 1}, done
    with output.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 88 and all(25 < float(row["prediction"]) < 350 and not row["error"] for row in rows)
    assert "Predictions and errors" in Path(outcome["report"]).read_text(encoding="utf-8")
