"""A Ray cluster on machines of namespaces: a head and workers, each on a machine of its own.

with RayMachines(shared=[folder]) as ray:
    ray.start(2, cpus=1)  # the head, "m1", and "m2"
    ray.head.run("python", "-m", "raymill", "train", spec)  # RAY_ADDRESS is set
    ray["m2"].kill()
    ray.restart("m2")
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from support.commands import RunningCommand
from support.namespaces import Machine, Network

PORT = 6379
DASHBOARD_PORT = 8265
_STARTED = "Ray runtime started"
#: Health checks that call a silent node dead after some 10 s. Ray's own values take 61 to 70 s.
QUICK_HEALTH_CHECKS = {
    "RAY_health_check_initial_delay_ms": 2000,
    "RAY_health_check_period_ms": 1000,
    "RAY_health_check_timeout_ms": 2000,
    "RAY_health_check_failure_threshold": 4,
}


class RayNode(NamedTuple):
    """What `ray start` gets on a machine."""

    cpus: float
    memory: int
    object_store: int
    dashboard: bool
    options: tuple[str, ...]
    env: dict[str, object]


class RayMachines(Network):
    """A network whose machines run Ray; the first one is the head."""

    def __init__(
        self,
        shared: Sequence[Path] = (),
        env: Mapping[str, object] | None = None,
        *,
        token: str | None = None,
    ) -> None:
        """`env` is set for Ray and for commands on all machines. With `token`, or `new_token()`, Ray asks for it."""
        auth: dict[str, object] = {"RAY_AUTH_MODE": "disabled"}
        if token is not None:
            auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        quiet = {
            "RAY_USAGE_STATS_ENABLED": 0,
            "RAY_worker_niceness": 0,
            "HF_HUB_OFFLINE": 1,
            "OMP_WAIT_POLICY": "passive",
        }
        super().__init__(shared, {**quiet, **auth, **(env or {})})
        self.nodes: dict[str, RayNode] = {}
        self.running: dict[str, RunningCommand] = {}

    def __enter__(self) -> RayMachines:
        super().__enter__()
        return self

    def __getitem__(self, name: str) -> Machine:
        return self.machines[name]

    @property
    def head(self) -> Machine:
        """The machine of the head node."""
        return next(iter(self.machines.values()))

    @property
    def ray_address(self) -> str:
        """The address that drivers join; commands on the machines have it in RAY_ADDRESS."""
        return f"{self.head.address}:{PORT}"

    @property
    def jobs_url(self) -> str:
        """The dashboard's address, which this computer reaches too; it needs `dashboard=True`."""
        return f"http://{self.head.address}:{DASHBOARD_PORT}"

    def start(
        self,
        count: int,
        *,
        cpus: float = 1,
        head_cpus: float | None = None,
        memory: int = 4 << 30,
        object_store: int = 160_000_000,
        dashboard: bool = False,
        options: Sequence[str] = (),
        env: Mapping[str, object] | None = None,
    ) -> list[Machine]:
        """Add `count` machines, m1, m2 and so on, and start Ray on them; return them once their nodes are up.

        `memory` and `object_store` are bytes. `options` are added to `ray start`, `env` to its environment only. Call it
        again for nodes of another size.
        """
        names = [f"m{len(self.machines) + index + 1}" for index in range(count)]
        for name in names:
            self.add_machine(name)
            node_cpus = head_cpus if head_cpus is not None and len(self.machines) == 1 else cpus
            self.nodes[name] = RayNode(node_cpus, memory, object_store, dashboard, tuple(options), dict(env or {}))
        self.env["RAY_ADDRESS"] = self.ray_address
        if self.head.name in names:
            self._start_ray(self.head.name).wait_for_line(_STARTED, 120)
        for running in [self._start_ray(name) for name in names if name != self.head.name]:  # at the same time
            running.wait_for_line(_STARTED, 120)
        return [self[name] for name in names]

    def restart(self, name: str, *, wait: bool = True) -> None:
        """Boot a killed machine again, with the same address, and start its node; a running machine gets a new node."""
        if name in self.running:
            self.running[name].terminate()
        if not self[name].is_running:
            self[name].boot()
        running = self._start_ray(name)
        if wait:
            running.wait_for_line(_STARTED, 120)

    def _start_ray(self, name: str) -> RunningCommand:
        machine, node = self[name], self.nodes[name]
        role = [f"--address={self.ray_address}"]
        if machine is self.head:
            role = ["--head", f"--port={PORT}", f"--include-dashboard={node.dashboard}", "--dashboard-host=0.0.0.0"]
        sizes = [f"--num-cpus={node.cpus:g}", f"--memory={node.memory}", f"--object-store-memory={node.object_store}"]
        command = ["ray", "start", "--block", f"--node-ip-address={machine.address}", *role, *sizes, *node.options]
        # RAY_ADDRESS is for drivers; `ray start --head` would refuse it.
        self.running[name] = machine.command("env", "-u", "RAY_ADDRESS", *command, env=node.env)
        return self.running[name]


def new_token() -> str:
    """Return a token for a cluster of Ray nodes."""
    return secrets.token_hex(32)
