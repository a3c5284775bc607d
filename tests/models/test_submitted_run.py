"""What a submitted job does on the cluster, without a cluster: the command that is its entrypoint, in its package."""

import json
from pathlib import Path

import pytest

from cluster.jobs.events import read_event
from cluster.jobs.package import write_package
from raymill.submission_plan import JOB_FILE, plan_submission
from support.commands import run_raymill
from support.submit_project import make_project, version_digests
from trainer.tasks.load_spec import load_spec


@pytest.fixture
def package(tiny_base, tiny_data, tmp_path, monkeypatch):
    """The folder in which Ray starts the job: the unpacked files of a submission."""
    import zipfile

    project = make_project(tmp_path / "project", tiny_base, tiny_data, tmp_path / "storage")
    monkeypatch.chdir(project)
    plan = plan_submission(load_spec("run.yaml"), project, 10_000_000, starts_new=False, columns=100)
    write_package(tmp_path / "job.zip", plan.files)
    with zipfile.ZipFile(tmp_path / "job.zip") as packed:
        packed.extractall(tmp_path / "package")
    return tmp_path / "package"


def run_job(package):
    """Run the job; return its exit code, the lines for people, and the events."""
    done = run_raymill("run-job", JOB_FILE, cwd=package)
    lines = (done.stderr + done.stdout).splitlines()
    events = [event for line in lines if (event := read_event(line))]
    return done.code, [line for line in lines if not read_event(line)], events


def test_it_stores_what_travelled_and_runs_the_spec_as_a_command_here_does(package, tmp_path):
    code, lines, events = run_job(package)
    assert code == 0, lines
    result = events[-1].value
    assert result["version"] == 1 and result["lines"][0].startswith("tiny@1 ")
    stages = [event.value.stage for event in events if event.kind == "progress"]
    assert list(dict.fromkeys(stages)) == ["prepare", "train", "evaluate"]
    assert [line.split()[0] for line in lines if line.endswith(" s")] == [*dict.fromkeys(stages), "register"]
    (stored,) = (tmp_path / "storage" / "inputs").iterdir()
    assert sorted(path.name for path in (stored / "data").iterdir()) == ["test.csv", "train.csv"]
    spec = load_spec(Path(result["run"]) / "spec.yaml")
    assert spec.data.train == str(stored / "data" / "train.csv") and spec.cluster.address is None

    done = run_raymill("run", "run.yaml", "--storage", tmp_path / "here", "--json", cwd=tmp_path / "project")
    assert json.loads(done.stdout)["metrics"] == result["metrics"]
    assert version_digests(tmp_path / "storage", "tiny") == version_digests(tmp_path / "here", "tiny")


def test_an_error_is_the_result_and_the_exit_code(package):
    (package / "data" / "train.csv").write_text("text,label\nalone,fruit\n")
    code, lines, events = run_job(package)
    assert code == 2 and any(line.startswith("error: training needs at least 2 classes") for line in lines), lines
    assert events[-1].kind == "result" and "at least 2 classes" in events[-1].value["error"]
