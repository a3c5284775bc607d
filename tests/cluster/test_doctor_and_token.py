"""A cluster of machines that asks for a token: `raymill doctor` names what is wrong with it; nothing works without."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.commands import CommandResult
from support.ray_machines import RayMachines, new_token
from support.tiny_text import tiny_spec, write_spec

pytestmark = [pytest.mark.usefixtures("can_make_machines"), pytest.mark.xdist_group("doctor_and_token")]

RAYMILL = ("python", "-m", "raymill")
PORT = 8100


class TokenCluster(RayMachines):
    """The head m1 and m2 are alike; m3 lacks a variable of Ray Serve's, has more CPUs than cores, and no route."""

    def __init__(self, storage: Path, spec: Path, shared: list[Path]) -> None:
        super().__init__(shared, token=new_token())
        self.storage, self.spec = storage, spec

    def doctor(self, *options: object, address: str = "") -> tuple[CommandResult, dict[str, dict[str, object]]]:
        """Run `raymill doctor --json` on the head; return it and its lines by name."""
        done = self.head.run(*RAYMILL, "doctor", "--address", address or self.ray_address, "--json", *options)
        report = json.loads(next(line for line in done.stdout.splitlines() if line.startswith('{"ok"')))
        return done, {check["what"]: check for check in report["checks"]}


@pytest.fixture(scope="module")
def cluster(
    can_make_machines: None, tiny_base: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TokenCluster]:
    shared = tmp_path_factory.mktemp("shared")
    spec = write_spec(shared / "run.yaml", tiny_spec(tiny_base, tiny_data, shared / "storage"))
    with TokenCluster(shared / "storage", spec, [shared, tiny_base, tiny_data]) as cluster:
        cluster.start(2, cpus=1, dashboard=True, env={"RAY_SERVE_ENABLE_HA_PROXY": "1"})
        cluster.start(1, cpus=8, env={"OMP_NUM_THREADS": "2"})
        yield cluster


def test_the_doctor_names_what_differs_on_one_node(cluster: TokenCluster) -> None:
    done, lines = cluster.doctor("--storage", cluster.storage)
    assert done.code == 2, done
    assert lines["nodes"]["found"] == "3 of 3 answered: m1, m2, m3"
    assert lines["HAProxy"]["found"] == "RAY_SERVE_ENABLE_HA_PROXY is not set on m3: replicas there get no requests"
    assert "on m3" in str(lines["cores"]["found"]) and "8 workers" in str(lines["workers on a node"]["found"])
    assert lines["silent nodes"]["found"] == "called dead after 65 s"
    wrong = {name for name, line in lines.items() if line["needed"] and not line["ok"]}
    assert wrong == {"HAProxy"} and next(iter(lines)) == "HAProxy"
    fine = {"storage", "clocks", "versions", "token", "Ray's memory", "shared memory", "default route"}
    assert all(lines[name]["ok"] for name in fine) and "the slowest of 6 links" in str(lines["network"]["found"]), lines
    # By a job, as for a machine that reaches the dashboard only.
    by_job, again = cluster.doctor("--storage", cluster.storage, address=cluster.jobs_url)
    assert by_job.code == 2 and again.keys() == lines.keys(), by_job


def test_the_doctor_sees_folders_of_ones_own_and_a_link_that_is_down(cluster: TokenCluster) -> None:
    cluster["m3"].link_down()
    try:
        done, lines = cluster.doctor("--storage", "/tmp", "--within", "5")
    finally:
        cluster["m3"].link_up()
    assert done.code == 2, done
    assert "m1 does not see what m2 wrote" in str(lines["storage"]["found"])
    assert lines["node m3"]["found"] == "no answer within 5 s"
    assert lines["nodes"]["found"] == "2 of 3 answered: m1, m2"


def test_with_the_token_everything_works(cluster: TokenCluster) -> None:
    head = cluster.head
    run = head.run(*RAYMILL, "run", cluster.spec, "--set", f"cluster.address={cluster.ray_address}", "--json")
    assert run.code == 0 and '"version": 1' in run.stdout, run
    job = head.run(
        *RAYMILL,
        "submit",
        cluster.spec,
        "--address",
        cluster.jobs_url,
        "--set",
        "train.epochs=1",
        cwd=cluster.spec.parent,
    )
    assert job.code == 0, job
    listed = head.run(*RAYMILL, "jobs", "list", "--address", cluster.jobs_url)
    assert listed.code == 0 and "SUCCEEDED" in listed.stdout.upper(), listed
    options = ["--storage", cluster.storage, "--address", cluster.ray_address]
    endpoint = head.command(*RAYMILL, "serve", "tiny@1", *options, "--port", PORT, "--host", "0.0.0.0", "--insecure")
    try:
        endpoint.wait_for_line("listening on", 120)
        # The token is for the cluster; an endpoint does not ask for it.
        reply = httpx.post(f"http://{head.address}:{PORT}/predict", json={"inputs": ["my good dog"]}, timeout=30)
        assert reply.status_code == 200
    finally:
        endpoint.send_signal(2)
        endpoint.process.wait(60)
        endpoint.terminate()


@pytest.mark.parametrize("token", ["none", "wrong"])
def test_without_the_token_nothing_works(cluster: TokenCluster, token: str) -> None:
    commands = {
        "run": [cluster.spec, "--set", f"cluster.address={cluster.ray_address}"],
        "doctor": ["--address", cluster.ray_address],
        "serve": ["tiny@1", "--storage", cluster.storage, "--address", cluster.ray_address],
        "submit": [cluster.spec, "--address", cluster.jobs_url],
        "jobs": ["list", "--address", cluster.jobs_url],
    }
    variables = ["-u", "RAY_AUTH_TOKEN", "-u", "RAY_AUTH_MODE"] if token == "none" else []
    env = {} if token == "none" else {"RAY_AUTH_TOKEN": "w" * 64}
    started = {
        name: cluster["m2"].command("env", *variables, *RAYMILL, name, *options, env=env)
        for name, options in commands.items()
    }
    try:
        for name, command in started.items():
            command.wait_for_line("RAY_AUTH_TOKEN_PATH", 120)
            assert command.process.wait(60) == 2, f"{name}: {command.output}"
            assert "w" * 64 not in command.output and "Traceback" not in command.output, command.output
    finally:
        for command in started.values():
            command.terminate()


def test_a_node_without_the_token_does_not_join(cluster: TokenCluster) -> None:
    stranger = cluster.add_machine("stranger")
    started = stranger.run(
        *("env", "-u", "RAY_AUTH_TOKEN", "-u", "RAY_AUTH_MODE", "-u", "RAY_ADDRESS"),
        *("ray", "start", f"--address={cluster.ray_address}", f"--node-ip-address={stranger.address}", "--num-cpus=1"),
        timeout_s=120,
    )
    assert started.code != 0 and "token" in started.stdout, started
    assert cluster.doctor("--storage", cluster.storage)[1]["nodes"]["found"] == "3 of 3 answered: m1, m2, m3"
