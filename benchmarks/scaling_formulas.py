"""How training, checkpoints and serving scale, as plain functions, and the tables of docs/explanation/scaling.md.

    python benchmarks/scaling_formulas.py        print every table of the page

Sizes are in bytes, times in seconds, rates in bytes per second. benchmarks/scaling.py measures the first functions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

# -- traffic of one step


def all_reduce_traffic(size: float, workers: int) -> float:
    """Return the bytes that each worker sends to sum `size` bytes over all workers by a ring."""
    return 2 * (workers - 1) / workers * size


def gather_traffic(size: float, workers: int) -> float:
    """Return the bytes that each worker sends to gather `size` bytes that are sharded, or to reduce and scatter them."""
    return (workers - 1) / workers * size


def fsdp_traffic(size: float, workers: int) -> float:
    """Return the bytes that each worker sends in a step of FSDP: weights twice, gradients once."""
    return 3 * gather_traffic(size, workers)


# -- time of one step


def ddp_step(forward: float, backward: float, all_reduces: Sequence[float]) -> float:
    """Return the time of a step of DDP whose buckets are summed, one after the other, while the backward pass runs.

    `all_reduces` are the times of equal buckets. The last one becomes ready when the backward pass ends.
    """
    end = 0.0
    for number, seconds in enumerate(all_reduces, 1):
        ready = backward * number / len(all_reduces)
        end = max(end, ready) + seconds
    return forward + max(backward, end)


def serial_step(compute: float, communication: float) -> float:
    """Return the time of a step whose communication does not overlap with its compute."""
    return compute + communication


def fsdp_step(forward: float, backward: float, gathers: Sequence[float], reduces: Sequence[float]) -> float:
    """Return the time of a step of FSDP on GPUs: a layer is gathered while the one before it computes.

    `gathers` and `reduces` are the times of each layer. The first gather and the last reduction overlap with nothing.
    Backward, a layer is gathered and the gradient of another one is reduced on the same links.
    """
    layers = len(gathers)
    ahead = [max(forward / layers, gather) for gather in gathers[1:]] + [forward / layers]
    both = [max(backward / layers, gather + reduce) for gather, reduce in zip(gathers[1:], reduces[1:], strict=True)]
    return gathers[0] + sum(ahead) + sum(both) + backward / layers + reduces[0]


# -- clusters


class Cluster(NamedTuple):
    """Machines with equal GPUs."""

    name: str
    gpus_per_machine: int
    nvlink: float
    """Bytes per second that a GPU sends to the others of its machine."""
    nic: float
    """Bytes per second that a machine sends to other machines, with all its network cards."""
    share: float = 0.8
    """The share of these speeds that collectives reach."""
    hop: float = 10e-6
    """Seconds until a message of no size arrives at the next GPU."""

    def ring_rate(self, gpus: int) -> float:
        """Return the bytes per second at which a ring over `gpus` passes its data on, per GPU.

        Rings enter and leave each machine once, so all its cards together are one link of the ring.
        """
        return self.share * (self.nvlink if gpus <= self.gpus_per_machine else min(self.nvlink, self.nic))

    def all_reduce(self, size: float, gpus: int) -> float:
        """Return the seconds of an all-reduce: traffic by a ring, latency by a tree."""
        if gpus == 1:
            return 0.0
        return all_reduce_traffic(size, gpus) / self.ring_rate(gpus) + 2 * math.log2(gpus) * self.hop

    def gather(self, size: float, gpus: int) -> float:
        """Return the seconds to gather `size` bytes, or to reduce and scatter them, by a ring."""
        return gather_traffic(size, gpus) / self.ring_rate(gpus) + (gpus - 1) * self.hop


_GBIT = 1e9 / 8
#: NVLink 4: 900 GB/s in both directions. A card of 400 Gbit/s for each GPU, one of 100 Gbit/s, or one of 10 Gbit/s.
FAST = Cluster("8 x 400 Gbit/s", 8, 450e9, 8 * 400 * _GBIT)
COMMON = Cluster("1 x 100 Gbit/s", 8, 450e9, 100 * _GBIT)
SLOW = Cluster("1 x 10 Gbit/s", 8, 450e9, 10 * _GBIT)
CLUSTERS = (FAST, COMMON, SLOW)
GPUS = (8, 64, 128, 256, 1024)


class Model(NamedTuple):
    """A model with the tokens that a GPU trains on in one step, and its speed on one machine of 8 H100."""

    name: str
    parameters: float
    layers: int
    tokens: float
    tokens_per_s: float
    """Tokens per second and GPU, on 8 GPUs."""

    @property
    def compute(self) -> float:
        """Seconds of a step, of which the forward pass takes a third."""
        return self.tokens / self.tokens_per_s


_PEAK = 989e12  # FLOP/s of an H100 in bf16
_FLOPS_PER_PARAMETER = 6  # per token: 2 forward, 4 backward
#: The encoder's speed is an assumption: 20 % of the peak. The others are published, see the page.
ENCODER = Model("22 M encoder", 22.7e6, 6, 64 * 128, 0.2 * _PEAK / (_FLOPS_PER_PARAMETER * 22.7e6))
ONE_B = Model("1 B", 1.316e9, 24, 14 * 2048, 45_455)
EIGHT_B = Model("8 B", 8.03e9, 32, 2 * 8192, 5_762)
MODELS = (ENCODER, ONE_B, EIGHT_B)
_FP32 = 4
_BUCKET = 25e6


def model_flops_share(model: Model) -> float:
    """Return the share of the GPU's peak that a model reaches, without attention's own operations."""
    return _FLOPS_PER_PARAMETER * model.parameters * model.tokens_per_s / _PEAK


def ddp_efficiency(model: Model, cluster: Cluster, gpus: int, passes: int = 1) -> float:
    """Return a step's time without communication, divided by its time with it, for DDP.

    With several `passes` a step (micro-batches), gradients are summed over the workers in the last one only.
    """
    size, compute = model.parameters * _FP32, model.compute
    buckets = max(1, round(size / _BUCKET))
    step = ddp_step(compute / 3, compute * 2 / 3, [cluster.all_reduce(size / buckets, gpus)] * buckets)
    before = (passes - 1) * compute
    return (before + compute) / (before + step)


def fsdp_efficiency(model: Model, cluster: Cluster, gpus: int, bytes_each: float = _FP32) -> float:
    """Return a step's time without communication, divided by its time with it, for FSDP in equal layers."""
    layer = cluster.gather(model.parameters * bytes_each / model.layers, gpus)
    gathers = [layer] * model.layers
    compute = model.compute
    return compute / fsdp_step(compute / 3, compute * 2 / 3, gathers, gathers)


