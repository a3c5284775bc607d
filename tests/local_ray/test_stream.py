"""Training from a stream: Ray Data feeds the workers, nothing but held-out rows is written, and it learns as well."""

import pytest

from cluster.errors import ResourceError, SpecError
from cluster.plan import Node, check
from support.tiny_text import tiny_spec
from trainer.data.prepare import prepare as preparing
from trainer.pipeline.resources import demands, layout
from trainer.tasks.resolve import load
from trainer.training.launch import fit


@pytest.mark.parametrize("workers", [2])
def test_learns_from_a_stream(tiny_base, tiny_data, tmp_path, workers):
    given = tiny_spec(tiny_base, tiny_data, tmp_path, cluster={"workers": workers})
    given["data"] = {**given["data"], "mode": "streaming", "steps": ["normalize", "balance"]}
    given["train"] = {**given["train"], "epochs": 6}
    spec = load(given)
    prepared = preparing.prepare(spec, lambda progress: None, tmp_path / "quarantine.parquet")
    result = fit(spec, prepared.folder, tmp_path / "run", 1.0 / workers)
    assert len(result.history) == 6
    assert result.metrics["accuracy"] > 0.9


def test_a_core_is_kept_for_ray_data(tiny_base, tiny_data, tmp_path):
    given = tiny_spec(tiny_base, tiny_data, tmp_path)
    given["data"] = {**given["data"], "mode": "streaming"}
    spec = load(given)
    sizes = layout(spec, [Node(4, 0)])
    assert sizes.cpus_per_worker == 3
    check(demands(spec, sizes), [Node(4, 0)])
    with pytest.raises(ResourceError, match="1 workers and the reading for them need 1 x 2 CPU"):
        check(demands(spec, layout(spec, [Node(1, 0)])), [Node(1, 0)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tune": {"space": {"train.epochs": {"choice": [1, 2]}}}}, "cannot be searched over"),
        ({"cluster": {"workers": 3}}, "divides by cluster.workers=3, not 8; try 6"),
    ],
)
def test_what_a_stream_cannot_do_is_refused(tiny_base, tiny_data, tmp_path, changes, message):
    given = tiny_spec(tiny_base, tiny_data, tmp_path, **changes)
    given["data"] = {**given["data"], "mode": "streaming"}
    with pytest.raises(SpecError, match=message):
        load(given)
