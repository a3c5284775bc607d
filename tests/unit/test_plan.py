"""Resource sizes, and the check that a run fits the cluster, without Ray."""

import pytest

import raymill
from cluster.errors import DataError, ResourceError
from cluster.plan import Demand, Node, capacity, check_fits
from trainer.pipeline.resources import list_demands, plan_resources
from trainer.tasks.load_spec import load_spec

TWO = [Node(2, 0)]
SEARCH = {"trials": 4, "space": {"train.learning_rate": {"uniform": [0.1, 0.2]}}}


def spec(**sections):
    return load_spec({"name": "a", "data": {"train": "t.csv"}, "model": {"base": "b"}, **sections})


def test_one_training_gets_all_cores_and_a_search_shares_them():
    assert plan_resources(spec(), TWO) == (2, 1)
    assert plan_resources(spec(tune=SEARCH), TWO) == (1, 2)
    assert plan_resources(spec(tune=SEARCH), [Node(16, 0)]) == (4, 4)
    assert plan_resources(spec(tune=SEARCH, cluster={"workers": 2}), TWO) == (1, 1)
    assert plan_resources(spec(tune={**SEARCH, "max_concurrent": 1}), TWO) == (2, 1)


def test_gpus_limit_trials():
    nodes = [Node(16, 4), Node(16, 4)]
    assert plan_resources(spec(tune=SEARCH, cluster={"gpus_per_worker": 1, "workers": 2}), nodes) == (4, 4)
    assert plan_resources(spec(tune={**SEARCH, "trials": 20}, cluster={"gpus_per_worker": 1}), nodes) == (4, 8)


def test_a_worker_must_fit_on_one_node():
    assert capacity([Node(3, 0), Node(3, 0)], 2, 0) == 2
    assert plan_resources(spec(), [Node(4, 0), Node(4, 0)]).cpus_per_worker == 4


@pytest.mark.parametrize(
    ("sections", "nodes", "message"),
    [
        ({"cluster": {"workers": 5}}, TWO, "5 workers need 5 x 1 CPU = 5 CPU; the cluster has 2 CPU, room for 2"),
        ({"cluster": {"gpus_per_worker": 1}}, TWO, "1 x 1 GPU"),
        ({"cluster": {"cpus_per_worker": 3}}, TWO, "1 workers need 1 x 3 CPU"),
        ({"serve": {"replicas": 3}}, TWO, "3 replicas need 3 x 1 CPU"),
        ({"cluster": {"workers": 3}, "tune": SEARCH}, TWO, "tune does not fit"),
        (
            {"cluster": {"cpus_per_worker": 3, "workers": 2}},
            [Node(2, 0), Node(2, 0), Node(2, 0)],
            "on 3 nodes, room for 0",
        ),
    ],
)
def test_a_demand_that_cannot_fit_is_refused_with_the_sum(sections, nodes, message):
    run_spec = spec(**sections)
    with pytest.raises(ResourceError) as caught:
        check_fits(list_demands(run_spec, plan_resources(run_spec, nodes)), nodes)
    assert message in str(caught.value)


def test_a_demand_that_fits_passes():
    check_fits([Demand("train", "2 workers", 2, 1, 0, "cluster.workers")], TWO)
    check_fits(list_demands(spec(tune=SEARCH), plan_resources(spec(tune=SEARCH), TWO)), TWO)


def test_a_plan_refuses_a_missing_file_like_a_run(tmp_path):
    with pytest.raises(DataError, match="there is no such file"):
        raymill.plan({"name": "a", "data": {"train": str(tmp_path / "none.csv")}, "model": {"base": "b"}})
