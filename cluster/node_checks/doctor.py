"""Ask all nodes of the connected Ray, and make one list of lines of it: what is wrong comes first."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from cluster.environment_checks import Check
from cluster.errors import error_summary
from cluster.node_checks import storage
from cluster.node_checks.answers import NodeAnswer, fine, look, name_list, wrong
from cluster.node_checks.ask import NodeAddress, NodeCallers, callers_on, cluster_nodes
from cluster.node_checks.clocks import Offset, check_clocks, measure_offset, read_clock
from cluster.node_checks.cores import check_cores, check_packing
from cluster.node_checks.endpoints import Application, check_applications, read_applications
from cluster.node_checks.facts import read_node
from cluster.node_checks.gpus import check_gpus
from cluster.node_checks.head import check_head
from cluster.node_checks.limits import check_open_files
from cluster.node_checks.memory import check_memory
from cluster.node_checks.names import check_names
from cluster.node_checks.network import check_network, choose_pairs, link_from, send_to, start_receiver
from cluster.node_checks.serve_variables import check_serve_variables
from cluster.node_checks.tokens import check_token_modes
from cluster.node_checks.versions import check_versions

_CHECKS = (
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
)


class NodeReport(NamedTuple):
    """The lines about a cluster, and what its nodes answered."""

    checks: list[Check]
    nodes: list[NodeAnswer]


def check_nodes(folder: str, within_s: float) -> NodeReport:
    """Check the nodes of the connected Ray. `folder` is the storage folder; `within_s` is how long a node may take."""
    alive, dead = cluster_nodes()
    names = node_names(alive)
    checks = []
    if dead:
        fix = "start Ray there again, or look at why it ended"
        checks.append(look("dead nodes", name_list([f"{node.host} ({node.address})" for node in dead]), fix))
    with callers_on(alive, within_s) as callers:
        facts = callers.ask_each(read_node, {node.id: () for node in alive})
        checks += [_silent(names[node], problem) for node, problem in facts.problems.items()]
        able = [node for node in alive if node.id in facts.values]
        nodes = [
            NodeAnswer(names[node.id], node.address, node.is_head, node.resources, facts.values[node.id])
            for node in able
        ]
        if nodes:
            checks.append(fine("nodes", f"{len(nodes)} of {len(alive)} answered: {name_list([n.name for n in nodes])}"))
            checks += _check_clocks(callers, able, names)
            checks += _check_storage(callers, able, names, folder, within_s)
            checks += _check_network(callers, able, names)
            checks += _check_endpoints(callers, able, names)
    if nodes:
        checks += [line for check in _CHECKS for line in check(nodes)]
    return NodeReport(sorted(checks, key=_urgency), nodes)


def node_names(nodes: Sequence[NodeAddress]) -> dict[str, str]:
    """Return the host name of each node by its id; its address where two have the same host name."""
    counts = Counter(node.host for node in nodes)
    return {node.id: node.host if counts[node.host] == 1 else node.address for node in nodes}


def _silent(name: str, problem: str) -> Check:
    fix = "look whether the machine runs and is reached; Ray calls a silent node dead after a while"
    return wrong(f"node {name}", problem, fix)


def _check_clocks(callers: NodeCallers, nodes: Sequence[NodeAddress], names: dict[str, str]) -> list[Check]:
    offsets: dict[str, Offset] = {}
    lost = []
    for node in nodes:
        try:
            offsets[node.id] = measure_offset(lambda node=node: callers.ask(node.id, read_clock))  # type: ignore[misc]
        except Exception as error:
            lost.append(_silent(names[node.id], f"no longer answers: {type(error).__name__}"))
    reference = offsets.get(nodes[0].id, Offset(0.0, 0.0))  # the head, or this machine's clock if it does not answer
    others = {names[node]: offset.against(reference) for node, offset in offsets.items() if node != nodes[0].id}
    return [*lost, *check_clocks(others)]


def _check_storage(
    callers: NodeCallers, nodes: Sequence[NodeAddress], names: dict[str, str], folder: str, within_s: float
) -> list[Check]:
    existing = callers.ask_each(storage.existing_folder, {node.id: (folder,) for node in nodes})
    problems = {names[node]: problem for node, problem in existing.problems.items()}
    absent = storage.check_folders(folder, {names[node]: path for node, path in existing.values.items()})
    if absent or not existing.values:
        return absent or storage.check_marks(folder, problems, {})
    path = next(iter(existing.values.values()))
    marks = {node: f".raymill-doctor-{uuid.uuid4().hex}" for node in existing.values}
    try:
        written = callers.ask_each(storage.write_mark, {node: (path, mark) for node, mark in marks.items()})
        problems |= {names[node]: problem for node, problem in written.problems.items()}
        expected = [marks[node] for node in written.values]
        wait_s = min(storage.VISIBLE_WITHIN_S, within_s / 2)
        seen = callers.ask_each(storage.missing_marks, dict.fromkeys(written.values, (path, expected, wait_s)))
    finally:
        callers.ask_each(storage.remove_mark, {node: (path, mark) for node, mark in marks.items()})
    problems |= {names[node]: problem for node, problem in seen.problems.items()}
    writer = {mark: names[node] for node, mark in marks.items()}
    unseen = {names[node]: [writer[mark] for mark in missing] for node, missing in seen.values.items()}
    return storage.check_marks(folder if folder == path else f"{folder}, in {path}", problems, unseen)


def _check_network(callers: NodeCallers, nodes: Sequence[NodeAddress], names: dict[str, str]) -> list[Check]:
    links = []
    ports = callers.ask_each(start_receiver, {node.id: (node.address, len(nodes)) for node in nodes})
    for sender, receiver in choose_pairs(len(nodes)) if len(nodes) > 1 else []:
        source, target = nodes[sender], nodes[receiver]
        if source.id in ports.problems or target.id in ports.problems:
            continue
        try:
            answer = callers.ask(source.id, send_to, target.address, ports.values[target.id])
        except Exception as error:
            ports.problems[source.id] = type(error).__name__
            answer = {"mbit": 0.0, "round_trip_s": 0.0, "problem": f"no answer ({type(error).__name__})"}
        links.append(link_from(names[source.id], names[target.id], answer))
    return check_network(links)


def _check_endpoints(callers: NodeCallers, nodes: Sequence[NodeAddress], names: dict[str, str]) -> list[Check]:
    try:
        applications = callers.ask(nodes[0].id, read_applications, names)
    except Exception as error:  # Ray Serve's controller may be gone with its node
        fix = "look at `serve status`; the controller starts again once a head is back"
        return [wrong("endpoints", f"Ray Serve does not answer: {error_summary(error)}", fix)]
    n_for_replicas = sum(bool(node.resources.get("CPU") or node.resources.get("GPU")) for node in nodes)
    return check_applications([Application(**application) for application in applications], n_for_replicas)


def _urgency(check: Check) -> int:
    return 2 if check.ok else 0 if check.needed else 1


def report_as_dict(report: NodeReport) -> dict[str, Any]:
    """Return the report for `raymill doctor --address ... --json`."""
    return {
        "ok": not any(check.needed and not check.ok for check in report.checks),
        "checks": [check.as_dict() for check in report.checks],
        "nodes": [
            {"name": node.name, "address": node.address, "head": node.is_head, **node.facts} for node in report.nodes
        ],
    }
