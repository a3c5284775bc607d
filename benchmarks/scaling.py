"""Measure how training scales over links of set speed, beside the formula of benchmarks/scaling_prediction.py.

    sudo python benchmarks/scaling.py --links 1000:4,22,90 10000:22 --workers 2 4 8

Each worker is a machine made of Linux namespaces, and `tc` limits its link. A layer's compute is a sleep, because all
workers share this computer's cores; everything else is real: raymill's updater, its DDP and its FSDP2, over gloo.

- flat   raymill's updater for CPUs: one all-reduce of all gradients after the backward pass
- ddp    torch's DDP as raymill sets it up, for GPUs and fp16: buckets are summed during the backward pass
- fsdp   FSDP2 as raymill sets it up: weights are gathered twice, gradients are reduced and scattered

The workers share this computer's cores, and copying takes them. So each number of workers first measures, over links
without a limit, how fast gloo moves bytes, and what else a step of each strategy costs per byte of gradients (copies
of FSDP, AdamW). The formula has the slower of link and cores, and adds that cost. One worker, which communicates with
nobody, is measured for the compute.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from benchmarks.scaling_formulas import all_reduce_traffic  # noqa: E402
from benchmarks.scaling_prediction import LAYERS, Cores, Setting, predict_step  # noqa: E402
from benchmarks.scaling_tables import table  # noqa: E402

_STRATEGIES = ("flat", "ddp", "fsdp")
_WAIT_S = 300.0
_POLL_S = 0.02
_UNLIMITED = 0.0
_PROBE_BYTES = 48_000_000
_CALIBRATION_MB = (4.0, 22.0)


_PROBE = Setting("probe", 0.0, _UNLIMITED)


class Measured(NamedTuple):
    """The result of one measurement on rank 0."""

    step: float
    """Seconds of a step, the fastest: other programs share the cores."""
    sent: float
    """Bytes that this worker's link sent in a step."""
    rate: float
    """For a probe: bytes per second that an all-reduce of this worker sent; 0 otherwise."""
    hop: float
    """For a probe: seconds of one hop of an all-reduce of one number; 0 otherwise."""


# -- a worker, on its machine


def run_worker(options: argparse.Namespace) -> None:
    """Take every measurement in turn; rank 0 asks for the speed of the links and writes the results."""
    import torch
    import torch.distributed

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=options.rank, world_size=options.n_workers)
    results = []
    for number, setting in enumerate(map(Setting._make, json.loads(options.settings))):
        if options.rank == 0:
            _ask(options.folder, number, setting.mbit)
        torch.distributed.barrier()
        measured = _probe(options) if setting.strategy == "probe" else _measure(options, setting)
        results.append(measured)
        torch.distributed.barrier()
    if options.rank == 0:
        _write(options.folder / "results.json", json.dumps(results))
    torch.distributed.destroy_process_group()


def _ask(folder: Path, number: int, mbit: float) -> None:
    """Ask for a speed of all links, and wait until they have it."""
    _write(folder / f"ask-{number}", str(mbit))
    while not (folder / f"set-{number}").exists():
        time.sleep(_POLL_S)


def _write(path: Path, text: str) -> None:
    """Write a file that the driver waits for, complete from the moment it is there."""
    path.with_suffix(".part").write_text(text)
    path.with_suffix(".part").rename(path)


