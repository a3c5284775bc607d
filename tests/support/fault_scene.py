"""A cluster of machines that the tests of faults share, and trainings on it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.commands import ROOT, run_raymill
from support.namespaces import MachineCommand
from support.ray_machines import RayMachines
from support.tiny_text import make_text_rows, tiny_spec, write_csv, write_spec
from support.training_watch import SlowLoss, assert_same_steps, read_steps

STEPS = 120
TRAIN: dict[str, Any] = {
    "epochs": 100,
    "max_steps": STEPS,
    "batch_size": 12,
    "learning_rate": 1e-3,
    "precision": "fp32",
    "checkpoint": {"every_steps": 5},
}
#: A machine that does not answer counts as dead after 30 to 42 s; with Ray's own values after 61 to 70 s.
DEAD_AFTER_30_S = {
    "RAY_health_check_initial_delay_ms": 2000,
    "RAY_health_check_period_ms": 2000,
    "RAY_health_check_timeout_ms": 5000,
    "RAY_health_check_failure_threshold": 6,
}


class FaultScene:
    """A head without cores, on which commands run, and three machines with one core each: m2, m3 and m4."""

    def __init__(self, ray: RayMachines, folder: Path, base: Path) -> None:
        self.ray, self.folder, self.base = ray, folder, base
        self.loss = SlowLoss(folder)
        self.alone: list[dict[str, Any]] = []
        """The steps of a training in one process."""

    @property
    def python_path(self) -> str:
        """PYTHONPATH with the tests' own modules, such as the loss."""
        return f"{self.folder}{os.pathsep}{ROOT}"

    def storage(self, name: str) -> Path:
        """The storage folder of the run with this name."""
        return self.folder / name / "storage"

    def write_spec(self, name: str, cluster: Mapping[str, Any], **sections: Any) -> Path:
        """Write a spec with a storage folder of its own."""
        (self.folder / name).mkdir()
        spec = tiny_spec(self.base, self.folder / "data", self.storage(name), cluster=dict(cluster), **sections)
        return write_spec(self.folder / name / "run.yaml", spec)

    def start(self, command: str, name: str, cluster: Mapping[str, Any], **sections: Any) -> MachineCommand:
        """Start a command of raymill on the head."""
        spec = self.write_spec(name, {"address": "auto", **cluster}, **sections)
        return self.ray.head.command("python", "-m", "raymill", command, spec)

    def train(self, name: str, **cluster: Any) -> MachineCommand:
        """Start a training with the slow loss on the head and return its command."""
        self.loss.slow_down()
        train = {**TRAIN, "loss": SlowLoss.SPEC}
        return self.start("train", name, {"cpus_per_worker": 1, **cluster}, train=train, track={"every_steps": 1})

    def train_alone(self) -> None:
        """Train in one process on this computer, without Ray; the losses are those to compare with."""
        done = run_raymill("train", self.write_spec("alone", {}, train=TRAIN, track={"every_steps": 1}))
        assert done.code == 0, done
        self.alone = read_steps(self.storage("alone"))
        assert len(self.alone) == STEPS

    def end_well(self, command: MachineCommand, name: str) -> None:
        """Let the training end, and compare its losses."""
        self.loss.hurry()
        assert command.process.wait(240) == 0, command.output
        assert "Traceback" not in command.output
        difference = assert_same_steps(self.storage(name), self.alone)
        self.report(f"{name}: largest difference of a loss, in 1e-9", 1e9 * difference)

    def machines_with(self, title: str) -> list[str]:
        """Return the machines on which a process with this title runs."""
        return [name for name in self.ray.machines if self.ray.running[name].processes(title)]

    def repair(self) -> None:
        """Bring back the machines that a test has lost."""
        for name, machine in self.ray.machines.items():
            machine.link_up()
            if not machine.is_running or self.ray.running[name].process.poll() is not None:
                self.ray.restart(name)

    def report(self, what: str, value: float) -> None:
        """Print a figure for docs/explanation/benchmarks.md; `pytest -s` shows it."""
        print(f"figure: {what}: {value:.1f}", flush=True)  # noqa: T201


@contextmanager
def fault_scene(base: Path, folder: Path) -> Iterator[FaultScene]:
    """Yield a scene in `folder`, with the base model in `base`, and remove its machines at the end."""
    (folder / "data").mkdir()
    write_csv(folder / "data" / "train.csv", make_text_rows(240, seed=1))
    write_csv(folder / "data" / "test.csv", make_text_rows(210, seed=2))
    env = {**DEAD_AFTER_30_S, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    with RayMachines(shared=[folder, base], env=env) as ray:
        scene = FaultScene(ray, folder, base)
        scene.train_alone()
        ray.start(4, cpus=1, head_cpus=0)
        yield scene
