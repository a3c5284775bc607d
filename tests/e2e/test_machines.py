"""The commands on machines as people have them: each condition that a machine may impose, and a few at once.

The conditions are made in namespaces of their own: mounts, limits and users change for one command only. Conditions that
do not exclude each other are imposed together, because each command takes seconds. If a test fails, leave conditions out
of its `Machine` until it is clear which one is to blame.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from cluster.ports import free_port
from support.commands import ROOT
from support.timing import wait_until
from support.tiny_table import FEATURES, make_table_rows, write_rows

#: Condition -> lines of bash that impose it. $W is the folder of the test; the working directory is below it.
CONDITIONS = {
    "256 open files": "ulimit -n 256",
    "64 MiB of shared memory": "mount -t tmpfs -o size=64m tmpfs /dev/shm",
    "umask 077": "umask 077",
    "TMPDIR of 100 letters": 'mkdir -p "$W/$LONG"; export TMPDIR="$W/$LONG"',
    "TMPDIR with a space, without programs": 'mkdir -p "$W/t m p"; mount -t tmpfs -o noexec tmpfs "$W/t m p"; '
    'export TMPDIR="$W/t m p"',
    "TMPDIR that does not exist": "export TMPDIR=$W/absent",
    "a proxy for everything": "unset NO_PROXY no_proxy; "
    "for name in http https all grpc; do export ${name}_proxy=http://127.0.0.1:9 ${name^^}_PROXY=http://127.0.0.1:9; done",
    "standard input is closed": "exec 0<&-",
    "files with the names of modules": "for name in torch ray pandas emoji json serve trainer cluster; do "
    'echo "raise RuntimeError(\\"own $name\\")" > $name.py; done',
    "a working directory that can only be read": "mount --bind . . && mount -o remount,ro,bind . && cd .",
    "a home that can only be read": 'mkdir -p "$W/home"; mount -t tmpfs -o ro tmpfs "$W/home"; export HOME="$W/home"; '
    "unset HF_HOME MPLCONFIGDIR",
    "warnings are errors": "export PYTHONWARNINGS=error",
    "no working directory on the path": "export PYTHONSAFEPATH=1 PYTHONHASHSEED=7 OMP_NUM_THREADS=1",
    "a clock that jumps by a day": 'export PYTHONPATH="$PYTHONPATH:$W/clock"',
    "IPv6 only": "export HOST=::1",
}
CLOCK = """
import time
_time, _count = time.time, [0]
def jumping():
    _count[0] += 1
    return _time() + 86_400 * (_count[0] % 3 - 1)
