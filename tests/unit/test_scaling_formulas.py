"""The formulas of docs/explanation/scaling.md: the page shows what they give, and they hold in simple cases."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import scaling_formulas, scaling_prediction
from benchmarks.scaling_formulas import CLUSTERS, EIGHT_B, ENCODER, FAST, GPUS, MODELS, ONE_B
from benchmarks.scaling_tables import TABLES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explanation" / "scaling.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", TABLES)
def test_the_page_shows_what_the_formulas_give(name):
    assert TABLES[name]() in PAGE, "print the table with `python benchmarks/scaling_tables.py`, and put it on the page"


def test_the_command_prints_every_table():
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "scaling_tables.py"], capture_output=True, text=True, check=True
    )
    assert all(function() in done.stdout for function in TABLES.values())


@pytest.mark.parametrize(
    "figure",
    [
        f"{scaling_formulas.GPU_HOURS_PER_FAILURE:,.0f}",
        f"{scaling_formulas.MILLION_A_MINUTE:,.0f} requests/s",
        f"{scaling_formulas.METRICS_PAGE:,} bytes",
        f"{scaling_formulas.HASH_RATE / 1e9} GB/s",
        f"{scaling_formulas.STORAGE_RATE / 1e9} GB/s",
        f"{16 * 128 / 1.25 / 60:.0f} minutes",
    ],
)
def test_figures_in_the_text(figure):
    assert figure in PAGE


def test_published_scaling():
    assert round(5_605 / 5_762, 3) == 0.973
    assert round(44_402 / 45_455, 3) == 0.977
    assert "97.3 %" in TABLES["published"]() and "97.7 %" in TABLES["published"]()


def test_a_step_of_ddp_waits_for_what_the_backward_pass_does_not_hide():
    assert scaling_formulas.ddp_step(1.0, 2.0, [0.0, 0.0]) == 3.0
    assert scaling_formulas.ddp_step(1.0, 2.0, [0.5, 0.5]) == pytest.approx(3.5)  # the last bucket only
    assert scaling_formulas.ddp_step(1.0, 2.0, [3.0, 3.0]) == pytest.approx(1 + 1 + 6)  # the link is always busy
    assert scaling_formulas.ddp_step(1.0, 2.0, [0.5]) == pytest.approx(3.5)


def test_a_step_of_fsdp_waits_for_the_first_gather_and_the_last_reduction():
    nothing, short, long = [0.0] * 4, [0.1] * 4, [5.0] * 4
    assert scaling_formulas.fsdp_step(1.0, 2.0, nothing, nothing) == pytest.approx(3.0)
    assert scaling_formulas.fsdp_step(1.0, 2.0, short, short) == pytest.approx(3.2)
    exposed = scaling_formulas.fsdp_step(1.0, 2.0, long, long)
    assert exposed == pytest.approx(4 * 5 + 0.25 + 3 * 10 + 0.5 + 5)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("cluster", CLUSTERS)
def test_efficiency_falls_with_the_number_of_gpus_and_rises_with_the_network(model, cluster):
    for function in (scaling_formulas.ddp_efficiency, scaling_formulas.fsdp_efficiency):
        values = [function(model, cluster, gpus) for gpus in GPUS]
        assert all(0 < after <= before <= 1 for before, after in itertools.pairwise(values))
        assert values[-1] <= function(model, FAST, GPUS[-1])


def test_more_passes_of_a_step_hide_its_communication():
    values = [scaling_formulas.ddp_efficiency(ONE_B, CLUSTERS[1], 64, passes) for passes in (1, 2, 8, 1000)]
    assert values == sorted(values) and values[-1] > 0.99


def test_the_interval_of_checkpoints_loses_least():
    stop, between = 9.6, 50 * 3600.0
    best = scaling_formulas.checkpoint_interval(stop, between)
    losses = [scaling_formulas.lost_share(stop, best * factor, between) for factor in (0.5, 0.9, 1.0, 1.1, 2.0)]
    assert min(losses) == losses[2]


def test_sizes_of_checkpoints_and_memory():
    assert scaling_formulas.checkpoint_bytes(EIGHT_B) == pytest.approx(96.4e9, rel=1e-3)
    assert scaling_formulas.state_bytes_per_gpu(EIGHT_B, 8, sharded=True) == pytest.approx(16.06e9, rel=1e-3)
    assert scaling_formulas.replicas_for(1000, 100, load=0.5) == 20
    assert scaling_formulas.data_rate(ENCODER, 1024) > scaling_formulas.STORAGE_RATE


@pytest.mark.parametrize(
    ("layer_bytes", "ends"), [(2.75e6, [7, 8]), (11.25e6, [1, 4, 7, 8]), (0.5e6, [5, 8]), (1e3, [8])]
)
def test_buckets_of_ddp(layer_bytes, ends):
    assert scaling_prediction.bucket_ends(8, layer_bytes) == ends


def test_a_prediction_without_traffic_is_the_step_of_one_worker():
    cores = scaling_prediction.Cores(1e12, 0.0, dict.fromkeys(("flat", "ddp", "fsdp"), (0.0, 0.0)))
    for strategy in ("flat", "ddp", "fsdp"):
        setting = scaling_prediction.Setting(strategy, 22.0, 1e12)
        assert scaling_prediction.predict_step(setting, 8, 0.7, 0.6, cores) == pytest.approx(0.7, rel=1e-3)


def test_measured_efficiencies_are_within_15_percent_of_the_formula_but_for_those_that_the_page_names():
    rows = [line for line in PAGE.splitlines() if line.startswith(("| flat ", "| ddp ", "| fsdp "))]
    differences = [float(row.split("|")[-2].strip().rstrip("%")) for row in rows]
    n_within = sum(abs(difference) <= 15 for difference in differences)
    assert f"{n_within} of the {len(rows)} rows are within 15 %" in PAGE
    assert n_within >= 0.9 * len(rows) > 0
