"""Functions of the user: only from the user's own modules, only the pinned source, and always the newest one."""

import hashlib
import importlib
import os
import py_compile
import sys
import sysconfig
from pathlib import Path

import pytest

from cluster.errors import ModelError, SpecError
from trainer.contract.contract import Contract, Step
from trainer.contract.user_code import _check_not_installed, find_source, load_user_object
from trainer.steps import custom
from trainer.steps.cleaner import Cleaner


def digest_of(path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def contract_with(path, digest):
    step = Step(name="python", params={"function": path, "source_sha256": digest})
    return Contract(task="text-classification", columns={}, steps=[step], fitted={}, files={})


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a module into the working directory; imported modules are removed from `sys.modules` afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def write(name, text):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    yield write
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def make_step(path):
    return custom.make({"function": path, "source_sha256": find_source(path).digest})


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("subprocess:getoutput", "part of Python"),
        ("os:system", "part of Python"),
        ("importlib.util:find_spec", "part of Python"),
        ("sys:exit", "part of Python"),
        ("builtins:eval", "part of Python"),
        ("__main__:main", "part of Python"),
        ("cluster.text:is_unicode", "part of raymill"),
        ("raymill:predict", "part of raymill"),
        ("trainer.steps.strip_html:visible_text", "part of raymill"),
        ("numpy:array", "in an installed package"),
        ("yaml:load", "in an installed package"),
        ("torch.hub:load", "in an installed package"),
        ("../../evil:run", "is not a valid module:name"),
        ("my_steps:__import__('os')", "is not a valid module:name"),
        ("my_steps", "is not a valid module:name"),
    ],
)
def test_what_is_not_the_users_is_refused_by_training_and_by_a_model(tmp_path, path, message):
    with pytest.raises(SpecError, match=message):
        custom.pin_function(path, tmp_path)
    assert list(tmp_path.iterdir()) == []
    module = sys.modules.get(path.partition(":")[0])
    digest = digest_of(module.__file__) if getattr(module, "__file__", None) else "0" * 64
    with pytest.raises(ModelError, match=message) as caught:
        Cleaner(contract_with(path, digest))
    assert "of your working directory" in caught.value.fix or "is not a valid" in message


def test_a_contract_without_its_keys_is_refused():
    for params in ({}, {"function": "my_steps:clean"}, {"source_sha256": "0" * 64}, {"function": 7}):
        with pytest.raises(ModelError):
            custom.make(params)


def test_nothing_runs_before_the_digest_is_compared(write, tmp_path):
    for name in ("trap.py", "pack/__init__.py", "pack/trap.py", "bare/trap.py"):
        write(name, "open('ran', 'w').close()\n\n\ndef clean(text):\n    return text\n")
    for path in ("trap:clean", "pack.trap:clean", "pack:clean", "bare.trap:clean"):
        with pytest.raises(ModelError, match="is not the source"):
            Cleaner(contract_with(path, "0" * 64))
        assert not (tmp_path / "ran").exists()
        assert make_step(path)("a") == "a"
        (tmp_path / "ran").unlink()


def test_modules_of_packages_and_of_folders(write, tmp_path):
    write("pack/__init__.py", "MARK = 'p'\n")
    write("pack/deep/__init__.py", "from ..deep import below\n")
    write("pack/deep/below.py", "from .. import MARK\n\n\ndef clean(text):\n    return text + MARK\n")
    assert make_step("pack.deep.below:clean")("a") == "ap"
    params, files = custom.pin_function("pack.deep.below:clean", tmp_path)
    assert files == {"step_pack.deep.below.py": params["source_sha256"]}
    assert importlib.import_module("pack.deep.below").clean("a") == "ap"
    with pytest.raises(SpecError, match="no module 'pack.deep.beneath'"):
        make_step("pack.deep.beneath:clean")


@pytest.mark.parametrize("folder", ["site-packages", "dist-packages"])
def test_folders_of_installed_packages_wherever_they_are(tmp_path, monkeypatch, folder):
    there = tmp_path / "lib" / folder
    (there / "inner").mkdir(parents=True)
    (there / "somebodys.py").write_text("def clean(text):\n    return text\n")
    (there / "inner" / "module.py").write_text("def clean(text):\n    return text\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(there))
    for path in ("somebodys:clean", "inner.module:clean"):
        with pytest.raises(SpecError, match="in an installed package"):
            find_source(path)
    (tmp_path / "linked.py").symlink_to(there / "somebodys.py")  # a link does not make it the user's
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SpecError, match="in an installed package"):
        find_source("linked:clean")