# -- memory, data, checkpoints, failures

#: Bytes per trainable parameter: fp32 weights and AdamW's two moments; a gradient comes on top while training.
STATE_BYTES = 12
GRADIENT_BYTES = 4
#: Measured on one core (sha_ni): `cluster.digests`.
HASH_RATE = 1.36e9
#: A file server behind 10 Gbit/s.
STORAGE_RATE = 1.25e9
#: Llama 3: 419 unexpected interruptions in 54 days on 16,384 GPUs.
GPU_HOURS_PER_FAILURE = 16_384 * 54 * 24 / 419
#: Seconds to notice, to place new workers and to load the checkpoint: an assumption.
_RESTART = 300.0
#: `train.checkpoint.every_minutes`.
_DEFAULT_INTERVAL = 300.0


def state_bytes_per_gpu(model: Model, gpus: int, *, sharded: bool) -> float:
    """Return the bytes of weights, moments and gradients on a GPU, without activations."""
    return model.parameters * (STATE_BYTES + GRADIENT_BYTES) / (gpus if sharded else 1)


def data_rate(model: Model, gpus: int) -> float:
    """Return the bytes of token ids (int32) that all GPUs read per second."""
    return model.tokens_per_s * 4 * gpus


def checkpoint_bytes(model: Model) -> float:
    """Return the size of a checkpoint."""
    return model.parameters * STATE_BYTES


def write_seconds(size: float, rate: float = STORAGE_RATE) -> float:
    """Return the seconds in which rank 0 writes `size` bytes and hashes what it wrote."""
    return size / rate + size / HASH_RATE


def stop_seconds(size: float, rate: float = 10e9) -> float:
    """Return the seconds for which training stops for a checkpoint: rank 0 copies `size` bytes to its own memory."""
    return size / rate


def hours_between_failures(gpus: int) -> float:
    """Return the mean time between failures of a training on `gpus`."""
    return GPU_HOURS_PER_FAILURE / gpus


def checkpoint_interval(stop: float, between_failures: float) -> float:
    """Return Young's and Daly's interval, to first order: where stops and lost work cost the same."""
    return math.sqrt(2 * stop * between_failures)


def lost_share(stop: float, interval: float, between_failures: float, restart: float = _RESTART) -> float:
    """Return the share of the time that checkpoints, lost work and restarts take."""
    return stop / interval + (interval / 2 + restart) / between_failures


