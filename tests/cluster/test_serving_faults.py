"""An endpoint on several machines while one is killed, cut off, or the head ends. Ray asks for a token throughout.

Requests come at a fixed rate, to HAProxy on machines that stay. A request has failed if it has no 200 within the client's
timeout.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator

import httpx
import pytest

from serve.haproxy import cluster_variables
from serve.haproxy_command import program_path
from support.ray_machines import RayMachines, new_token
from support.steady_load import SteadyLoad
from support.timing import wait_until
from trainer.registry.registry import Version
from trainer.spec.serve import ServeSpec

pytestmark = [pytest.mark.usefixtures("can_make_machines"), pytest.mark.xdist_group("serving_faults")]

PORT = 8000
BODY = {"inputs": ["my good dog"]}
PER_S, TIMEOUT_S = 100, 10.0
# HAProxy sends a request again that got no answer for 2 s longer.
SPEC = ServeSpec(retries=3, timeout_s=5)
REPLICAS = """
import collections, json, ray
ray.init(log_to_driver=False, logging_level="ERROR")
from ray._private.state import actors
nodes = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes()}
counts = collections.Counter(
    nodes[actor["Address"]["NodeID"]] for actor in actors().values()
    if actor["State"] == "ALIVE" and actor["Name"].startswith("SERVE_REPLICA")
)
print("replicas:", json.dumps(counts))
"""


def report(what: str, figures: str) -> None:
    """Print figures for docs/explanation/benchmarks.md; `pytest -s` shows them."""
    print(f"figure: {what}: {figures}", flush=True)  # noqa: T201


class Endpoint:
    """The tiny model with 2 replicas: m1 is the head and computes nothing, m2 and m3 have a core each."""

    def __init__(self, ray: RayMachines, version: Version) -> None:
        self.ray = ray
        storage = version.folder.parents[3]
        options = ["--storage", storage, "--replicas", 2, "--set", "serve.host=0.0.0.0", "--set", "serve.insecure=true"]
        options += ["--set", f"serve.timeout_s={SPEC.timeout_s}"]
        config = ray.head.run("python", "-m", "raymill", "deploy-config", f"{version.name}@1", *options)
        assert config.code == 0, config
        file = ray.shared[0] / "serve.yaml"
        file.write_text(config.stdout[config.stdout.index("proxy_location") :])
        done = ray.head.run("serve", "deploy", "--address", ray.jobs_url, file)
        assert done.code == 0, done

    def url(self, name: str) -> str:
        """The endpoint at the HAProxy of a machine."""
        return f"http://{self.ray[name].address}:{PORT}"

    def answers(self, name: str) -> bool:
        """Whether the endpoint answers at a machine."""
        with contextlib.suppress(httpx.HTTPError):
            return httpx.post(f"{self.url(name)}/predict", json=BODY, timeout=5).status_code == 200
        return False

    def replica_count(self) -> dict[str, int]:
        """Return the number of running replicas on each machine, by name."""
        done = self.ray.head.run("python", "-c", REPLICAS)
        counts: dict[str, int] = json.loads(done.stdout.rpartition("replicas:")[2] or "{}")
        return counts

    def wait_for_both(self, within_s: float) -> float:
        """Wait until m2 and m3 have a replica each; return the seconds."""
        started = time.monotonic()
        wait_until(lambda: self.replica_count() == {"m2": 1, "m3": 1}, within_s, "a replica on m2 and on m3")
        return time.monotonic() - started

    def doctor(self) -> dict[str, dict[str, object]]:
        """Return the lines of `raymill doctor` about the cluster, by name."""
        done = self.ray.head.run("python", "-m", "raymill", "doctor", "--address", self.ray.ray_address, "--json")
        report = json.loads(next(line for line in done.stdout.splitlines() if line.startswith('{"ok"')))
        return {check["what"]: check for check in report["checks"]}

    def load(self, *names: str) -> SteadyLoad:
        """Return a load on the HAProxy of some machines, in turn."""
        return SteadyLoad([self.url(name) for name in names], BODY, per_s=PER_S, timeout_s=TIMEOUT_S)


@pytest.fixture(scope="module")
def endpoint(
    can_make_machines: None, tiny_version: Version, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Endpoint]:
    shared = tmp_path_factory.mktemp("shared")
    head_state = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": shared / "gcs"}
    env = {**cluster_variables(SPEC), "RAY_SERVE_HAPROXY_BINARY_PATH": program_path()}
    with RayMachines(shared=[shared, tiny_version.folder.parents[3]], token=new_token(), env=env) as ray:
        ray.start(1, cpus=0, dashboard=True, env=head_state)
        ray.start(2, cpus=1)
        endpoint = Endpoint(ray, tiny_version)
        endpoint.wait_for_both(180)
        for name in ("m1", "m2", "m3"):
            wait_until(lambda name=name: endpoint.answers(name), 120, f"an answer at {name}")
        yield endpoint


def test_a_machine_is_killed(endpoint: Endpoint):
    with endpoint.load("m1", "m2") as load:
        time.sleep(3)
        endpoint.ray["m3"].kill()
        time.sleep(10)
    report("machine killed", load.summary())
    started = time.monotonic()
    endpoint.ray.restart("m3")
    seconds = endpoint.wait_for_both(180)
    report(
        "machine back",
        f"node up after {time.monotonic() - started - seconds:.1f} s, replica after {seconds:.1f} s more",
    )
    assert load.failed == []


def test_a_machine_is_cut_off(endpoint: Endpoint):
    with endpoint.load("m1", "m2") as load:
        time.sleep(3)
        endpoint.ray["m3"].link_down()
        cut = time.monotonic()
        time.sleep(20)
        endpoint.ray["m3"].link_up()
        time.sleep(5)
    latest = max((reply.sent_s - cut for reply in load.failed), default=0.0)
    report(
        "machine cut off for 20 s", f"{load.summary()}; the last one that failed was sent {latest:.2f} s after the cut"
    )
    endpoint.wait_for_both(180)
    assert len(load.failed) <= 3 and latest < 1  # what was in flight there


def test_the_head_is_killed(endpoint: Endpoint):
    with endpoint.load("m2", "m3") as load:
        time.sleep(3)
        endpoint.ray["m1"].kill()
        time.sleep(10)
        started = time.monotonic()
        endpoint.ray.restart("m1")
        up = time.monotonic() - started
        wait_until(lambda: endpoint.answers("m1"), 120, "the head answers")
        answers = time.monotonic() - started
        time.sleep(5)
    report("head killed", f"{load.summary()}; head up after {up:.1f} s, answers after {answers:.1f} s")
    assert load.failed == []
    lines = endpoint.doctor()  # the controller answers again
    assert lines["endpoint tiny"]["found"] == "replicas that run: 1 on m2, 1 on m3", lines
    assert "state in rocksdb" in str(lines["head"]["found"]) and lines["HAProxy"]["ok"] and lines["token"]["ok"], lines
