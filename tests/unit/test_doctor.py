"""What `raymill doctor` says about machines: each check names the variable or limit, and what to do."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from cluster import environment_checks as checks
from cluster.doctor import check_memory, check_python, check_storage
from cluster.environment_checks import Limits

GIB = 2**30


def fixed(check):
    """Return the check after making sure that a check that is not ok says what to do."""
    assert check.ok or check.fix, check
    return check


def test_the_checks_of_this_machine_are_of_one_form():
    answers = checks.check_environment()
    assert len({check.name for check in answers}) == len(answers) >= 12
    for check in answers:
        assert fixed(check).result and set(check.as_dict()) == {"what", "found", "ok", "needed", "fix"}


@pytest.mark.parametrize(
    ("variable", "free_gib", "ok", "text"),
    [
        (None, 20, True, "20.0 GiB free"),
        ("/tmp", 20, True, "/tmp, 20.0 GiB free"),
        ("/tmp", 0.1, False, "/tmp, 0.1 GiB free"),
        ("/absent", 20, False, "as TMPDIR=/absent cannot be written"),
        ("/dev/null", 20, False, "as TMPDIR=/dev/null cannot be written"),
    ],
)
def test_temporary_files(variable, free_gib, ok, text, monkeypatch):
    environment = {"TMPDIR": variable} if variable else {}
    monkeypatch.delenv("TMPDIR", raising=False)
    if variable:
        monkeypatch.setenv("TMPDIR", variable)
    check = fixed(checks.check_temporary_folder(environment, lambda folder: int(free_gib * GIB)))
    assert check.ok == ok and text in check.result
    assert ok or "TMPDIR" in check.fix


def test_no_temporary_folder_at_all(monkeypatch):
    monkeypatch.setattr(checks, "_temporary_folder", lambda environment: (_ for _ in ()).throw(FileNotFoundError))
    check = fixed(checks.check_temporary_folder({}))
    assert not check.ok and check.needed and "TMPDIR" in check.fix


@pytest.mark.parametrize(
    ("environment", "ok", "text"),
    [
        ({}, True, "/tmp"),
        ({"TMPDIR": "/var/tmp"}, True, "/var/tmp"),
        ({"TMPDIR": "/absent"}, None, "/tmp, as TMPDIR=/absent does not exist"),
        ({"TMPDIR": "relative"}, None, "/tmp, as TMPDIR=relative is not an absolute path"),
        ({"RAY_TMPDIR": "/absent"}, False, "RAY_TMPDIR='/absent' does not exist"),
        ({"RAY_TMPDIR": "/var/tmp", "TMPDIR": "/absent"}, True, "/var/tmp"),
    ],
)
def test_the_folder_of_rays_sockets(environment, ok, text):
    check = fixed(checks.check_ray_folder(environment))
    # None: it works, but not as the variable says.
    assert (check.ok, check.needed) == ((ok, True) if ok is not None else (False, False))
    assert check.result.startswith(text)


def test_a_temporary_folder_that_is_too_long_for_rays_sockets(tmp_path):
    long = tmp_path / ("l" * 100)
    long.mkdir()
    check = checks.check_ray_folder({"TMPDIR": str(long)})
    assert not check.needed and check.result.startswith(f"/tmp, as TMPDIR={long} is too long for the sockets in it")


@pytest.mark.parametrize(
    ("environment", "home", "ok", "text"),
    [
        ({}, None, False, "none: HOME is not set"),
        ({"HOME": "/absent"}, Path("/absent"), False, "HOME=/absent cannot be written"),
        ({}, Path("/absent"), False, "/absent cannot be written"),
        ({"HOME": "/tmp"}, Path("/tmp"), True, "/tmp"),
    ],
)
def test_the_home_folder(environment, home, ok, text):
    check = fixed(checks.check_home(environment, home))
    assert (check.ok, check.needed) == (ok, False) and check.result.startswith(text)
    assert ok or ("HOME" in check.fix and "HF_HOME" in check.fix and "--storage" in check.fix)


@pytest.mark.parametrize(
    ("names", "hidden", "ok", "text"),
    [
        ([], [], True, ""),
        (["raymill.py"], [], False, "has a raymill.py"),
        (["torch.py"], ["torch"], False, "installed modules: torch"),
        (["raymill"], [], True, ""),
    ],
)
def test_the_working_directory(names, hidden, ok, text, tmp_path):
    for name in names:
        (tmp_path / name).write_text("")
    check = fixed(checks.check_working_directory(str(tmp_path), hidden))
    assert check.ok == ok and text in check.result and (ok or "rename" in check.fix)


def test_a_working_directory_that_was_deleted():
    check = fixed(checks.check_working_directory(None, []))
    assert not check.ok and check.needed and "deleted" in check.result


@pytest.mark.parametrize(
    ("limits", "failing", "word"),
    [
        (Limits(), [], ""),
        (Limits(open_files=256), ["open files"], "ulimit -n"),
        (Limits(open_files=1024), [], ""),
        (Limits(processes=100), ["processes and threads"], "ulimit -u"),
        (Limits(address_space=4 * GIB), ["address space"], "ulimit -v"),
        (Limits(64, 64, GIB), ["open files", "processes and threads", "address space"], "ulimit"),
    ],
)
def test_limits(limits, failing, word):
    answers = [fixed(check) for check in checks.check_limits(limits)]
    assert [check.name for check in answers if not check.ok] == failing
    assert all(word in check.fix for check in answers if not check.ok)


@pytest.mark.parametrize("name", ["http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize(
    ("exceptions", "ok"),
    [
        (None, False),
        ("", False),
        ("example.com", False),
        ("localhost", False),
        ("localhost,127.0.0.1", True),
        ("LOCALHOST, 127.0.0.1 ,::1", True),
        (".localhost 127.0.0.1", True),
        ("*", True),
    ],
)
def test_proxies_leave_out_this_machine(name, exceptions, ok):
    environment = {name: "http://proxy:3128", **({} if exceptions is None else {"NO_PROXY": exceptions})}
    check = fixed(checks.check_proxies(environment))
    assert check.ok == ok and name.upper() in check.result and (ok or "NO_PROXY=localhost,127.0.0.1" in check.fix)


def test_no_proxies():
    assert checks.check_proxies({"http_proxy": "", "NO_PROXY": "a"}).ok


@pytest.mark.parametrize(
    ("value", "ok"),
    [
        ("", True),
        ("ignore", True),
        ("default::UserWarning", True),
        ("error", False),
        ("ignore, error::UserWarning", False),
    ],
)
def test_warnings_that_are_errors(value, ok):
    check = fixed(checks.check_python_variables({"PYTHONWARNINGS": value}))
    assert check.ok == ok and (ok or f"PYTHONWARNINGS={value}" in check.result)


@pytest.mark.parametrize(
    ("mask", "who"), [(0o022, "others may"), (0o002, "others may"), (0o077, "only you"), (0o027, "others may")]
)
def test_the_umask_says_who_may_read(mask, who):
    assert who in checks.check_umask(mask).result


@pytest.mark.parametrize(
    ("free", "ok", "text"),
    [({"127.0.0.1", "::1"}, True, "and ::1"), ({"127.0.0.1"}, True, "no IPv6"), (set(), False, "nothing can listen")],
)
def test_loopback(free, ok, text):
    check = fixed(checks.check_loopback(lambda host, port: host in free))
    assert check.ok == ok and text in check.result


@pytest.mark.parametrize(("now", "ok"), [(0, False), (-5, False), (1e9, False), (1.8e9, True)])
def test_the_clock(now, ok):
    assert fixed(checks.check_clock(now)).ok == ok


@pytest.mark.parametrize(
    ("release", "executable", "ok"),
    [((3, 11), "/a b/python", True), ((3, 9), "/p", False), ((3, 14), "/p", False), ((3, 11), "", False)],
)
def test_python(release, executable, ok):
    check = fixed(check_python(release, executable))
    assert check.ok == ok and check.needed and (executable in check.result)


def test_a_temporary_folder_whose_path_has_a_space(tmp_path, monkeypatch):
    folder = tmp_path / "a b"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    check = checks.check_temporary_folder({"TMPDIR": str(folder)}, lambda folder: 20 * GIB)
    assert check.ok and "has a space or a quote in its path, so HAProxy's script goes to /tmp" in check.result


@pytest.mark.parametrize(("gib", "ok"), [(0, False), (1.9, False), (2, True), (64, True)])
def test_memory(gib, ok):
    assert fixed(check_memory(int(gib * GIB))).ok == ok


def test_storage(tmp_path, monkeypatch):
    assert check_storage(str(tmp_path / "new" / "folder")).ok and not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    for path, text in {
        "/proc/nothing": "/proc/nothing: ",
        str(tmp_path / "file" / "below"): "Not a directory",
        str(tmp_path / os.fsdecode(b"caf\xe9")): "are not UTF-8",
    }.items():
        check = fixed(check_storage(path))
        assert not check.ok and check.needed and text in check.result and "--storage" in check.fix, check
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.setattr(Path, "expanduser", lambda self: (_ for _ in ()).throw(RuntimeError("no home")))
    check = fixed(check_storage("~/.raymill"))
    assert not check.ok and "HOME is not set" in check.result and "set HOME" in check.fix


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_storage_on_a_file_system_without_locks(code, tmp_path, monkeypatch):
    def no_locks(descriptor, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    check = fixed(check_storage(str(tmp_path)))
    assert not check.ok and "without file locks" in check.result and "another disk" in check.fix
