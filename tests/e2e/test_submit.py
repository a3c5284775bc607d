"""`raymill submit` and `raymill jobs` on a real head: the same bytes as here, what is refused, a lost connection."""

import json
import tempfile
import threading
import time
from pathlib import Path

import pytest

from cluster.jobs.address import find_jobs_address
from cluster.jobs.client import JobClient
from cluster.jobs.log_follower import LogFollower
from cluster.jobs.package import write_package
from cluster.ports import free_port
from support.commands import run_raymill
from support.forwarder import Forwarder
from support.submit_project import make_project, version_digests
from support.timing import wait_until


@pytest.fixture
def project(tiny_base, tiny_data, tmp_path):
    return make_project(tmp_path / "project", tiny_base, tiny_data, tmp_path / "storage")


def raymill(project, *arguments, **env):
    return run_raymill(*arguments, cwd=project, **env)


@pytest.mark.long
def test_a_submitted_run_and_one_that_joins_give_the_bytes_of_a_run_here(head, project, tmp_path):
    """Data and the own module travel; the output is that of `raymill run`; the job is listed with its result."""
    (project / ".env").write_text("AWS_SECRET_ACCESS_KEY=hunter2")
    ends = {}
    for name, options in {
        "run": ["run"],
        "joined": ["run", "--address", head.address],
        "submitted": ["submit", "--address", head.jobs_url],
    }.items():
        secret = {"AWS_SECRET_ACCESS_KEY": "hunter2"}
        done = raymill(project, *options, "run.yaml", "--storage", tmp_path / name, "--json", **secret)
        assert done.code == 0, done
        ends[name] = json.loads(done.stdout), done
    outcomes = {name: outcome for name, (outcome, _) in ends.items()}
    assert outcomes["submitted"]["metrics"] == outcomes["joined"]["metrics"] == outcomes["run"]["metrics"]
    first, *others = [version_digests(tmp_path / name, "tiny") for name in ends]
    assert "model.safetensors" in first and all(digests == first for digests in others)
    printed = ends["submitted"][1].stderr
    for text in ("files, ", " to upload", "  train  ", "  prepare  ", "job tiny-", "raymill "):
        assert text in printed, printed
    assert "raymill-progress" not in printed and "raymill-result" not in printed
    job = outcomes["submitted"]["job"]
    status = json.loads(raymill(project, "jobs", "status", job[:-3], "--address", head.jobs_url, "--json").stdout)
    assert status["status"] == "SUCCEEDED" and status["name"] == "tiny" and status["result"]["version"] == 1
    assert status["entrypoint"] == "python -m raymill run-job .raymill-job.json"
    client = JobClient(find_jobs_address(head.jobs_url))
    info = client.info(job)
    assert list(info.runtime_env) == ["working_dir"] and "hunter2" not in f"{info} {client.log(job)}"
    assert "left out, may hold secrets: .env" in printed
    log = raymill(project, "jobs", "logs", "last", "--address", head.jobs_url).stdout
    assert "  train  " in log and "raymill-progress" not in log
    listed = raymill(project, "jobs", "--address", head.jobs_url)
    assert listed.code == 0 and f"{job}  SUCCEEDED" in listed.stdout
    assert "raymill-check" not in listed.stdout  # the small job that looked at the nodes


def test_a_spec_with_an_error_is_refused_before_anything_is_sent(head, project):
    before = raymill(project, "jobs", "--address", head.jobs_url, "--json").stdout
    done = raymill(project, "submit", "run.yaml", "--address", head.jobs_url, "--set", "train.epochz=1")
    assert done.code == 2 and "train.epochz" in done.stderr and "upload" not in done.stderr, done
    assert raymill(project, "jobs", "--address", head.jobs_url, "--json").stdout == before


def test_an_address_that_is_down_a_wrong_token_and_an_unknown_job(head, project, tmp_path):
    done = raymill(project, "submit", "run.yaml", "--address", f"http://127.0.0.1:{free_port()}")
    assert done.code == 2 and "does not answer" in done.stderr and "kubectl port-forward" in done.stderr, done
    done = raymill(project, "jobs", "--address", head.address)
    assert done.code == 2 and "fix: " in done.stderr, done  # Ray's own port is no dashboard
    done = raymill(project, "jobs", "status", "no-such-job", "--address", head.jobs_url)
    assert done.code == 2 and "there is no job 'no-such-job'" in done.stderr, done
    (tmp_path / "token").write_text("0" * 64)
    done = raymill(project, "jobs", "--address", head.jobs_url, RAY_AUTH_TOKEN_PATH=str(tmp_path / "token"))
    assert done.code == 2 and "refuses the token" in done.stderr and "0000" not in done.stderr, done
    done = raymill(project, "jobs", "--address", head.jobs_url, RAY_AUTH_MODE="disabled")
    assert done.code == 2 and "asks for a token, and none is set here" in done.stderr, done


_PRINT = """
import time
for number in range(300):
    print("line", number, "é" * (number % 40), flush=True)
    time.sleep(0.05)
print("the end", end="", flush=True)
"""


def test_no_line_is_lost_or_shown_twice_when_the_connection_breaks(head):
    network = Forwarder(head.dashboard)
    try:
        client = JobClient(find_jobs_address(network.url))
        with tempfile.TemporaryDirectory() as folder:
            write_package(Path(folder) / "job.zip", {"print.py": _PRINT.encode()})
            client.submit("python print.py", Path(folder) / "job.zip", job="prints-lines")
        notes, lines = [], []
        follower = LogFollower(client, "prints-lines", notes.append, silent_s=4)

        def break_it():
            wait_until(lambda: any(line.startswith("line 40 ") for line in lines), within_s=240, what="line 40")
            network.cut()
            time.sleep(3)
            network.mend()
            wait_until(lambda: any(line.startswith("line 160 ") for line in lines), within_s=240, what="line 160")
            network.freeze()
            time.sleep(3)
            network.mend()

        breaker = threading.Thread(target=break_it, daemon=True)
        breaker.start()
        for line in follower.lines():
            lines.append(line)  # one by one: the other thread waits for some
        breaker.join(60)
        assert not breaker.is_alive()
    finally:
        network.close()
    numbered = [line for line in lines if line.startswith("line ")]
    assert numbered == [f"line {number} {'é' * (number % 40)}" for number in range(300)]
    assert lines[-1] == "the end"
    assert any(note.startswith("connection lost") for note in notes) and any(
        "connected again" in note for note in notes
    )
