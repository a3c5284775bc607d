"""The tables of docs/explanation/scaling.md, from the formulas of benchmarks/scaling_formulas.py.

python benchmarks/scaling_tables.py        print every table of the page
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.scaling_formulas import (
    CLUSTERS,
    COMMON,
    DEFAULT_INTERVAL,
    EIGHT_B,
    ENCODER,
    FAST,
    FP32_BYTES,
    GPUS,
    METRICS_PAGE,
    MILLION_A_MINUTE,
    MODELS,
    ONE_B,
    SLOW,
    Model,
    all_reduce_traffic,
    checkpoint_bytes,
    data_rate,
    ddp_efficiency,
    fsdp_efficiency,
    fsdp_traffic,
    hours_between_failures,
    lost_share,
    model_flops_share,
    plan_checkpoints,
    replicas_for,
    start_seconds,
    state_bytes_per_gpu,
)


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
            size(all_reduce_traffic(model.parameters * FP32_BYTES, 1024)),
            size(fsdp_traffic(model.parameters * FP32_BYTES, 1024)),
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
                 f"{lost_share(plan.stop, DEFAULT_INTERVAL, hours_between_failures(gpus) * 3600) * 100:.2f} %"]
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
        [model.name, size(model.parameters * FP32_BYTES),
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
