"""A user's own serve.py or trainer.py does not hide raymill's packages, or the error names the file that does."""

import subprocess
import sys
from pathlib import Path

import pytest

from cluster.import_guard import PACKAGES, hiding_files, job_environment

ROOT = Path(__file__).parents[2]


def python(code, folder):
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def folder(tmp_path):
    """A working directory with a file for each of the four names."""
    (tmp_path / "cluster").mkdir()
    for name in ("trainer.py", "serve.py", "tune.py", "cluster/__init__.py"):
        (tmp_path / name).write_text("OWNER = 'the user'\n")
    return tmp_path


def test_raymill_comes_first(folder):
    done = python("import raymill, cluster, trainer, tune, serve; print(cluster.__file__, serve.__file__)", folder)
    assert done.stdout.split() == [str(ROOT / "cluster" / "__init__.py"), str(ROOT / "serve" / "__init__.py")], (
        done.stderr
    )


@pytest.mark.parametrize("name", PACKAGES)
def test_a_file_that_was_imported_before_is_named(folder, name):
    done = python(f"import {name}, raymill", folder)
    assert done.returncode == 1
    file = folder / "cluster" / "__init__.py" if name == "cluster" else folder / f"{name}.py"
    assert f"{file} was imported as '{name}'" in done.stderr and "rename that file" in done.stderr


def test_workers_get_a_guard_only_where_a_file_would_hide_a_package(folder, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
    assert hiding_files() == [] and job_environment() == {}
    monkeypatch.chdir(folder)
    assert sorted(Path(file).relative_to(folder).parts[0].removesuffix(".py") for file in hiding_files()) == sorted(
        PACKAGES
    )
    assert list(job_environment()) == ["worker_process_setup_hook"]


def test_a_folder_without_an_init_file_hides_nothing(tmp_path, monkeypatch):
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "notes.txt").write_text("a folder of the user's")
    monkeypatch.chdir(tmp_path)
    assert hiding_files() == []


def test_beside_a_setup_hook_of_the_users_job_the_file_is_named(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR", "mine.hook")
    with pytest.raises(ImportError, match=r"cluster/__init__.py hides one of raymill's packages.*rename"):
        job_environment()
