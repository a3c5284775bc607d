"""What `raymill doctor --address` says about the nodes of a cluster, from what was read on each."""

import copy
import socket
import threading

import pytest

from cluster.node_checks import network, storage
from cluster.node_checks.answers import NodeAnswer, name_list
from cluster.node_checks.ask import NodeAddress
from cluster.node_checks.clocks import Offset, check_clocks, measure_offset
from cluster.node_checks.cores import check_cores, check_packing
from cluster.node_checks.doctor import NodeReport, node_names, report_as_dict
from cluster.node_checks.endpoints import Application, check_applications
from cluster.node_checks.facts import read_node
from cluster.node_checks.gpus import check_gpus, parse_gpus
from cluster.node_checks.head import check_head
from cluster.node_checks.limits import check_open_files
from cluster.node_checks.memory import check_memory
from cluster.node_checks.names import check_names, read_names
from cluster.node_checks.serve_variables import check_serve_variables
from cluster.node_checks.tokens import check_token_modes
from cluster.node_checks.versions import check_versions

GIB = 2**30
HA_PROXY = "RAY_SERVE_ENABLE_HA_PROXY"


@pytest.fixture(scope="module")
def facts():
    """What a good node answers: what is read on this machine, with good values for what differs between machines."""
    read = read_node()
    return read | {
        "gpus": [],
        "cores": {"usable": 4, "visible": 4, "threads": None},
        "memory": {"limit": 16 * GIB, "shared": 4 * GIB},
        "open_files": 65_536,
        "names": {"host": "", "resolved": "10.0.0.1", "default_route": True},
        "serve": {"variables": {HA_PROXY: "1"}, "has_haproxy": True},
        "token": {"mode": "token", "source": "RAY_AUTH_TOKEN_PATH", "home_token": False},
        "head": read["head"] | {"state": "redis"},
    }


@pytest.fixture
def nodes(facts):
    """Three good nodes: a, the head, b and c."""
    answers = []
    for number, name in enumerate("abc"):
        own = copy.deepcopy(facts)
        own["names"]["host"] = name
        resources = {"CPU": 4.0, "memory": 8.0 * GIB, "object_store_memory": 2.0 * GIB}
        answers.append(NodeAnswer(name, f"10.0.0.{number}", number == 0, resources, own))
    return answers


CHECKS = [
    check_versions,
    check_gpus,
    check_cores,
    check_packing,
    check_memory,
    check_open_files,
    check_names,
    check_serve_variables,
    check_token_modes,
    check_head,
]


@pytest.mark.parametrize("check", CHECKS)
def test_good_nodes(check, nodes):
    lines = check(nodes)
    assert lines and all(line.ok for line in lines), lines


@pytest.mark.parametrize("check", CHECKS)
def test_one_node_is_a_cluster_too(check, nodes):
    assert all(line.ok for line in check(nodes[:1]))