class Checkpointing(NamedTuple):
    """The checkpoints of one training."""

    stop: float
    write: float
    interval: float
    lost: float


def plan_checkpoints(model: Model, gpus: int) -> Checkpointing:
    """Return the times of a model's checkpoints. The interval is never shorter than the write in the background."""
    size, between = checkpoint_bytes(model), hours_between_failures(gpus) * 3600
    stop, write = stop_seconds(size), write_seconds(size)
    interval = max(write, checkpoint_interval(stop, between))
    return Checkpointing(stop, write, interval, lost_share(stop, interval, between))


# -- serving


def replicas_for(requests_per_s: float, per_replica: float, load: float = 0.7) -> int:
    """Return how many replicas answer `requests_per_s` if each is loaded to `load` of its measured rate."""
    return math.ceil(requests_per_s / (per_replica * load))


MILLION_A_MINUTE = 1e6 / 60
#: Bytes of one replica's metrics on the page of all, measured.
METRICS_PAGE = 11_300


def start_seconds(model: Model, replicas: int, cores: int, *, remembered: bool) -> float:
    """Return the seconds in which the replicas of one machine read and hash their model's fp32 weights.

    The file is read from storage once, and from memory after that. If its digest is `remembered`, one replica hashes
    it; otherwise each does, on a core of its own while there are cores.
    """
    weights = model.parameters * _FP32
    rounds = 1 if remembered else math.ceil(replicas / cores)
    return weights / STORAGE_RATE + rounds * weights / HASH_RATE


# -- the tables of the page


def percent(value: float) -> str:
    """Return a share in percent with one decimal; a loss never rounds up to 100 %."""
    rounded = round(value * 100, 1)
    return f"{99.9 if value < 1 and rounded == 100 else rounded:.1f} %"


