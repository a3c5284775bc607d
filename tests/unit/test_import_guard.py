"""A user's own serve.py or trainer.py does not hide raymill's packages, or the error names the file that does."""

import subprocess
import sys
from pathlib import Path

import pytest

from cluster import import_guard
from cluster.import_guard import PACKAGES, hidden_names, hiding_files, job_environment

ROOT = Path(__file__).parents[2]


#: Names of modules that users have, and that raymill, Ray or Python's own modules import late.
OFTEN = ("emoji", "json", "pandas", "pathlib", "ray", "sklearn", "torch", "types")


def python(code, folder, option="-c", *arguments):
    command = [sys.executable, option, code, *arguments]
    return subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120
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


@pytest.fixture
def names(tmp_path):
    """A working directory with a module for each name in `OFTEN`, and modules that hide nothing."""
    for name in (*OFTEN, "colorsys", "my_project"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError(f'the user\\'s file {__file__} was imported')\n")
    (tmp_path / "xgboost").mkdir()
    (tmp_path / "xgboost" / "__init__.py").write_text("raise RuntimeError")
    (tmp_path / "datasets").mkdir()  # a folder of files
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "__init__.py").write_text("")
    (tmp_path / "numpy.txt").write_text("")
    (tmp_path / "numpy.old.py").write_text("")
    return tmp_path


def test_users_files_that_hide_installed_modules_are_listed(names, monkeypatch):
    for name in (*OFTEN, "xgboost"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    listed = hidden_names([str(names)])
    optional = {"emoji", "xgboost"}  # they are not among raymill's dependencies
    assert {*OFTEN, "colorsys"} - optional <= set(listed) <= {*OFTEN, "colorsys", "xgboost"}
    monkeypatch.chdir(names)
    assert list(job_environment()) == ["worker_process_setup_hook"]
    monkeypatch.setenv("__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR", "mine.hook")
    with pytest.raises(ImportError, match=f"a file '{listed[0]}' in {names} hides an installed module.*rename"):
        job_environment()


def test_a_users_module_that_was_imported_stays(names, monkeypatch):
    (names / "colorsys.py").write_text("MINE = True")
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    assert "colorsys" in hidden_names([str(names)])
    monkeypatch.syspath_prepend(str(names))
    import colorsys

    assert colorsys.MINE and "colorsys" not in hidden_names([str(names)])
    monkeypatch.delitem(sys.modules, "colorsys")


@pytest.mark.slow
def test_installed_modules_come_first_in_a_worker(names):
    """Ray puts the working directory on the path after the hook has run."""
    (names / "raymill.py").write_text("raise RuntimeError('own raymill')")
    code = (
        "import sys; sys.path.pop(0)\n"
        "from cluster import import_guard as guard\n"
        f"folders = [{str(names)!r}]\n"
        "guard._worker_hook(guard.hidden_names(folders), folders)()\n"
        "sys.path.insert(0, folders[0])\n"
        "import colorsys, sklearn, raymill\n"
        "try:\n    import my_project\nexcept RuntimeError as error:\n    print('own:', error)\n"
        "print(raymill.__file__)"
    )
    done = python(code, names)
    assert "own: the user's file" in done.stdout and str(ROOT / "raymill" / "__init__.py") in done.stdout, done.stderr


@pytest.mark.slow
def test_the_command_imports_installed_modules(names):
    (names / "cluster.py").write_text("raise RuntimeError('own cluster')")
    done = python("raymill", names, "-m", "tasks", "--json")
    assert done.returncode == 0 and '"tasks"' in done.stdout, done.stderr


def test_a_python_with_a_space_in_its_path_is_quoted_for_rays_shell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for python_path, quoted in [("/a b/python", "'/a b/python'"), ("/a$b/python", "'/a$b/python'")]:
        monkeypatch.setattr(import_guard.sys, "executable", python_path)
        assert job_environment() == {"py_executable": quoted}
