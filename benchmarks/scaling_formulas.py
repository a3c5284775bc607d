"""How training, checkpoints and serving scale, as plain functions.

Sizes are in bytes, times in seconds, rates in bytes per second. benchmarks/scaling.py measures the first functions, and
benchmarks/scaling_tables.py prints the tables of docs/explanation/scaling.md.
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
FP32_BYTES = 4
_BUCKET = 25e6


def model_flops_share(model: Model) -> float:
    """Return the share of the GPU's peak that a model reaches, without attention's own operations."""
    return _FLOPS_PER_PARAMETER * model.parameters * model.tokens_per_s / _PEAK


def ddp_efficiency(model: Model, cluster: Cluster, gpus: int, passes: int = 1) -> float:
    """Return a step's time without communication, divided by its time with it, for DDP.

    With several `passes` a step (micro-batches), gradients are summed over the workers in the last one only.
    """
    size, compute = model.parameters * FP32_BYTES, model.compute
    buckets = max(1, round(size / _BUCKET))
    step = ddp_step(compute / 3, compute * 2 / 3, [cluster.all_reduce(size / buckets, gpus)] * buckets)
    before = (passes - 1) * compute
    return (before + compute) / (before + step)


def fsdp_efficiency(model: Model, cluster: Cluster, gpus: int, bytes_each: float = FP32_BYTES) -> float:
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
DEFAULT_INTERVAL = 300.0


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
    weights = model.parameters * FP32_BYTES
    rounds = 1 if remembered else math.ceil(replicas / cores)
    return weights / STORAGE_RATE + rounds * weights / HASH_RATE
