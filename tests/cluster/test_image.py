"""The CPU image is built from its Dockerfile and lock, and a container of it answers requests in a network of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from packaging.utils import canonicalize_name

from support.commands import ROOT
from support.containers import podman, why_no_containers
from support.namespaces import Network
from support.timing import wait_until

pytestmark = pytest.mark.skipif(bool(why_no_containers()), reason=why_no_containers() or "")
BUILD = ROOT / "cluster" / "images" / "build.sh"
IMAGE, BASE = "localhost/raymill:test", "localhost/base"
# Folders of this computer that pip and uv are configured to use, where there are any.
CERTIFICATES, WHEELS = Path("/etc/ssl/certs"), Path(os.environ.get("PIP_FIND_LINKS", "/nowhere"))


@pytest.fixture(scope="module")
def engine(can_make_machines):
    """A podman with the image in it."""
    with podman() as engine:
        engine.import_base(BASE)
        options = ["--isolation", "chroot", "--layers=false", "--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro"]
        environment = {"BUILDER": "podman", "BUILDER_OPTIONS": " ".join(engine.options), "BASE": BASE}
        if WHEELS.is_dir():  # with torch's build for CPUs, where its own index cannot be reached
            environment["TORCH_SOURCE"] = f"--find-links {WHEELS}"
            options += ["--volume", f"{WHEELS}:{WHEELS}:ro"]
        built = subprocess.run(
            ["bash", BUILD, "cpu", IMAGE, *options], capture_output=True, text=True, timeout=840,
            env={**os.environ, **environment, "PYTHON": sys.executable},
        )  # fmt: skip
        assert built.returncode == 0, (built.stdout + built.stderr)[-5000:]
        yield engine


def inspect(engine, what, name=IMAGE):
    return json.loads(engine.run("inspect", name, "--format", f"{{{{json {what}}}}}").stdout)


def test_labels_user_and_health_check(engine):
    labels = inspect(engine, ".Config.Labels")
    for name, value in {
        "title": "raymill (cpu)",
        "version": "0.1.0",
        "licenses": "Apache-2.0",
        "base.name": BASE,
    }.items():
        assert labels[f"org.opencontainers.image.{name}"] == value
    # The commit that was built, which need not be the newest by now.
    revision = labels["org.opencontainers.image.revision"]
    subprocess.run(["git", "merge-base", "--is-ancestor", revision, "HEAD"], cwd=ROOT, check=True)
    assert inspect(engine, ".Config.User") == "1000:1000"
    assert "wget" in " ".join(inspect(engine, ".HealthCheck.Test"))


@pytest.fixture(scope="module")
def container(engine, tiny_version, tmp_path_factory):
    """(its name, its URL): it serves a model, with a file system that can only be read and a network of its own."""
    storage = tmp_path_factory.mktemp("container") / "storage"
    shutil.copytree(tiny_version.storage, storage)
    for folder, _, files in os.walk(storage):
        for path in [Path(folder), *(Path(folder, name) for name in files)]:
            os.chown(path, 1000, 1000)
    with Network() as network:
        machine = network.add_machine("pod")
        engine.run(
            *("run", "--detach", "--name", "tiny", "--runtime", engine.runtime, "--health-interval=disable"),
            *("--network", f"ns:{machine.network_namespace}", "--read-only", "--tmpfs", "/tmp:mode=1777"),
            *("--cap-drop=all", "--security-opt=no-new-privileges", "--volume", f"{storage}:/storage", IMAGE),
            *("serve", "tiny@1", "--storage", "/storage", "--host", "0.0.0.0", "--insecure"),
        )
        url = f"http://{machine.address}:8000"

        def answers():
            assert inspect(engine, ".State.Running", "tiny"), engine.run("logs", "tiny")
            try:
                return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
            except httpx.HTTPError:
                return False

        wait_until(answers, within_s=180, what="the container is ready")
        yield "tiny", url


def test_it_answers_a_prediction_request(container):
    reply = httpx.post(f"{container[1]}/predict", json={"inputs": ["cat dog i want"]}, timeout=30)
    assert reply.status_code == 200 and reply.json()["predictions"][0]["label"] == "animal", reply.text


def test_its_health_check_passes_and_fails(engine, container):
    assert engine.run("healthcheck", "run", container[0], check=False).returncode == 0
    check = inspect(engine, ".HealthCheck.Test")[1:]
    other = ["exec", "--env", "RAYMILL_HEALTH_URL=http://127.0.0.1:1/healthz", container[0], *check]
    assert engine.run(*other, check=False).returncode != 0


def test_it_runs_as_nobody_special_and_has_ray_for_a_cluster(engine, container):
    assert engine.run("exec", container[0], "id", "-u").stdout.strip() == "1000"
    denied = engine.run("exec", container[0], "touch", "/opt/raymill/file", check=False)
    assert denied.returncode != 0 and "Read-only" in denied.stderr
    # As KubeRay's operator starts a node: in a login shell, which sets a PATH of its own.
    shell = engine.run(
        "exec", container[0], "bash", "-lc", "ray --version && raymill --version && wget --version"
    ).stdout
    assert "ray, version 2.60" in shell and "0.1.0" in shell
    build = "import torch; print(torch.__version__, torch.version.cuda)"
    assert engine.run("exec", container[0], "python", "-c", build).stdout.split() == ["2.13.0+cpu", "None"]


def test_the_list_of_its_packages(engine, container):
    bom = json.loads(engine.run("exec", container[0], "cat", "/usr/share/raymill/sbom.cdx.json").stdout)
    assert bom["bomFormat"] == "CycloneDX" and bom["specVersion"] == "1.6"
    listed = {canonicalize_name(component["name"]): component["version"] for component in bom["components"]}
    lock = (ROOT / "cluster" / "images" / "cpu.lock").read_text()
    locked = [line.split(" ")[0].split("==") for line in lock.splitlines() if "==" in line and line[0] != "#"]
    missing = {name: version for name, version in locked if listed.get(canonicalize_name(name)) != version}
    assert not missing and "cyclonedx-bom" not in listed and "uv" not in listed


def test_it_stops_within_its_time(engine, container):
    engine.run("stop", "--time", "40", container[0])
    assert inspect(engine, ".State.ExitCode", container[0]) == 0, engine.run("logs", container[0])
