"""A Slurm cluster on machines of namespaces. It needs Debian's packages slurm-wlm and munge."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from support.commands import CommandResult
from support.namespaces import Machine, Network

_PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch")
_CONFIG = """
ClusterName=test
SlurmctldHost={head}({head_address})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=/tmp/munge.socket
StateSaveLocation=/tmp/slurm-state
SlurmdSpoolDir=/tmp/slurm-spool
SlurmctldPidFile=/tmp/slurmctld.pid
SlurmdPidFile=/tmp/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SlurmdTimeout=20
{nodes}
PartitionName=test Nodes=ALL Default=YES State=UP
"""


def why_no_slurm() -> str | None:
    """Return why Slurm cannot be started here, or None if it can."""
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    return f"Slurm is not installed (Debian: slurm-wlm, munge): no {', '.join(missing)}" if missing else None


class SlurmMachines:
    """Slurm's daemons on the machines of a network; the first one has the controller, too."""

    def __init__(self, network: Network, folder: Path, count: int) -> None:
        """`folder` is shared by the machines, for the configuration."""
        machines = [network.add_machine(f"m{number}") for number in range(1, count + 1)]
        self.head, self.config = machines[0], folder / "slurm.conf"
        nodes = "\n".join(
            f"NodeName={each.name} NodeAddr={each.address} CPUs=1 RealMemory=16000 State=UNKNOWN" for each in machines
        )
        self.config.write_text(_CONFIG.format(head=self.head.name, head_address=self.head.address, nodes=nodes))
        # Nothing is limited by control groups, but slurmd does not start if it finds none and may choose.
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        key = folder / "munge.key"
        assert self.head.run("mungekey", "--create", "--keyfile", key).code == 0
        self._daemons = []
        for machine in machines:
            self._start_daemons(machine, key)

    def _start_daemons(self, machine: Machine, key: Path) -> None:
        munge = ["--foreground", "--force", f"--key-file={key}", "--socket=/tmp/munge.socket"]
        munge += ["--pid-file=/tmp/munged.pid", "--log-file=/tmp/munged.log", "--seed-file=/tmp/munge.seed"]
        assert machine.run("mkdir", "-p", "/tmp/slurm-state", "/tmp/slurm-spool").code == 0
        self._daemons.append(machine.command("munged", *munge))
        if machine is self.head:
            self._daemons.append(machine.command("slurmctld", "-D", "-f", self.config))
        self._daemons.append(machine.command("slurmd", "-D", "-f", self.config, "-N", machine.name))

    def run(self, *arguments: object, cwd: Path) -> CommandResult:
        """Run one of Slurm's commands on the head."""
        return self.head.run(*arguments, cwd=cwd, env={"SLURM_CONF": self.config})

    def wait_until_idle(self, count: int, timeout_s: float = 120) -> None:
        """Wait until `count` machines may run jobs."""
        deadline = time.monotonic() + timeout_s
        while (answer := self.run("sinfo", "-h", "-t", "idle", "-o", "%D", cwd=Path("/")).stdout.strip()) != str(count):
            assert time.monotonic() < deadline, f"{answer}\n{''.join(each.output for each in self._daemons)}"
            time.sleep(1)

    def wait_for_end(self, job: str, timeout_s: float = 600) -> str:
        """Wait until a job has ended, and return its state."""
        deadline = time.monotonic() + timeout_s
        while True:
            words = self.run("scontrol", "-o", "show", "job", job, cwd=Path("/")).stdout.split()
            state = next(word.partition("=")[2] for word in words if word.startswith("JobState="))
            if state not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"):
                return state
            assert time.monotonic() < deadline, f"{job} is {state}"
            time.sleep(1)