time.time = jumping
"""
#: A user without a home folder and without an entry in the list of users.
CONDITIONS["a user without a home and a name"] = (
    "unset HOME USER LOGNAME HF_HOME RAY_AUTH_TOKEN_PATH RAY_AUTH_MODE; "
    "export AS='unshare --user --map-user=54321 --map-group=54321'"
)
#: Folders that storage is in: other alphabets and spaces, a path of more than 300 characters, and links.
STORAGES = {"alphabets": "данные/データ é", "long": "/".join(["l" * 100] * 3), "link": "link/store"}


class Machine(NamedTuple):
    """Conditions that are imposed together, and the storage that is used among them."""

    conditions: list[str]
    storage: str
    uses_ray: bool = False
    """Whether the training runs on a Ray that it starts; predicting and serving are without Ray on all machines."""


MACHINES = {
    "container": Machine(
        [
            "256 open files",
            "64 MiB of shared memory",
            "umask 077",
            "TMPDIR of 100 letters",
            "a proxy for everything",
            "files with the names of modules",
            "a user without a home and a name",
        ],
        "alphabets",
        uses_ray=True,
    ),
    "service": Machine(
        [
            "TMPDIR with a space, without programs",
            "standard input is closed",
            "a working directory that can only be read",
            "a home that can only be read",
            "warnings are errors",
            "no working directory on the path",
        ],
        "long",
    ),
    "laptop": Machine(["TMPDIR that does not exist", "a clock that jumps by a day", "IPv6 only"], "link"),
}


def can_make_namespaces() -> bool:
    with contextlib.suppress(OSError):
        return subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0
    return False


pytestmark = pytest.mark.skipif(
    not can_make_namespaces(),
    reason="needs root and `unshare`: the conditions are mounts, limits and users of their own",
)


class Shell:
    """Runs commands among conditions, each in namespaces of its own."""

    def __init__(self, folder: Path, conditions: list[str]) -> None:
        self.folder, self.conditions, self.work = folder, conditions, folder / "work"
        self.work.mkdir(parents=True)
        (folder / "real").mkdir()
        (folder / "link").symlink_to("real")
        (folder / "clock").mkdir()
        (folder / "clock" / "sitecustomize.py").write_text(CLOCK)

    def words(self, *arguments: object) -> list[str]:
        lines = ["set -e", *[CONDITIONS[name] for name in self.conditions], 'exec $AS "$@"']
        command = [sys.executable, "-m", "raymill", *map(str, arguments)]
        return ["unshare", "--mount", "bash", "-c", "\n".join(lines), "bash", *command]

    def environment(self) -> dict[str, str]:
        added = {"W": str(self.folder), "LONG": "l" * 100, "AS": "", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        return {**os.environ, **added}

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.words(*arguments),
            cwd=self.work,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=500,
        )

    @contextlib.contextmanager
    def serve(self, *arguments: object) -> Iterator[None]:
        log = self.folder / "serve.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                self.words(*arguments),
                cwd=self.work,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            wait_until(
                lambda: "listening on" in log.read_text() or process.poll() is not None, within_s=300, what="it serves"
            )
            assert process.poll() is None, log.read_text()
            yield
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)


def train_predict_serve(folder: Path, machine: Machine) -> None:
    """Do all three among the machine's conditions. Raises `AssertionError` with the output of a command that failed."""
    shell = Shell(folder, machine.conditions)
    rows = make_table_rows(60, seed=3)
    storage = folder / STORAGES[machine.storage]
    storage.parent.mkdir(parents=True, exist_ok=True)
    table = write_rows(storage.parent / "table.csv", rows)
    host = "::1" if "IPv6 only" in machine.conditions else "127.0.0.1"
    spec = {
        "name": "tiny",
        "task": "tabular-classification",
        "data": {
            "train": str(table),
            "features": FEATURES,
            "split": {"validation": 0.2, "test": 0.2},
        },
        "model": {"kind": "logistic_regression"},
        "serve": {"engine": "native", "host": host},
        "storage": str(storage),
    }
    (folder / "run.json").write_text(json.dumps(spec))
    with_ray = ["--set", "cluster.address=local"] if machine.uses_ray else []
    done = shell.run("run", folder / "run.json", "--json", *with_ray)
    assert done.returncode == 0 and json.loads(done.stdout)["version"] == 1, done.stderr
    output = folder / "out.jsonl"
    done = shell.run("predict", "tiny", table, "-o", output, "--storage", storage, "--json")
    assert done.returncode == 0 and len(output.read_text().splitlines()) == 60, done.stderr
    port = free_port()
    answer = None
    with shell.serve("serve", "tiny", "--storage", storage, "--port", port, "--set", "cluster.address=null"):
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}/predict"
        row = {name: value for name, value in rows[0].items() if name in FEATURES}
        with httpx.Client(trust_env=False) as client:
            answer = client.post(url, json={"inputs": [row]}, timeout=60)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("name", MACHINES)
def test_it_works_on(name, tmp_path):
    train_predict_serve(tmp_path / "machine", MACHINES[name])


def test_every_condition_is_on_a_machine():
    imposed = [condition for machine in MACHINES.values() for condition in machine.conditions]
    assert sorted(imposed) == sorted(CONDITIONS)
    assert {machine.storage for machine in MACHINES.values()} == set(STORAGES)


@pytest.mark.parametrize(
    ("conditions", "arguments", "named"),
    [
        (["a user without a home and a name"], ["models"], ["HOME is not set", "--storage"]),
        (["a home that can only be read"], ["serve", "tiny"], ["tiny"]),
    ],
)
def test_what_cannot_work_names_what_to_do(conditions, arguments, named, tmp_path):
    done = Shell(tmp_path / "machine", conditions).run(*arguments)
    assert done.returncode == 2 and all(word in done.stderr for word in named), done.stderr
    assert "bug in raymill" not in done.stderr


def test_the_working_directory_was_deleted(tmp_path):
    shell = Shell(tmp_path / "machine", [])
    words = shell.words("models", "--storage", tmp_path)
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run(
        ["bash", "-c", 'rmdir "$PWD"; exec "$@"', "bash", *words],
        cwd=gone,
        env=shell.environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2 and "the working directory cannot be read" in done.stderr, done.stderr
