"""Check what the environment of a process says and allows: folders, limits, variables, network, clock.

Each check is a function of what it looks at, so that it can be asked about any machine. `raymill doctor` asks about this
one. A check names the variable or limit, and what to do.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cluster.errors import ResourceError
from cluster.temporary_folders import (
    RAY_NEEDS,
    Needs,
    choose_ray_folder,
    find_fault,
    first_folder,
    script_folders,
)

_GIB = 2**30
_MIN_OPEN_FILES = 1024
_MIN_PROCESSES = 1024
_MIN_ADDRESS_SPACE_GIB = 16
_MIN_TEMPORARY_GIB = 0.5
_SCRIPT_NEEDS = Needs(runs_scripts=True, plain_name=True)
_PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy")
_LOOPBACK_NAMES = ("localhost", "127.0.0.1")
# No correct clock shows a time before this version of raymill was written.
_EARLIEST_TIME_S = 1_767_225_600  # 2026-01-01


class Check(NamedTuple):
    """The result of one check."""

    name: str
    result: str
    ok: bool
    needed: bool
    fix: str
    is_condition: bool = False
    """Whether it is about the machine, not about something that can be installed."""

    def as_dict(self) -> dict[str, Any]:
        """Return the check for `raymill doctor --json`."""
        return {"what": self.name, "found": self.result, "ok": self.ok, "needed": self.needed, "fix": self.fix}


def check_environment() -> list[Check]:
    """Return the results of all checks of this process's environment. Starts nothing."""
    from cluster.import_guard import hidden_names, user_folders
    from cluster.ports import port_is_free

    folders = user_folders()
    checks = [
        check_temporary_folder(os.environ),
        check_ray_folder(os.environ),
        check_home(os.environ, _home_folder()),
        check_working_directory(folders[0] if folders else None, hidden_names(folders)),
        *check_limits(read_limits()),
        check_proxies(os.environ),
        check_python_variables(os.environ),
        check_umask(_read_umask()),
        check_loopback(port_is_free),
        check_clock(time.time()),
    ]
    return [check._replace(is_condition=True) for check in checks]


def check_temporary_folder(environment: Mapping[str, str], free_bytes: Callable[[str], int] | None = None) -> Check:
    """Check the folder for temporary files. `free_bytes` returns the free space of a folder."""
    try:
        folder = _temporary_folder(environment)
    except FileNotFoundError:
        fix = "set TMPDIR to a folder that you may write to"
        return Check("temporary files", "no folder can be written", False, True, fix)
    free = (free_bytes or _free_bytes)(folder) / _GIB
    text = f"{folder}, {free:.1f} GiB free"
    named = environment.get("TMPDIR")
    if named and Path(named).absolute() != Path(folder):
        text += f", as TMPDIR={named} cannot be written"
        return Check("temporary files", text, False, False, "set TMPDIR to a folder that exists, or unset it")
    fault = find_fault(Path(folder), _SCRIPT_NEEDS)
    if fault:
        other = first_folder(script_folders(), _SCRIPT_NEEDS)
        text += f"; it {fault}, so HAProxy's script {f'goes to {other}' if other else 'cannot be used'}"
    ok = free >= _MIN_TEMPORARY_GIB
    return Check("temporary files", text, ok, False, "" if ok else "free some space, or set TMPDIR to another folder")


def check_ray_folder(environment: Mapping[str, str]) -> Check:
    """Check the folder for Ray's sockets and logs, which RAY_TMPDIR, TMPDIR or the system names."""
    try:
        folder = choose_ray_folder(environment)
    except ResourceError as error:
        return Check("Ray's sockets", error.problem, False, True, error.fix)
    named = environment.get("TMPDIR") if not environment.get("RAY_TMPDIR") else None
    text = str(folder)
    if named and Path(named) != folder:
        text += f", as TMPDIR={named} {find_fault(Path(named), RAY_NEEDS)}"
        return Check(
            "Ray's sockets", text, False, False, "this works; set RAY_TMPDIR to choose a short folder yourself"
        )
    return Check("Ray's sockets", text, True, True, "")


def check_home(environment: Mapping[str, str], home: Path | None) -> Check:
    """Check the home folder, where libraries keep their caches. `home` is None if this user has none."""
    caches = "set HF_HOME and MPLCONFIGDIR to folders for the caches of libraries, and pass --storage"
    if home is None:
        text = f"none: HOME is not set, and user {os.getuid()} is not in the system's list"
        return Check("home folder", text, False, False, f"set HOME, or {caches}")
    if not os.access(home, os.W_OK | os.X_OK):
        named = "HOME=" if environment.get("HOME") else ""
        return Check("home folder", f"{named}{home} cannot be written", False, False, f"set HOME, or {caches}")
    return Check("home folder", str(home), True, False, "")


def check_working_directory(folder: str | None, hidden: Sequence[str]) -> Check:
    """Check the working directory: None if it was deleted. `hidden` are the installed modules that a file there hides."""
    name = "working directory"
    if folder is None:
        return Check(name, "it was deleted", False, True, "change to a folder that exists, such as `cd ~`")
    if (Path(folder) / "raymill.py").is_file():
        fix = "rename it: `python -m raymill` would run it instead of raymill"
        return Check(name, f"{folder} has a raymill.py", False, False, fix)
    if hidden:
        text = f"{folder} has files with the names of installed modules: {', '.join(hidden)}"
        return Check(
            name, text, False, False, "rename them: raymill imports the installed modules, your scripts do not"
        )
    return Check(name, folder, True, False, "")