#: check, keys of what is changed on node c, the new value, whether it is wrong or only to look at, words of the line
CHANGES = [
    (check_versions, ("versions", "torch"), "2.5.1", "wrong", "version of torch"),
    (check_versions, ("versions", "python"), "3.10.1", "wrong", "3.10.1 on c"),
    (check_versions, ("versions", "raymill"), "not installed", "wrong", "not installed on c"),
    (check_versions, ("versions", "onnxruntime"), "1.0", "look", "1.0 on c"),
    (check_cores, ("cores", "usable"), 1, "look", "a quota gives fewer cores than libraries count on c"),
    (check_cores, ("cores",), {"usable": 2, "visible": 2, "threads": None}, "look", "more CPUs than there are cores"),
    (check_memory, ("memory", "limit"), 4 * GIB, "wrong", "10.0 GiB on c, which may use 4.0 GiB"),
    (check_memory, ("memory", "shared"), GIB // 16, "look", "/dev/shm is smaller than Ray's object store on c"),
    (check_memory, ("memory", "shared"), None, "look", "on c"),
    (check_open_files, ("open_files",), 4096, "look", "fewer than 8,192 on c"),
    (check_open_files, ("open_files",), 256, "wrong", "fewer than 1,024 on c"),
    (check_names, ("names", "host"), "b", "look", "not unique: b on b, c"),
    (check_names, ("names", "resolved"), "127.0.1.1", "look", "loopback address on c"),
    (check_names, ("names", "resolved"), None, "look", "no address for its own name on c"),
    (check_names, ("names", "default_route"), False, "look", "4 s longer"),
    (check_serve_variables, ("serve", "variables"), {}, "wrong", "not set on c: replicas there get no requests"),
    (check_serve_variables, ("serve", "has_haproxy"), False, "wrong", "not installed on c"),
    (
        check_serve_variables,
        ("serve", "variables"),
        {HA_PROXY: "1", "RAY_SERVE_HAPROXY_RETRIES": "4"},
        "wrong",
        "not set on a, b; 4 on c",
    ),
    (check_token_modes, ("token", "mode"), "disabled", "wrong", "token on a, b; disabled on c"),
    (check_token_modes, ("token", "mode"), "", "wrong", "not set on c"),
    (check_token_modes, ("token", "source"), "~/.ray/auth_token", "look", "not named, on c"),
]


@pytest.mark.parametrize(("check", "keys", "value", "word", "text"), CHANGES)
def test_one_node_that_differs(check, keys, value, word, text, nodes):
    part = nodes[2].facts
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    lines = [line for line in check(nodes) if not line.ok]
    assert lines and any(text in f"{line.name}: {line.result}" for line in lines), check(nodes)
    assert all(line.fix for line in lines) and any(line.needed == (word == "wrong") for line in lines)


def test_paths_and_ports_of_haproxy_may_differ(nodes):
    for node in nodes:
        node.facts["serve"]["variables"]["RAY_SERVE_HAPROXY_STATS_PORT"] = node.name
    assert all(line.ok for line in check_serve_variables(nodes))


def test_no_token_anywhere_is_to_look_at(nodes):
    for node in nodes:
        node.facts["token"]["mode"] = ""
    (line,) = check_token_modes(nodes)
    assert not line.ok and not line.needed and "runs code there" in line.result


def test_gpus_of_several_kinds(nodes):
    old = parse_gpus("NVIDIA A100-SXM4-40GB, 535.104.05, 40960 MiB\n" * 2)
    new = parse_gpus("NVIDIA H100 80GB HBM3, 550.54.15, 81559 MiB\n")
    assert old[0] == {"type": "NVIDIA A100-SXM4-40GB", "driver": "535.104.05", "memory": "40960 MiB"}
    for node, gpus in zip(nodes, ([], old, new), strict=True):
        node.facts["gpus"] = gpus
        node.resources["GPU"] = 2.0 if gpus else 0.0
    lines = {line.name: line for line in check_gpus(nodes)}
    assert "2 x NVIDIA A100-SXM4-40GB, 40960 MiB, driver 535.104.05 on b" in lines["GPUs"].result
    assert not lines["GPU drivers"].ok and "550.54.15 on c" in lines["GPU drivers"].result
    assert lines["GPUs in Ray"].needed and lines["GPUs in Ray"].result.endswith("on c")
    for node, version in zip(nodes, ("2.9.0+cpu", "2.9.0+cu126", "2.9.0+cpu"), strict=True):
        node.facts["versions"]["torch"] = version
    assert any(line.result == "torch without CUDA on c" for line in check_versions(nodes))


def test_the_head_without_storage_and_its_health_checks(nodes):
    nodes[0].facts["head"] |= {"state": "", "health_check_timeout_ms": 2000, "health_check_period_ms": 1000}
    silent, head = check_head(nodes)
    assert "after 15 s" in silent.result and not head.ok and "RAY_gcs_storage=rocksdb" in head.fix


def test_no_node_for_work(nodes):
    for node in nodes:
        node.resources["CPU"] = 0.0
    assert check_packing(nodes)[0].needed


@pytest.mark.parametrize(
    ("offset", "word"),
    [(Offset(0.02, 0.01), "ok"), (Offset(0.7, 0.5), "ok"), (Offset(-2, 0.1), "look"), (Offset(90, 1), "wrong")],
)
def test_clocks(offset, word):
    (line,) = check_clocks({"b": offset})
    assert (line.ok, line.needed) == {"ok": (True, False), "look": (False, False), "wrong": (False, True)}[word]
    assert Offset(5, 0.1).against(Offset(3, 0.2)) == (2, pytest.approx(0.3))


def test_a_clock_that_is_ahead():
    import time

    measured = measure_offset(lambda: time.time() + 100)
    assert abs(measured.seconds - 100) <= measured.bound_s + 0.001


def test_one_storage_folder(tmp_path):
    folder = storage.existing_folder(str(tmp_path / "not" / "there"))
    assert folder == str(tmp_path)
    for name in ("one", "two"):
        storage.write_mark(folder, name)
    assert storage.missing_marks(folder, ["one", "two"]) == []
    (tmp_path / "two").write_text("")
    storage.remove_mark(folder, "one")
    assert storage.missing_marks(folder, ["one", "two"], 0.0) == ["one", "two"]
    assert storage.check_marks(folder, {}, {"a": [], "b": []})[0].ok
    assert "a does not see what b wrote" in storage.check_marks(folder, {}, {"a": ["b"], "b": []})[0].result
    assert "Permission denied" in storage.check_marks(folder, {"a": "Permission denied"}, {"b": []})[0].result
    (line,) = storage.check_folders("/shared/raymill", {"a": "/shared", "b": "/"})
    assert line.needed and "/shared does not exist on b" in line.result


def test_bytes_over_a_link():
    port = network.start_receiver("127.0.0.1")
    link = network.link_from("a", "b", network.send_to("127.0.0.1", port))
    assert link.mbit > 100 and not link.problem
    closed = socket.create_server(("127.0.0.1", 0))
    port = closed.getsockname()[1]
    closed.close()
    assert "refused" in str(network.send_to("127.0.0.1", port)["problem"])


def test_a_receiver_that_ends_early():
    listener = socket.create_server(("127.0.0.1", 0))

    def accept():
        listener.accept()[0].close()

    threading.Thread(target=accept, daemon=True).start()
    assert network.send_to("127.0.0.1", listener.getsockname()[1])["problem"]
    listener.close()


@pytest.mark.parametrize(("n_nodes", "n_links"), [(1, 0), (2, 2), (4, 12), (5, 5), (300, 300)])
def test_which_links_are_measured(n_nodes, n_links):
    pairs = network.choose_pairs(n_nodes) if n_nodes > 1 else []
    assert len(set(pairs)) == n_links and all(sender != receiver for sender, receiver in pairs)


def test_links():
    good = [network.Link("a", "b", 9000, 0.0002), network.Link("b", "a", 8000, 0.0002)]
    assert network.check_network(good)[0].ok and "8.0 Gbit/s from b to a" in network.check_network(good)[0].result
    slow = network.check_network([*good, network.Link("a", "c", 90, 0.001)])[0]
    assert not slow.ok and "90 Mbit/s from a to c" in slow.result
    assert not network.check_network([*good, network.Link("a", "c", 1000, 0.001)])[0].ok
    blocked = network.check_network([*good, network.Link("a", "c", 0, 0, "timed out")])
    assert blocked[0].needed and "a does not reach c: timed out" in blocked[0].result


def test_the_default_route(tmp_path):
    header = "Iface\tDestination\tGateway\n"
    with_route, without = tmp_path / "with", tmp_path / "without"
    with_route.write_text(header + "eth0\t00000000\t0100000A\n")
    without.write_text(header + "eth0\t0000000A\t00000000\n")
    absent = tmp_path / "absent"
    assert read_names(with_route, absent)["default_route"] and not read_names(without, absent)["default_route"]


@pytest.mark.parametrize(
    ("application", "word", "text"),
    [
        (Application("a", "RUNNING", "", 2, ["b", "c"]), "ok", "1 on b, 1 on c"),
        (Application("a", "RUNNING", "", 2, ["b", "b"]), "look", "all replicas on one node: 2 on b"),
        (Application("a", "RUNNING", "", 1, ["b"]), "look", "if the node fails, nothing answers"),
        (Application("a", "RUNNING", "", 3, ["b", "c"]), "look", "1 on b, 1 on c, of 3"),
        (
            Application("a", "DEPLOY_FAILED", "one\nRuntimeError: broken", 1, ["b"]),
            "wrong",
            "1 on b; RuntimeError: broken",
        ),
        (Application("a", "UNHEALTHY", "", 1, []), "wrong", "UNHEALTHY; replicas that run: none"),
    ],
)
def test_endpoints(application, word, text):
    (line,) = check_applications([application], 2)
    assert text in line.result and (line.ok, line.needed) == (word == "ok", word == "wrong")
    assert line.ok or line.fix
    assert check_applications([], 2)[0].ok
    assert check_applications([Application("a", "RUNNING", "", 1, ["b"])], 1)[0].ok


def test_names_of_nodes():
    hosts = [NodeAddress(str(n), f"10.0.0.{n}", host, n == 0, {}) for n, host in enumerate(("a", "x", "x"))]
    assert node_names(hosts) == {"0": "a", "1": "10.0.0.1", "2": "10.0.0.2"}
    assert name_list(list("abcd")) == "a, b, c, d" and name_list(list("abcdefg")) == "a, b, c, d and 3 more"


def test_the_report_as_json(nodes):
    report = report_as_dict(NodeReport(check_head(nodes), nodes))
    assert report["ok"] and [node["name"] for node in report["nodes"]] == ["a", "b", "c"] and report["nodes"][0]["head"]
    nodes[1].facts["token"]["mode"] = ""
    assert not report_as_dict(NodeReport(check_token_modes(nodes), nodes))["ok"]
