"""The time of a training step over links of set speed, by formula: what benchmarks/scaling.py measures."""

from __future__ import annotations

from typing import NamedTuple

from benchmarks import scaling_formulas as formulas

LAYERS = 8
#: Of each packet of 1,514 bytes, 1,448 are data; the rest are the headers of Ethernet, IP and TCP.
_PAYLOAD = 1448 / 1514
# `support.namespaces` fills a link's token bucket with this many bytes, or with those of this time at the link's speed.
_BURST_BYTES, _BURST_S = 131_072, 0.002
_DDP_FIRST_BUCKET, _DDP_BUCKET = 1 << 20, 25 << 20


class Setting(NamedTuple):
    """One measurement: a strategy, the megabytes of gradients, and the speed of the links in Mbit/s."""

    strategy: str
    megabytes: float
    mbit: float


class Cores(NamedTuple):
    """What the cores of this computer cost with a number of workers, measured without a limit of the links."""

    rate: float
    """Bytes per second that each worker sends in an all-reduce."""
    hop: float
    """Seconds of a hop."""
    cost: dict[str, tuple[float, float]]
    """By strategy: further seconds of a step, and further seconds per byte of gradients."""


def predict_step(setting: Setting, workers: int, one_worker: float, compute: float, cores: Cores) -> float:
    """Return the time of a step by the formula. `one_worker` is the measured step of one worker, without any traffic."""
    size = setting.megabytes * 1e6
    rate = min(setting.mbit * 1e6 / 8 * _PAYLOAD or cores.rate, cores.rate)

    def all_reduce(part: float) -> float:
        return formulas.all_reduce_traffic(part, workers) / rate + 2 * (workers - 1) * cores.hop

    fixed, per_byte = cores.cost[setting.strategy]
    cost = fixed + per_byte * size - free_seconds(setting, cores.rate)
    if setting.strategy == "flat":
        return formulas.serial_step(one_worker, all_reduce(size)) + cost
    if setting.strategy == "ddp":
        backward = compute * 2 / 3
        end, first = 0.0, 0
        for last in bucket_ends(LAYERS, size / LAYERS):
            end = max(end, backward * last / LAYERS) + all_reduce((last - first) * size / LAYERS)
            first = last
        return one_worker - backward + max(backward, end) + cost
    # On CPUs, FSDP waits for each gather and each reduction; gloo reduces and scatters by an all-reduce.
    gather = formulas.gather_traffic(size, workers) / rate + LAYERS * (workers - 1) * cores.hop
    reduce = LAYERS * all_reduce(size / LAYERS)
    return formulas.serial_step(one_worker, 2 * gather + reduce) + cost


def free_seconds(setting: Setting, cores_rate: float) -> float:
    """Return the seconds of a step that the links' token buckets give for free: each is full again after a pause.

    Before FSDP's gathers in the forward pass and its reductions in the backward pass, a layer computes. 0 if the cores
    are slower than the link.
    """
    link = setting.mbit * 1e6 / 8
    if not link or link * _PAYLOAD > cores_rate:
        return 0.0
    layer_bytes = setting.megabytes * 1e6 / LAYERS
    pauses = {"flat": 1, "ddp": len(bucket_ends(LAYERS, layer_bytes)), "fsdp": 2 * LAYERS}[setting.strategy]
    return pauses * max(_BURST_BYTES, link * _BURST_S) / link


def bucket_ends(layers: int, layer_bytes: float) -> list[int]:
    """Return after how many layers, in the order of the backward pass, each of DDP's buckets is complete.

    raymill's DDP keeps the first layout of its buckets: filled from the first layer on, the first one up to 1 MiB and
    the others up to 25 MiB, and summed from the last one on.
    """
    sizes, filled, limit = [0], 0.0, _DDP_FIRST_BUCKET
    for layer in range(layers):
        sizes[-1] += 1
        filled += layer_bytes
        if filled >= limit and layer < layers - 1:
            sizes.append(0)
            filled, limit = 0.0, _DDP_BUCKET
    ends, total = [], 0
    for size in reversed(sizes):
        total += size
        ends.append(total)
    return ends
