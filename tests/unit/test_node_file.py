"""The file of nodes for `raymill plan --nodes`, and the known types of GPUs."""

import pytest

import raymill
from cluster.accelerators import known_types, memory_of_type, type_in_resources
from cluster.errors import ResourceError, SpecError
from cluster.node_file import parse_size, read_nodes
from cluster.plan import Node
from support.model_headers import BERT_LARGE, write_bert_headers

GIB = 1 << 30


def write(path, text):
    path.write_text(text)
    return path


def test_nodes_are_repeated_and_keep_what_ray_leaves_for_processes(tmp_path):
    text = """
nodes:
  - {count: 2, cpus: 16, memory: 100GB}
  - {cpus: 32, memory: 1000 GB, gpus: 8, gpu_type: A100-80G}
  - {cpus: 4, memory: 10GB, gpus: 1, gpu_type: our-own, gpu_memory: 20GB}
"""
    assert read_nodes(write(tmp_path / "nodes.yaml", text)) == [
        Node(16, 0, 70 * 10**9),
        Node(16, 0, 70 * 10**9),
        Node(32, 8, 700 * 10**9, "A100-80G", 80 * 10**9),
        Node(4, 1, 7 * 10**9, "our-own", 20 * 10**9),
    ]


@pytest.mark.parametrize(
    ("text", "size"), [("64GiB", 64 * GIB), ("500 MB", 5 * 10**8), (1024, 1024), ("1.5KB", 1500), ("2TiB", 2048 * GIB)]
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nodes: []", "at least 1 item"),
        ("- a", "valid dictionary"),
        ("nodes: [{cpus: 4}]", "nodes.0.memory: Field required"),
        ("nodes: [{cpus: 4, memory: much}]", "'much' is no size"),
        ("nodes: [{cpus: 0, memory: 4GB}]", "greater than 0"),
        ("nodes: [{cpus: 4, memory: 4GB, gpus: 1}]", "gpus without a known gpu_type"),
        ("nodes: [{cpus: 4, memory: 4GB, gpus: 1, gpu_type: A100-80}]", "did you mean 'A100-80G'?"),
        ("nodes: [{cpus: 4, memory: 4GB, gpu: 1}]", "nodes.0.gpu: Extra inputs"),
        ("nodes: [", "is no YAML"),
    ],
)
def test_a_file_that_describes_no_nodes_is_refused(tmp_path, text, message):
    with pytest.raises(SpecError) as caught:
        read_nodes(write(tmp_path / "nodes.yaml", text))
    assert message in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ResourceError, match="cannot be read"):
        read_nodes(tmp_path / "none.yaml")


def test_types_of_gpus():
    assert memory_of_type(known_types()[0]) <= memory_of_type("T4") < memory_of_type("H200")
    assert memory_of_type("abacus") == 0
    assert type_in_resources({"CPU": 4, "accelerator_type:L4": 1}) == "L4"


@pytest.fixture
def big_run(tmp_path):
    words = [f"word{number} and more words" for number in range(60)]
    rows = "".join(f"{text},{'ab'[number % 2]}\n" for number, text in enumerate(words))
    write(tmp_path / "rows.csv", f"text,label\n{rows}")
    return {
        "name": "a",
        "data": {"train": str(tmp_path / "rows.csv")},
        "model": {"base": str(write_bert_headers(tmp_path / "base", BERT_LARGE))},
        "train": {"batch_size": 32},
        "storage": str(tmp_path / "storage"),
    }


def test_a_plan_for_nodes_that_are_not_there(tmp_path, big_run):
    large = write(tmp_path / "large.yaml", "nodes: [{cpus: 8, memory: 64GB}]")
    plan = raymill.plan(big_run, nodes=large)
    assert plan["nodes"][0]["memory"] == 0.7 * 64e9
    train = next(stage for stage in plan["stages"] if stage["stage"] == "train")
    assert train["memory_each"] == plan["memory"]["train"]["bytes"] > 5e9
    assert {term["name"] for term in plan["memory"]["train"]["terms"]} >= {"trained weights", "gradients"}
    assert plan["disk"]["bytes"] > 12 * 330e6
    small = write(tmp_path / "small.yaml", "nodes: [{cpus: 8, memory: 6GB}]")
    with pytest.raises(ResourceError) as caught:
        raymill.plan(big_run, nodes=small)
    assert "train does not fit: 1 workers need 1 x" in caught.value.problem
    assert "use a node with" in caught.value.fix


def test_workers_auto(tmp_path, big_run):
    gpus = write(tmp_path / "gpus.yaml", "nodes: [{count: 2, cpus: 32, memory: 256GB, gpus: 4, gpu_type: A100-80G}]")
    cpus = write(tmp_path / "cpus.yaml", "nodes: [{count: 3, cpus: 8, memory: 256GB}]")

    def workers(nodes, **sections):
        plan = raymill.plan({**big_run, **sections}, nodes=nodes)
        assert plan["chosen"]["cluster.workers"]["reason"]
        return plan["workers"]

    assert workers(cpus, cluster={"workers": "auto"}) == 3
    assert workers(gpus, cluster={"workers": "auto", "gpus_per_worker": 1}) == 4  # 32 rows, at least 8 for each
    train = {"batch_size": 256}
    assert workers(gpus, cluster={"workers": "auto", "gpus_per_worker": 1}, train=train) == 8
    assert workers(gpus, cluster={"workers": "auto", "gpus_per_worker": 0.5}, train=train) == 16
    assert workers(cpus, cluster={"workers": "auto", "cpus_per_worker": 2}, train=train) == 12
    search = {"trials": 2, "space": {"train.learning_rate": {"uniform": [0.1, 0.2]}}}
    assert workers(cpus, cluster={"workers": "auto"}, tune=search) == 1