def _probe(options: argparse.Namespace) -> Measured:
    """Measure an all-reduce without a limit: its rate by the cores, and the time of a hop."""
    import torch

    one, many = torch.zeros(1), torch.zeros(_PROBE_BYTES // 4)
    n = options.n_workers
    small = _fastest(lambda: torch.distributed.all_reduce(one), 15)
    large = _fastest(lambda: torch.distributed.all_reduce(many), 4)
    return Measured(large, 0.0, all_reduce_traffic(_PROBE_BYTES, n) / large, small / (2 * (n - 1)))


def _measure(options: argparse.Namespace, setting: Setting) -> Measured:
    step = make_step(setting.strategy, setting.megabytes, options.n_workers, options.compute)
    step()  # the first step connects the workers and allocates memory
    before = _sent_bytes()
    seconds = _fastest(step, options.steps)
    return Measured(seconds, (_sent_bytes() - before) / options.steps, 0.0, 0.0)


def make_step(strategy: str, megabytes: float, workers: int, compute: float) -> Callable[[], None]:
    """Return a function that takes one training step with `megabytes` of fp32 gradients and `compute` s of compute."""
    import torch

    from trainer.optim.distributed.parallel import distribute_model
    from trainer.optim.flat_updater import FlatUpdater
    from trainer.optim.torch_updater import TorchUpdater
    from trainer.spec.train import TrainSpec

    settings = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-4, "warmup_fraction": 0.1}
    train = TrainSpec.model_validate(settings)
    model = _sleeping_model(int(megabytes * 1e6 / 4 / LAYERS), compute)
    if strategy == "flat":
        forward, updater = model, FlatUpdater(model, train, 100, workers)
    else:
        forward = distribute_model(model, "cpu", workers, "fsdp" if strategy == "fsdp" else "ddp")
        updater = TorchUpdater(model, train, 100, workers, "fp32", "cpu")
    start = torch.zeros(1, requires_grad=True)

    def step() -> None:
        updater.set_learning_rates(1)
        updater.backward(forward(start).sum(), 8, more=False)
        updater.update()

    return step


def _sleeping_model(numbers: int, compute: float) -> Any:
    """Return a model of equal layers whose forward pass takes a third of `compute`, and its backward pass the rest."""
    import torch

    class Sleep(torch.autograd.Function):
        """Waits as long as a layer would compute."""

        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            ctx.shape = weight.shape
            time.sleep(compute / 3 / LAYERS)
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            time.sleep(compute * 2 / 3 / LAYERS)
            return gradient, torch.full(ctx.shape, 1e-3)

    class Layer(torch.nn.Module):
        """One weight."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(max(8, numbers // 64), 64))

        def forward(self, x: torch.Tensor) -> Any:
            return Sleep.apply(x, self.weight)

    class Model(torch.nn.Module):
        """The layers, one after the other."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList([Layer() for _ in range(LAYERS)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = layer(x)
            return x

    return Model()


def _fastest(action: Callable[[], Any], times: int) -> float:
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def _sent_bytes() -> int:
    for line in Path("/proc/net/dev").read_text().splitlines():  # /sys has the links of another network namespace
        name, _, counts = line.partition(":")
        if name.strip() == "eth0":
            return int(counts.split()[8])
    return 0


# -- the costs of the cores


def calibrate(
    workers: int, results: dict[Setting, Measured], one_worker: dict[Setting, Measured], compute: float
) -> Cores:
    """Return the costs of the cores from the measurements without a limit."""
    probe = results[_PROBE]
    cores = Cores(probe.rate, probe.hop, dict.fromkeys(_STRATEGIES, (0.0, 0.0)))
    small, large = (megabytes * 1e6 for megabytes in _CALIBRATION_MB)
    for strategy in sorted({setting.strategy for setting in results} & set(_STRATEGIES)):
        beyond = []
        for megabytes in _CALIBRATION_MB:
            setting = Setting(strategy, megabytes, _UNLIMITED)
            predicted = predict_step(setting, workers, one_worker[setting].step, compute, cores)
            beyond.append(results[setting].step - predicted)
        per_byte = max(0.0, (beyond[1] - beyond[0]) / (large - small))
        cores.cost[strategy] = max(0.0, beyond[0] - per_byte * small), per_byte
    return cores


# -- the driver


def measure(options: argparse.Namespace, workers: int, settings: list[Setting]) -> list[Measured]:
    """Start `workers` machines, take all measurements on them, and return the results of rank 0."""
    from support.namespaces import Network

    with tempfile.TemporaryDirectory(dir="/tmp") as name, Network(shared=[Path(name)]) as network:
        machines = [network.add_machine(f"w{rank}") for rank in range(workers)]
        env = {
            "MASTER_ADDR": machines[0].address,
            "MASTER_PORT": 29_500,
            "GLOO_SOCKET_IFNAME": "eth0",
            "OMP_NUM_THREADS": 1,
        }
        common = ["--folder", name, "--settings", json.dumps(settings), "--n-workers", workers]
        common += ["--compute", options.compute, "--steps", options.steps]
        commands = [
            machine.command("python", __file__, "--rank", rank, *common, env=env)
            for rank, machine in enumerate(machines)
        ]
        try:
            for number, setting in enumerate(settings):
                _wait_for(Path(name) / f"ask-{number}", commands)
                for machine in machines:
                    if setting.mbit:
                        machine.set_speed(setting.mbit, latency_ms=200)
                    else:
                        remove_limit(machine)
                (Path(name) / f"set-{number}").touch()
            _wait_for(Path(name) / "results.json", commands)
            return [Measured._make(values) for values in json.loads((Path(name) / "results.json").read_text())]
        finally:
            for command in commands:
                command.terminate()


