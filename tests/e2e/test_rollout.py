"""`raymill rollout` changes the version that a cluster's endpoint serves, without a failed request, and back."""

import contextlib
import json
import shutil
import subprocess
import sys
import threading

import httpx
import pytest

import raymill
from cluster.errors import ModelError, ResourceError
from cluster.ports import free_port
from support.commands import ROOT
from support.timing import wait_until
from trainer.registry.registry import Registry

pytestmark = pytest.mark.long


def register_copy(storage, *, damaged=False):
    """Register version 1 again as the next version. Damaged: its golden rows cannot be reproduced."""
    first = Registry(storage).find("tiny@1")

    def fill(folder):
        shutil.copytree(
            first.folder, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json", "engines")
        )
        if damaged:
            golden = next(folder.rglob("golden*.json"))
            content = json.loads(golden.read_text())
            for row in content["rows"]:
                row["scores"] = [1.0, *[0.0] * (len(row["scores"]) - 1)]
            golden.write_text(json.dumps(content))

    return Registry(storage).register("tiny", fill)


def test_a_version_is_rolled_out_and_a_broken_one_is_rolled_back(head, first_run, storage, tmp_path):
    port, address = free_port(), f"http://127.0.0.1:{head.dashboard}"
    storage = shutil.copytree(storage, tmp_path / "storage")  # other tests expect one version
    with pytest.raises(ResourceError, match="runs no endpoint of tiny"):
        raymill.rollout("tiny", storage=storage, address=address)
    config = raymill.deploy_config("tiny", storage=storage, overrides=[f"serve.port={port}"], replicas=2)
    (tmp_path / "serve.yaml").write_text(config)
    command = [sys.executable, "-m", "ray.serve.scripts", "deploy", "--address", address, str(tmp_path / "serve.yaml")]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True, timeout=120)

    def ask():
        with contextlib.suppress(httpx.HTTPError):
            reply = httpx.post(f"http://127.0.0.1:{port}/predict", json={"inputs": ["cat dog"]}, timeout=30)
            return reply.json()["model"]["version"] if reply.status_code == 200 else reply.status_code
        return None

    wait_until(lambda: ask() == 1, within_s=180, what="version 1 is deployed")
    second = register_copy(storage)
    raymill.promote(second.ref, storage=storage)
    answers, stop = [], threading.Event()

    def keep_asking():
        while not stop.wait(0.05):
            answers.append(ask())

    asking = threading.Thread(target=keep_asking)
    asking.start()
    try:
        result = raymill.rollout("tiny", storage=storage, address=address)
        assert result == {"model": "tiny", "version": 2, "before": "tiny"}
        wait_until(lambda: answers[-5:] == [2] * 5, within_s=60, what="version 2 answers alone")
    finally:
        stop.set()
        asking.join()
    assert set(answers) == {1, 2}, "a request failed"
    assert raymill.rollout("tiny", storage=storage, address=address)["before"] is None

    broken = register_copy(storage, damaged=True)
    raymill.promote(broken.ref, storage=storage)
    with pytest.raises(ModelError, match=r"tiny@3 does not run(?s:.*)tiny@2 is deployed again"):
        raymill.rollout("tiny", storage=storage, address=address, within_s=120)
    assert Registry(storage).aliases("tiny")["champion"] == 2
    wait_until(lambda: ask() == 2, within_s=60, what="version 2 still answers")