def test_what_has_no_source_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "compiled_only.pyc").write_bytes(b"")
    with pytest.raises(SpecError, match="is not written in Python"):
        find_source("compiled_only:clean")
    (tmp_path / "empty_folder").mkdir()
    with pytest.raises(SpecError, match="no module 'empty_folder'"):
        find_source("empty_folder:clean")


def test_an_edited_module_is_loaded_again(write):
    """The new source has the same length and time. Neither the loaded module nor Python's .pyc file may be used."""
    file = write("my_own.py", "def clean(text):\n    return text + '1'\n")
    times = file.stat()
    first = make_step("my_own:clean")
    importlib.import_module("my_own")
    write("my_own.py", "def clean(text):\n    return text + '2'\n")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert make_step("my_own:clean")("a") == "a2"
    assert first("a") == "a1"  # built from the old source


def test_a_module_is_run_once_as_long_as_it_stays_the_same(write, tmp_path):
    write("counted.py", "open('runs', 'a').write('x')\n\n\ndef clean(text):\n    return text\n")
    for _ in range(3):
        make_step("counted:clean")
    assert (tmp_path / "runs").read_text() == "x"


def test_a_compiled_file_that_says_otherwise_is_not_run(write):
    file = write("my_own.py", "def clean(text):\n    return 'other'\n")
    py_compile.compile(str(file), doraise=True)
    times = file.stat()
    write("my_own.py", "def clean(text):\n    return 'right'\n")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert make_step("my_own:clean")("a") == "right"


def test_a_function_that_is_defined_elsewhere_is_refused_with_its_module(write):
    write("helpers.py", "def clean(text):\n    return text\n")
    write("shown.py", "from helpers import clean\nfrom subprocess import getoutput\nimport json\nclean_too = clean\n")
    with pytest.raises(SpecError, match="shown:clean_too is defined in helpers") as caught:
        load_for_spec("shown:clean_too")
    assert "write helpers:clean" in caught.value.fix
    with pytest.raises(ModelError, match="defined in subprocess"):
        make_step("shown:getoutput")
    with pytest.raises(SpecError, match="is not a function or a class"):
        load_for_spec("shown:json")


def load_for_spec(path):
    return load_user_object(find_source(path))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import sys\nsys.exit('bye')\n", "importing my_own raised SystemExit: bye"),
        ("1 / 0\n", "importing my_own raised ZeroDivisionError"),
        ("def clean(text)\n", "importing my_own raised SyntaxError"),
        ("import not_there_at_all\n", "cannot be imported: No module named 'not_there_at_all'"),
        ("x = 'a\0b'\n", "importing my_own raised"),
    ],
)
def test_a_module_that_cannot_be_imported(write, tmp_path, source, message):
    write("my_own.py", source)
    with pytest.raises(SpecError, match=message):
        custom.pin_function("my_own:clean", tmp_path)
    assert "my_own" not in sys.modules
    assert not (tmp_path / "step_my_own.py").exists()
    write("my_own.py", "def clean(text):\n    return text\n")  # repaired in the same process
    assert make_step("my_own:clean")("a") == "a"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return 'a\\ud83d'", "my_own:clean returned half of a surrogate pair"),
        ("raise SystemExit(3)", "my_own:clean raised SystemExit: '3'"),
        ("return clean(text)", "my_own:clean raised RecursionError"),
        ("return b'a'", "my_own:clean returned bytes, not a text"),
        ("return ' \\u200b'", "empty after cleaning"),
        ("return None", "refused by my_own:clean"),
    ],
)
def test_what_a_function_may_do_wrong_becomes_the_rows_reason(write, body, reason):
    write("my_own.py", f"def clean(text):\n    {body}\n")
    contract = contract_with("my_own:clean", digest_of("my_own.py"))
    texts, reasons = Cleaner(contract)(["a"])
    assert texts == ["a"] and (reasons[0] or "").startswith(reason)


def test_the_folders_that_python_itself_names():
    """Files in the folders of pip and of Python's library are not the user's."""
    for key in ("stdlib", "purelib"):
        with pytest.raises(SpecError):
            _check_not_installed(Path(sysconfig.get_paths()[key]) / "anything.py", "anything:run", "data.steps")