def seconds(value: float) -> str:
    """Return a time with two significant digits and a unit that fits."""
    for unit, size in (("d", 86_400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if value >= 2 * size or unit == "s":
            break
    if value < 1:
        return f"{value * 1000:.2g} ms" if value < 0.0995 else f"{value * 1000:.0f} ms"
    amount = value / size
    return f"{amount:.1f} {unit}" if amount < 10 else f"{amount:,.0f} {unit}"


def size(value: float) -> str:
    """Return a number of bytes in MB, GB or TB."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if value >= factor or unit == "MB":
            break
    amount = value / factor
    return f"{amount:.1f} {unit}" if amount < 100 else f"{amount:,.0f} {unit}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def models_table() -> str:
    """Return the models with a step's compute and traffic."""
    rows = [
        [
            model.name,
            f"{model.parameters / 1e6:,.1f} M",
            f"{model.tokens:,.0f}",
            f"{model.tokens_per_s:,.0f}",
            percent(model_flops_share(model)),
            seconds(model.compute),
            size(all_reduce_traffic(model.parameters * _FP32, 1024)),
            size(fsdp_traffic(model.parameters * _FP32, 1024)),
        ]
        for model in MODELS
    ]
    return table(
        ["model", "parameters", "tokens a GPU and step", "tokens/s a GPU", "of the peak", "step",
         "DDP sends", "FSDP sends"], rows
    )  # fmt: skip


def efficiency_table(strategy: str) -> str:
    """Return the efficiency of `ddp` or `fsdp` for each model, cluster and number of GPUs."""
    function = {"ddp": ddp_efficiency, "fsdp": fsdp_efficiency}[strategy]
    rows = [
        [model.name, cluster.name, *(percent(function(model, cluster, gpus)) for gpus in GPUS)]
        for model in MODELS
        for cluster in CLUSTERS
        if not (strategy == "ddp" and model is EIGHT_B)
    ]
    return table(["model", "network of a machine", *(f"{gpus:,} GPUs" for gpus in GPUS)], rows)


def passes_table() -> str:
    """Return the efficiency of DDP on 64 GPUs with several passes a step."""
    counts = (1, 4, 16, 64)
    rows = [
        [model.name, cluster.name, *(percent(ddp_efficiency(model, cluster, 64, passes)) for passes in counts)]
        for model in (ENCODER, ONE_B)
        for cluster in (COMMON, SLOW)
    ]
    return table(["model", "network of a machine", *(f"{n} passes" if n > 1 else "1 pass" for n in counts)], rows)


def memory_table() -> str:
    """Return the memory of weights, moments and gradients on each GPU."""
    rows = [
        [
            model.name,
            size(state_bytes_per_gpu(model, 1, sharded=False)),
            *(size(state_bytes_per_gpu(model, gpus, sharded=True)) for gpus in GPUS),
        ]
        for model in MODELS
    ]
    return table(["model", "DDP", *(f"FSDP, {gpus:,} GPUs" for gpus in GPUS)], rows)


def data_table() -> str:
    """Return the rate at which all GPUs read tokens."""
    rows = [[model.name, *(f"{size(data_rate(model, gpus))}/s" for gpus in GPUS)] for model in MODELS]
    return table(["model", *(f"{gpus:,} GPUs" for gpus in GPUS)], rows)


def checkpoint_table() -> str:
    """Return size, times and interval of checkpoints."""
    rows = []
    for model in MODELS:
        for gpus in (8, 128, 1024):
            plan = plan_checkpoints(model, gpus)
            rows.append(
                [model.name, f"{gpus:,}", size(checkpoint_bytes(model)), seconds(plan.stop), seconds(plan.write),
                 seconds(hours_between_failures(gpus) * 3600), seconds(plan.interval), f"{plan.lost * 100:.2f} %",
                 f"{lost_share(plan.stop, _DEFAULT_INTERVAL, hours_between_failures(gpus) * 3600) * 100:.2f} %"]
            )  # fmt: skip
    return table(
        [
            "model",
            "GPUs",
            "checkpoint",
            "training stops",
            "write and hash",
            "between failures",
            "interval",
            "lost",
            "lost every 5 min",
        ],
        rows,
    )


#: Published tokens/s per GPU on H100: model, on few GPUs, on many.
PUBLISHED = (
    ("torchtitan, Llama 3.1 8B", EIGHT_B, 8, 5_762, 128, 5_605),
    ("torchtitan, Llama 3.1 8B, torch.compile", EIGHT_B._replace(tokens_per_s=6_667), 8, 6_667, 128, 6_514),
    ("MosaicML, MPT 1B", ONE_B, 8, 45_455, 64, 44_402),
    ("MosaicML, MPT 13B", Model("13 B", 12.85e9, 40, 2 * 2048, 4_792), 8, 4_792, 64, 4_800),
)


def published_table() -> str:
    """Return published scaling beside the formula's, with weights gathered in bf16 as they do."""
    rows = []
    for name, model, few, before, many, after in PUBLISHED:
        ours = fsdp_efficiency(model, FAST, many, 2) / fsdp_efficiency(model, FAST, few, 2)
        rows.append([name, f"{few} to {many}", f"{before:,}", f"{after:,}", percent(after / before), percent(ours)])
    return table(["source", "GPUs", "tokens/s a GPU, few", "many", "published", "formula"], rows)


#: Measured on 2 cores of an AMD EPYC: docs/explanation/benchmarks.md.
REPLICAS = (
    ("linear model of a table, one process", 897),
    ("MiniLM-L6, onnx-int8, one core", 419),
    ("MiniLM-L6, the model itself, one core", 84),
)


def replicas_table() -> str:
    """Return the replicas for a million requests a minute."""
    rows = [
        [name, f"{rate:,}", f"{replicas_for(MILLION_A_MINUTE, rate):,}"]
        for name, rate in REPLICAS
    ]  # fmt: skip
    return table(["replica", "requests/s", "replicas for 16,667 requests/s"], rows)


def start_table() -> str:
    """Return how long the weights hold up 8 replicas that start on a machine with 2 or 16 cores for them."""
    rows = [
        [model.name, size(model.parameters * _FP32),
         *(seconds(start_seconds(model, 8, cores, remembered=remembered))
           for cores in (2, 16) for remembered in (False, True))]
        for model in MODELS
    ]  # fmt: skip
    return table(
        ["model", "weights", "2 cores, each hashes", "2 cores, one hashes", "16 cores, each hashes",
         "16 cores, one hashes"], rows
    )  # fmt: skip


def metrics_table() -> str:
    """Return the size of the page with the metrics of all replicas."""
    rows = [[f"{replicas:,}", size(replicas * METRICS_PAGE)] for replicas in (1, 20, 200, 1000)]
    return table(["replicas", "page"], rows)


TABLES = {
    "models": models_table,
    "ddp": lambda: efficiency_table("ddp"),
    "passes": passes_table,
    "fsdp": lambda: efficiency_table("fsdp"),
    "memory": memory_table,
    "data": data_table,
    "checkpoints": checkpoint_table,
    "published": published_table,
    "replicas": replicas_table,
    "starts": start_table,
    "metrics": metrics_table,
}


def main() -> None:
    """Print every table."""
    for name, function in TABLES.items():
        print(f"{name}\n\n{function()}\n")


if __name__ == "__main__":
    main()
