"""Training from a stream: Ray Data feeds the workers, only held-out rows are written, and the model learns as well."""

import pytest

from cluster.errors import ResourceError, SpecError
from cluster.plan import Node, check_fits
from support.tiny_text import tiny_spec
from trainer.data.prepare import prepare as preparing
from trainer.pipeline.resources import list_demands, plan_resources
from trainer.tasks.load_spec import load_spec
from trainer.training.launch import launch_training


@pytest.mark.parametrize("workers", [2])
def test_learns_from_a_stream(tiny_base, tiny_data, tmp_path, workers):
    raw = tiny_spec(tiny_base, tiny_data, tmp_path, cluster={"workers": workers})
    raw["data"] = {**raw["data"], "mode": "streaming", "steps": ["normalize", "balance"]}
    raw["train"] = {**raw["train"], "epochs": 6}
    spec = load_spec(raw)
    prepared = preparing.prepare_rows(spec, lambda progress: None, tmp_path / "quarantine.parquet")
    result = launch_training(spec, prepared.folder, tmp_path / "run", 1.0 / workers)
    assert len(result.history) == 6
    assert result.metrics["accuracy"] > 0.9


def test_a_core_is_left_for_ray_data(tiny_base, tiny_data, tmp_path):
    raw = tiny_spec(tiny_base, tiny_data, tmp_path)
    raw["data"] = {**raw["data"], "mode": "streaming"}
    spec = load_spec(raw)
    resources = plan_resources(spec, [Node(4, 0)])
    assert resources.cpus_per_worker == 3
    check_fits(list_demands(spec, resources), [Node(4, 0)])
    with pytest.raises(ResourceError, match="1 workers and the reading for them need 1 x 2 CPU"):
        check_fits(list_demands(spec, plan_resources(spec, [Node(1, 0)])), [Node(1, 0)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tune": {"space": {"train.epochs": {"choice": [1, 2]}}}}, "does not work with tune"),
        ({"cluster": {"workers": 3}}, "multiple of cluster.workers=3, and 8 is not; try 6"),
    ],
)
def test_specs_that_cannot_be_streamed_are_refused(tiny_base, tiny_data, tmp_path, changes, message):
    raw = tiny_spec(tiny_base, tiny_data, tmp_path, **changes)
    raw["data"] = {**raw["data"], "mode": "streaming"}
    with pytest.raises(SpecError, match=message):
        load_spec(raw)
