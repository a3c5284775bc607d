"""Several machines on this one, made of Linux namespaces: own address, host name, processes, /tmp and shared memory.

    with Network(shared=[folder]) as network:
        machine = network.add_machine("worker")
        print(machine.run("hostname").stdout)
        machine.link_down()  # a silent partition

It needs root. `why_no_machines()` says what is missing. `support.ray_machines` starts Ray on the machines. Scripts outside
of pytest put `tests/` on `sys.path`. A machine ends with the thread that started it: start it in the main thread.

Several users share a computer: each network holds the lock of a number N, and has the bridge `rmN` with 10.77.N.254, and
machines 10.77.N.1, 10.77.N.2 and so on. Whatever a killed owner left under a number is removed by the next one.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

from support.commands import PATH, ROOT, CommandResult, RunningCommand

_LOCKS = Path(tempfile.gettempdir()) / "raymill-namespaces"
_NUMBERS = range(1, 250)
_NSENTER = Path("/usr/bin/nsenter")
# $1: the machine's folder, $2: host name, $3: bytes of shared memory, then folders that all machines share. The machine
# ends when this script, its first process, is killed. A shell as first process also collects orphaned children.
_BOOT = """
own=$1 name=$2 shm=$3; shift 3
echo "$name" > /proc/sys/kernel/hostname
mount -t tmpfs -o size=$shm tmpfs /dev/shm
mount --bind "$own/../hosts" /etc/hosts
for folder in "$@"; do
  case "$folder" in /tmp/*) mkdir -p "$own/tmp${folder#/tmp}"; mount --bind "$folder" "$own/tmp${folder#/tmp}";; esac
done
mount --rbind "$own/tmp" /tmp
cd /tmp
echo ready
while :; do sleep 1000 & wait $!; done
"""


@functools.cache
def why_no_machines() -> str | None:
    """Return why this computer cannot make machines, or None if it can. NO_MACHINES=1 tries what is tested without."""
    if os.environ.get("NO_MACHINES"):
        return "NO_MACHINES is set"
    if sys.platform != "linux" or os.geteuid() != 0:
        return "machines of namespaces need Linux and root"
    missing = [name for name in ("ip", "tc", "unshare", "nsenter", "setpriv") if shutil.which(name) is None]
    if missing:
        return f"machines of namespaces need the programs {', '.join(missing)}"
    try:
        with Network() as network:
            network.add_machine("probe")
    except (OSError, subprocess.SubprocessError, AssertionError) as error:
        return f"machines of namespaces cannot be made here: {error}"
    return None


class MachineCommand(RunningCommand):
    """A command in the background on a machine. Its processes are seen from outside, with the pids they have here."""

    def send_signal(self, number: int) -> None:
        """Send a signal to the command itself: `nsenter` would not pass it on."""
        with contextlib.suppress(IndexError, psutil.NoSuchProcess):
            self.descendants()[0].send_signal(number)


class Machine:
    """One machine. `Network.add_machine` makes it."""

    def __init__(self, network: Network, number: int, name: str, shm_bytes: int) -> None:
        self.name = name
        self.address = f"10.77.{network.number}.{number}"
        self.folder = network.folder / name
        self._network, self._shm_bytes = network, shm_bytes
        self._namespace = self._link = f"rm{network.number}-{number}"
        self._init: RunningCommand | None = None
        (self.folder / "tmp").mkdir(parents=True)
        _ip("netns", "add", self._namespace)
        _ip("link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self._namespace)
        _ip("link", "set", self._link, "master", network.bridge, "up")
        _ip("-n", self._namespace, "addr", "add", f"{self.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", self._namespace, "link", "set", device, "up")
        # Ray looks for its own address by a route to the internet; without one, a start takes 4 s longer.
        _ip("-n", self._namespace, "route", "add", "default", "via", network.address)
        self.boot()

    @property
    def network_namespace(self) -> Path:
        """The file of its network, for programs that join it without its other namespaces."""
        return Path("/run/netns") / self._namespace

    # -- life

    def boot(self) -> None:
        """Start the machine, again after `kill`, with the same address and an empty /tmp."""
        assert not self.is_running
        shutil.rmtree(self.folder / "tmp", ignore_errors=True)
        (self.folder / "tmp" / "home").mkdir(parents=True)
        unshare = "setpriv --pdeathsig KILL unshare --mount --uts --ipc --pid --fork --kill-child=KILL --mount-proc"
        arguments = [str(self.folder), self.name, str(self._shm_bytes), *map(str, self._network.shared)]
        self._init = RunningCommand(
            Path("/usr/bin/env"),
            *("ip", "netns", "exec", self._namespace, *unshare.split(), "bash", "-ec", _BOOT, "boot", *arguments),
        )
        self._init.wait_for_line("ready", 60)

    @property
    def is_running(self) -> bool:
        """Whether the machine is booted and was not killed."""
        return self._init is not None and self._init.process.poll() is None

    def kill(self) -> None:
        """Power off, as by `kill -9` of everything. The link stays; `boot` starts the machine again."""
        if self._init is None:
            return
        first = self._init.descendants()
        self._init.process.kill()
        self._init.process.wait(30)
        psutil.wait_procs(first, timeout=30)

    def remove(self) -> None:
        """Power off and remove the machine's network."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.kill()
        _ip("netns", "del", self._namespace, check=False)
        _ip("link", "del", self._link, check=False)

    # -- network

    def link_down(self) -> None:
        """Pull the cable: packets vanish in both directions, and nobody is told."""
        _ip("link", "set", self._link, "down")

    def link_up(self) -> None:
        """Put the cable back."""
        _ip("link", "set", self._link, "up")

    def set_speed(self, mbit: float, *, latency_ms: float = 50.0) -> None:
        """Limit the link to `mbit` Mbit/s each way by a token bucket; packets that would wait longer are dropped."""
        bytes_per_s = mbit * 1e6 / 8
        # A bucket that is filled in 2 ms, and never smaller than the largest packet that the kernel passes at once.
        bucket = ["burst", str(int(max(131_072, bytes_per_s * 0.002))), "latency", f"{latency_ms}ms"]
        for prefix, device in (([], self._link), (["-n", self._namespace], "eth0")):
            _run("tc", *prefix, "qdisc", "replace", "dev", device, "root", "tbf", "rate", f"{mbit}mbit", *bucket)

    # -- commands

    def command(self, *arguments: object, env: Mapping[str, object] | None = None, cwd: Path = ROOT) -> MachineCommand:
        """Start a program on the machine and return it, running; `python`, `ray` and so on are those of these tests."""
        assert self._init is not None
        first = self._init.descendants()[0]
        inside = ["env", "-C", str(cwd), *(f"{name}={value}" for name, value in self.environment(env).items())]
        return MachineCommand(_NSENTER, "-t", first.pid, "-n", "-m", "-u", "-i", "-p", "--", *inside, *arguments)

    def run(
        self,
        *arguments: object,
        env: Mapping[str, object] | None = None,
        cwd: Path = ROOT,
        timeout_s: float = 300,
    ) -> CommandResult:
        """Run a program on the machine to its end; stdout and stderr come together as `stdout`."""
        command = self.command(*arguments, env=env, cwd=cwd)
        try:
            command.process.wait(timeout_s)
        finally:
            command.terminate()
        command.wait_for_output()
        return CommandResult(command.process.returncode, command.output, "")

    def environment(self, env: Mapping[str, object] | None = None) -> dict[str, str]:
        """Return what `command` sets: a home of its own, the network's variables, then `env`."""
        own = {"HOME": "/tmp/home", "PATH": PATH, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        return own | {name: str(value) for name, value in {**self._network.env, **(env or {})}.items()}


class Network:
    """A bridge with machines. Everything is removed at the end of the `with` block, also after a failure."""

    def __init__(self, shared: Sequence[Path] = (), env: Mapping[str, object] | None = None) -> None:
        """All machines see the folders `shared` at their own paths, and everything outside /tmp; `env` goes to commands."""
        self.shared, self.env = [Path(folder).resolve() for folder in shared], dict(env or {})
        self.machines: dict[str, Machine] = {}
        self.number = 0

    def __enter__(self) -> Network:
        self.number, self._lock = _lock_number()
        self.bridge, self.address = f"rm{self.number}", f"10.77.{self.number}.254"
        _remove_leftovers(self.number)
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.bridge}-", dir="/tmp"))
        try:
            (self.folder / "hosts").write_text("127.0.0.1 localhost\n")
            _ip("link", "add", self.bridge, "type", "bridge")
            _ip("addr", "add", f"{self.address}/24", "dev", self.bridge)
            _ip("link", "set", self.bridge, "up")
            # Packets for other networks end here, whatever this computer forwards otherwise.
            Path(f"/proc/sys/net/ipv4/conf/{self.bridge}/forwarding").write_text("0")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for machine in self.machines.values():
            machine.remove()
        _remove_leftovers(self.number)
        self._lock.close()

    def add_machine(self, name: str, *, shm_bytes: int = 1 << 30) -> Machine:
        """Boot another machine, which all machines reach by `name`; its number in the network is its place."""
        number = len(self.machines) + 1
        with (self.folder / "hosts").open("a") as hosts:  # written in place: the machines have this file mounted
            hosts.write(f"10.77.{self.number}.{number} {name}\n")
        self.machines[name] = machine = Machine(self, number, name, shm_bytes)
        return machine


def _lock_number() -> tuple[int, IO[str]]:
    """Return the first number that no other network has, and the file whose lock holds it."""
    _LOCKS.mkdir(exist_ok=True)
    for number in _NUMBERS:
        file = (_LOCKS / f"{number}.lock").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return number, file
        except OSError:
            file.close()
    raise OSError(f"all {len(_NUMBERS)} networks are in use")


def _remove_leftovers(number: int) -> None:
    """Remove what has the names of a network whose lock this process holds. Links end with their namespace."""
    for line in _ip("netns", "list").splitlines():
        name = line.split()[0]
        if name.startswith(f"rm{number}-"):
            _ip("netns", "del", name, check=False)
            _ip("link", "del", name, check=False)
    if Path(f"/sys/class/net/rm{number}").exists():
        _ip("link", "del", f"rm{number}")
    for folder in Path("/tmp").glob(f"rm{number}-*"):
        shutil.rmtree(folder, ignore_errors=True)


def _ip(*arguments: str, check: bool = True) -> str:
    return _run("ip", *arguments, check=check)


def _run(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if check and done.returncode:
        raise OSError(f"{shlex.join(command)}: {done.stderr.strip()}")
    return done.stdout
