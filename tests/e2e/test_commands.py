"""The commands as a user types them: what they print, where, and their exit codes."""

import json
import subprocess
import sys
from pathlib import Path

from support.commands import ROOT, run_raymill
from trainer.spec.run import RunSpec


def test_run_prints_one_json_object_and_nothing_else(first_run):
    assert first_run["model"] == "tiny" and first_run["version"] == 1 and first_run["promoted"] is True
    assert len(first_run["fingerprint"]) == 64
    assert {"accuracy", "macro_f1", "weighted_f1", "roc_auc", "log_loss", "calibration_error"} <= set(
        first_run["metrics"]["test"]
    )
    assert set(first_run["stages"]) == {"prepare", "train", "evaluate", "register"}  # a small run starts no Ray


def test_the_run_folder_has_all_files(first_run):
    folder = Path(first_run["run"])
    names = {path.name for path in folder.iterdir()}
    assert {"spec.yaml", "best.yaml", "result.json", "report.html", "ray.log", "history.jsonl"} <= names
    assert json.loads((folder / "result.json").read_text())["version"] == 1


def test_prepare_reuses_the_rows_of_the_run_without_starting_ray(first_run, spec_file):
    done = run_raymill("prepare", spec_file, "--json")
    outcome = json.loads(done.stdout)
    assert done.code == 0 and outcome["fingerprint"] == first_run["fingerprint"]
    assert "ray" not in outcome["stages"] and outcome["stages"]["prepare"] < 1.0


def test_train_and_tune_print_the_parts_that_apply(first_run, spec_file):
    done = run_raymill("train", spec_file, "--set", "train.epochs=1", "--json")
    outcome = json.loads(done.stdout)
    assert done.code == 0 and "version" not in outcome and outcome["metrics"]["validation"]["accuracy"] > 0
    assert outcome["checkpoint"]
    space = "tune={trials: 2, space: {train.learning_rate: {uniform: [0.001, 0.005]}}}"
    done = run_raymill("tune", spec_file, "--set", space, "--set", "train.epochs=1", "--json")
    assert done.code == 0, done
    best = json.loads(done.stdout)
    # `raymill train` takes the winner's spec unchanged.
    plan = run_raymill("plan", f"{best['run']}/best.yaml", "--json")
    assert plan.code == 0 and json.loads(plan.stdout)["stages"][1]["stage"] == "train"


def test_evaluate_models_and_predict(first_run, storage, tiny_data, tmp_path):
    done = run_raymill("evaluate", "tiny@1", "--storage", storage, "--json")
    assert json.loads(done.stdout)["metrics"]["test"]["accuracy"] == first_run["metrics"]["test"]["accuracy"]
    done = run_raymill(
        "predict", "tiny", tiny_data / "test.csv", "-o", tmp_path / "out.jsonl", "--storage", storage, "--json"
    )
    assert json.loads(done.stdout)["predicted"] == 210
    done = run_raymill("models", "list", "--storage", storage, "--json")
    [version] = json.loads(done.stdout)["models"]
    assert (version["model"], version["version"], version["aliases"]) == ("tiny", 1, ["champion"])
    done = run_raymill("models", "--storage", storage)
    assert done.code == 0 and "tiny@1" in done.stderr
    done = run_raymill("models", "show", "tiny@1", "--storage", storage)
    assert done.code == 0 and "model" in done.stdout and "torch" in done.stdout
    done = run_raymill("models", "promote", "tiny@1", "--alias", "shadow", "--storage", storage)
    assert (done.code, done.stdout) == (0, "tiny@shadow is now tiny@1\n")


def test_plan_schema_doctor_help_and_version(spec_file):
    done = run_raymill("plan", spec_file)
    assert done.code == 0 and "it fits" in done.stdout
    assert json.loads(run_raymill("schema").stdout) == RunSpec.model_json_schema()
    done = run_raymill("doctor", "--json")
    assert done.code == 0 and json.loads(done.stdout)["ok"]
    for command in (
        "",
        "run",
        "plan",
        "prepare",
        "train",
        "tune",
        "evaluate",
        "predict",
        "models",
        "serve",
        "schema",
        "doctor",
    ):
        done = run_raymill(*command.split(), "--help")
        assert done.code == 0 and "Usage:" in done.stdout, command


def test_the_modules_work_from_a_bare_working_directory(tmp_path, spec_file):
    """As with `ray job submit --working-dir .`: the folder is copied, and nothing in it is installed."""
    import shutil

    for name in ("raymill", "cluster", "trainer", "tune", "serve"):
        shutil.copytree(ROOT / name, tmp_path / name)
    code = "import raymill, trainer; print(raymill.__file__); print(trainer.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert all(line.startswith(str(tmp_path)) for line in done.stdout.splitlines())
    assert run_raymill("plan", spec_file, cwd=tmp_path, PYTHONPATH="").code == 0
