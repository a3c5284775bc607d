"""Events in a job's log, how they are shown, and the address that jobs are submitted to."""

import io
import json

import pytest

from cluster.console import Console
from cluster.errors import ResourceError
from cluster.jobs.address import find_jobs_address
from cluster.jobs.events import PROGRESS, RESULT, EventConsole, read_event, write_event
from cluster.jobs.log_view import LogView
from cluster.progress import Progress, ProgressTable


def job_output(work):
    """Return what a job prints that does `work` with its console."""
    stream = io.StringIO()
    work(EventConsole(stream))
    return stream.getvalue().splitlines()


def test_a_stage_writes_events_and_one_line_for_people():
    def work(console):
        with console.stage("train") as show:
            show(Progress(done=1, total=4, unit="steps", note="é :apple:"))
        console.print("done")

    lines = job_output(work)
    assert [line for line in lines if not line.startswith(PROGRESS)] == ["  train         0.0 s", "done"]
    events = [read_event(line).value for line in lines if line.startswith(PROGRESS)]
    assert [event.progress and event.progress.done for event in events] == [0, 1, None]
    assert events[1].progress.note == "é :apple:" and all(line.isascii() for line in lines if "apple" in line)


def test_a_table_is_written_again_only_when_it_changes(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    tables = [ProgressTable(columns=["a"], rows=[[1]])] * 2 + [ProgressTable(columns=["a"], rows=[[2]])]

    def work(console):
        with console.stage("tune") as show:
            for table in tables:
                now[0] += 20
                show(Progress(done=1, total=4, table=table))

    events = [read_event(line).value for line in job_output(work) if line.startswith(PROGRESS)][1:-1]
    assert [event.progress.table is not None for event in events] == [True, False, True]


def test_a_long_stage_writes_a_bounded_number_of_events(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def work(console):
        with console.stage("train") as show:
            for step in range(36_000):
                now[0] = float(step)
                show(Progress(done=step, total=36_000))

    assert 3_000 < len(job_output(work)) < 4_500  # ten hours: one every second at first, every 10 s later


@pytest.mark.parametrize(
    "line", ["hello", "", f"{PROGRESS} {{", f"{RESULT} [1]", f"{PROGRESS} {{}}", "raymill-progressive {}"]
)
def test_other_lines_are_for_people(line):
    assert read_event(line) is None


def test_the_view_shows_lines_and_progress_as_a_run_on_this_machine_does(monkeypatch):
    stream = io.StringIO()
    lines = []
    view = LogView(Console(stream), lines.append)
    for text in (
        "first",
        f'{PROGRESS} {{"stage":"train","seconds":50,"progress":{{"done":1,"total":4}}}}',
        "in between",
        f'{PROGRESS} {{"stage":"train","seconds":60}}',
        "  train         60.0 s",
    ):
        view.show(text)
    assert lines == ["first", "in between", "  train         60.0 s"] and view.progress.stage == "train"
    view.close()
    out = io.StringIO()
    write_event(out, RESULT, {"run": "/s/runs/a"})
    view.show(out.getvalue().rstrip("\n"))
    assert view.result == {"run": "/s/runs/a"} and json.loads(out.getvalue().partition(" ")[2]) == view.result


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("http://head:8265", "http://head:8265"),
        ("head:8265/", "http://head:8265"),
        ("https://ray.example.org/jobs/", "https://ray.example.org:443/jobs"),
        ("http://head", "http://head:8265"),
        ("http://[::1]:8265", "http://[::1]:8265"),
    ],
)
def test_addresses(address, url):
    assert find_jobs_address(address).url == url


def test_the_address_comes_from_rays_variables(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://a:1")
    assert find_jobs_address(None) == ("http://a:1", "RAY_ADDRESS")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://b:2")
    assert find_jobs_address(None) == ("http://b:2", "RAY_API_SERVER_ADDRESS")
    assert find_jobs_address("http://c:3").url == "http://c:3"


@pytest.mark.parametrize("address", ["ray://head:10001", "auto", "head", "http://", "http://head:x", "s3://bucket/x"])
def test_what_is_no_dashboard_is_refused_with_the_form_to_write(address):
    with pytest.raises(ResourceError, match=r"not the address of Ray's dashboard[\s\S]*http://HEAD:8265"):
        find_jobs_address(address)


def test_a_password_in_the_address_is_not_shown():
    address = find_jobs_address("http://me:secret@127.0.0.1:1")
    with pytest.raises(ResourceError, match="does not answer") as error:
        address.check()
    assert "secret" not in str(address) and "secret" not in str(error.value) and "me:secret@" in address.url
    with pytest.raises(ResourceError) as error:
        find_jobs_address("ftp://me:secret@host:1")
    assert "secret" not in str(error.value)


def test_no_address_at_all(monkeypatch):
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ResourceError, match="there is no address to submit jobs to"):
        find_jobs_address(None)