def remove_limit(machine: Any) -> None:
    """Remove the limit of a machine's link."""
    import subprocess

    for prefix, device in (([], machine._link), (["-n", machine._namespace], "eth0")):
        subprocess.run(["tc", *prefix, "qdisc", "del", "dev", device, "root"], capture_output=True)


def _wait_for(path: Path, commands: list[Any]) -> None:
    ends_at = time.monotonic() + _WAIT_S
    while not path.exists():
        ended = [command for command in commands if command.process.poll() is not None]
        if (ended and not path.exists()) or time.monotonic() > ends_at:
            raise SystemExit("\n".join((ended or commands)[0].lines[-30:]))
        time.sleep(_POLL_S)


def main() -> None:
    """Measure and print a table."""
    options = _options()
    if options.rank is not None:
        run_worker(options)
        return
    links = [(float(speed), float(mb)) for speed, _, sizes in (link.partition(":") for link in options.links)
             for mb in sizes.split(",")]  # fmt: skip
    sizes = sorted({*_CALIBRATION_MB, *(megabytes for _, megabytes in links)})
    without_limit = [Setting(strategy, mb, _UNLIMITED) for mb in sizes for strategy in options.strategies]
    one_worker = dict(zip(without_limit, measure(options, 1, without_limit), strict=True))
    settings = [_PROBE, *(setting for setting in without_limit if setting.megabytes in _CALIBRATION_MB)]
    settings += [Setting(strategy, mb, speed) for speed, mb in links for strategy in options.strategies]
    header = ["strategy", "gradients", "Mbit/s", "workers", "sent a step", "step", "formula", "efficiency", "formula",
              "difference"]  # fmt: skip
    for workers in options.workers:
        results = dict(zip(settings, measure(options, workers, settings), strict=True))
        cores = calibrate(workers, results, one_worker, options.compute)
        costs = ", ".join(f"{name} {a * 1e3:.0f} ms + {b * 1e9:.1f} ns a byte" for name, (a, b) in cores.cost.items())
        print(f"\n{workers} workers without a limit: each sends {cores.rate * 8 / 1e9:.2f} Gbit/s, "
              f"{cores.hop * 1e6:.0f} us a hop; further cost: {costs}\n")  # fmt: skip
        rows = [_row(setting, workers, results, one_worker, options.compute, cores) for setting in settings[1:]]
        print(table(header, rows), flush=True)


def _row(
    setting: Setting,
    workers: int,
    results: dict[Setting, Measured],
    one_worker: dict[Setting, Measured],
    compute: float,
    cores: Cores,
) -> list[str]:
    measured, one = results[setting], one_worker[setting._replace(mbit=_UNLIMITED)].step
    predicted = predict_step(setting, workers, one, compute, cores)
    ours, formula = one / measured.step, one / predicted
    speed = f"{setting.mbit:,g}" if setting.mbit else "no limit"
    return [
        *(setting.strategy, f"{setting.megabytes:g} MB", speed, str(workers), f"{measured.sent / 1e6:.1f} MB"),
        *(
            f"{measured.step:.3f} s",
            f"{predicted:.3f} s",
            f"{ours:.1%}",
            f"{formula:.1%}",
            f"{ours / formula - 1:+.1%}",
        ),
    ]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4, 8])
    links = ["100:4", "1000:4,22,90", "10000:4,22,90"]
    parser.add_argument("--links", nargs="+", default=links, help="Mbit/s:megabytes of fp32 gradients,...")
    parser.add_argument("--strategies", nargs="+", choices=_STRATEGIES, default=_STRATEGIES)
    parser.add_argument("--compute", type=float, default=0.6, help="seconds of compute in a step")
    parser.add_argument("--steps", type=int, default=2)
    for name, kind in (("--rank", int), ("--n-workers", int), ("--folder", Path), ("--settings", str)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    return parser.parse_args()


if __name__ == "__main__":
    main()
