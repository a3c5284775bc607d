"""`raymill submit` from this computer to a cluster of two machines that share one folder with each other."""

import json
import shutil
from pathlib import Path

import pytest

from support.commands import run_raymill
from support.ray_machines import RayMachines, new_token
from support.submit_project import make_project, version_digests

TOKEN = new_token()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The folder that the machines see too; all else under /tmp is this computer's."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def machines(can_make_machines, shared):
    with RayMachines(shared=[shared], token=TOKEN) as ray:
        ray.start(2, cpus=1, dashboard=True)
        yield ray


@pytest.fixture(scope="module")
def project(tiny_base, tiny_data, shared, tmp_path_factory):
    """A working directory that only this computer has."""
    shutil.copytree(tiny_base, shared / "base")
    folder, cluster = tmp_path_factory.mktemp("here"), {"workers": 2, "cpus_per_worker": 1}
    return make_project(folder / "project", shared / "base", tiny_data, shared / "storage", cluster=cluster)


@pytest.fixture
def submit(machines, project):
    def submit(*arguments, token=TOKEN):
        env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        return run_raymill("submit", "run.yaml", "--address", machines.jobs_url, *arguments, cwd=project, **env)

    return submit


def test_two_workers_on_two_machines_give_the_bytes_of_two_workers_here(submit, machines, project, shared):
    done = submit("--json")
    assert done.code == 0, done
    assert "2 nodes; raymill " in done.stderr, done
    here = project / "storage-here"
    alone = run_raymill("run", "run.yaml", "--storage", here, "--set", "cluster.cpus=2", "--json", cwd=project)
    assert alone.code == 0, alone
    outcome = json.loads(done.stdout)
    assert outcome["metrics"] == json.loads(alone.stdout)["metrics"]
    assert version_digests(shared / "storage", "tiny") == version_digests(here, "tiny")
    assert Path(outcome["run"]).is_relative_to(shared / "storage")
    # What a machine did is in its own log: each had a worker.
    for machine in machines.machines.values():
        listed = machine.run("sh", "-c", "ls -d /tmp/ray/session_latest/runtime_resources/working_dir_files/*/shout.py")
        assert listed.code == 0, listed


def test_what_the_machines_do_not_share_is_refused(submit, project, tiny_base):
    assert not str(tiny_base).startswith("/work")
    done = submit("--set", f"model.base={tiny_base}")
    assert done.code == 2 and f"model.base={tiny_base} does not exist on" in done.stderr, done
    done = submit("--storage", "/tmp/apart")  # each machine has a /tmp of its own
    assert done.code == 2 and "storage=/tmp/apart: it is not one folder" in done.stderr, done
    done = submit("--storage", project / "storage")
    assert done.code == 2 and "neither it nor the folder above it exists on" in done.stderr, done


def test_without_the_token_nothing_is_submitted(submit):
    done = submit(token="0" * 64)
    assert done.code == 2 and "refuses the token" in done.stderr and "upload" not in done.stderr, done