class Limits(NamedTuple):
    """The system's limits on this process; None means that there is no limit."""

    open_files: int | None = None
    """What the process may raise its own limit to."""
    processes: int | None = None
    address_space: int | None = None
    """Bytes."""


def read_limits() -> Limits:
    """Return the limits of this process. There are none on Windows."""
    try:
        import resource
    except ImportError:
        return Limits()
    names = ("RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_AS")
    hard = [resource.getrlimit(getattr(resource, name))[1] for name in names]
    return Limits(*[None if limit == resource.RLIM_INFINITY else limit for limit in hard])


def check_limits(limits: Limits) -> list[Check]:
    """Check the limits of open files, of processes and threads, and of a process's address space."""
    space = None if limits.address_space is None else limits.address_space / _GIB
    return [
        _check_limit(
            "open files",
            limits.open_files,
            _MIN_OPEN_FILES,
            "each connection takes one; raise the hard limit with `ulimit -n 65536`, LimitNOFILE= of a service, "
            "or `docker run --ulimit nofile=65536`",
        ),
        _check_limit(
            "processes and threads",
            limits.processes,
            _MIN_PROCESSES,
            "Ray and the libraries start hundreds of threads; raise it with `ulimit -u 4096` or TasksMax= of a service",
        ),
        _check_limit(
            "address space",
            space,
            _MIN_ADDRESS_SPACE_GIB,
            "Ray and torch reserve much more than they use; remove the limit with `ulimit -v unlimited`",
            unit=" GiB",
        ),
    ]


def check_proxies(environment: Mapping[str, str]) -> Check:
    """Check that programs on this machine reach an endpoint without going through a proxy."""
    variables = {name.lower(): value for name, value in environment.items() if value}
    proxies = sorted({name.upper() for name in _PROXY_VARIABLES if variables.get(name)})
    if not proxies:
        return Check("proxies", "none", True, False, "")
    exceptions = {entry.strip().lower().lstrip(".") for entry in re.split(r"[,\s]+", variables.get("no_proxy", ""))}
    ok = "*" in exceptions or exceptions.issuperset(_LOOPBACK_NAMES)
    fix = "" if ok else f"set NO_PROXY={','.join(_LOOPBACK_NAMES)},::1 so that clients here reach an endpoint here"
    return Check("proxies", f"{', '.join(proxies)}; NO_PROXY={variables.get('no_proxy', '')}", ok, False, fix)


def check_python_variables(environment: Mapping[str, str]) -> Check:
    """Check the variables that change how Python runs every program."""
    name = "Python's variables"
    actions = [entry.split(":")[0].strip() for entry in environment.get("PYTHONWARNINGS", "").split(",")]
    if any(action and "error".startswith(action) for action in actions):
        text = f"PYTHONWARNINGS={environment['PYTHONWARNINGS']}: a Ray that your script starts fails at a warning"
        return Check(name, text, False, False, "unset PYTHONWARNINGS, or name your own modules in it")
    return Check(name, "nothing that changes how libraries work", True, False, "")


def check_umask(mask: int) -> Check:
    """Check whether other users may read what raymill writes."""
    shared = not mask & (stat.S_IRGRP | stat.S_IXGRP)
    text = f"{mask:03o}: {'others may' if shared else 'only you may'} read new files"
    fix = "" if shared else "use `umask 027` or `umask 022` if others should read the storage folder"
    return Check("umask", text, True, False, fix)


def check_loopback(port_is_free: Callable[[str, int], bool]) -> Check:
    """Check that a server can listen on this machine. `port_is_free` is asked about port 0, any free one."""
    if not port_is_free("127.0.0.1", 0):
        fix = "bring the loopback interface up: `ip link set lo up`"
        return Check("loopback", "nothing can listen on 127.0.0.1", False, True, fix)
    return Check("loopback", "127.0.0.1 and ::1" if port_is_free("::1", 0) else "127.0.0.1, no IPv6", True, True, "")


def check_clock(now_s: float) -> Check:
    """Check that the clock does not show a time that has long passed: certificates would not be valid."""
    text = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(max(0, now_s)))
    ok = now_s >= _EARLIEST_TIME_S
    return Check("clock", text, ok, False, "" if ok else "set the clock; runs are sorted by it")


def _check_limit(name: str, limit: float | None, least: float, fix: str, unit: str = "") -> Check:
    if limit is None:
        return Check(name, "no limit", True, False, "")
    ok = limit >= least
    return Check(name, f"at most {limit:,.0f}{unit}", ok, False, "" if ok else fix)


def _temporary_folder(environment: Mapping[str, str]) -> str:
    """Return the folder that `tempfile` takes. Raises `FileNotFoundError` if no folder can be written."""
    before, tempfile.tempdir = tempfile.tempdir, None  # what it has found before may be gone
    try:
        return tempfile.gettempdir()
    finally:
        tempfile.tempdir = before


def _free_bytes(folder: str) -> int:
    return shutil.disk_usage(folder).free


def _home_folder() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:
        return None


def _read_umask() -> int:
    mask = os.umask(0o077)  # there is no way to read it without setting it
    os.umask(mask)
    return mask
