"""Progress of work in other processes and threads."""

import threading
import time

import pytest

from cluster.progress import Progress, ProgressFile, read_progress, run_in_thread, sum_progress


def test_progress_crosses_processes_as_files(tmp_path):
    ProgressFile(tmp_path / "a.json").update(Progress(done=3, total=10, note="one"))
    ProgressFile(tmp_path / "b.json").update(Progress(done=4, total=10))
    (tmp_path / "c.json").write_text('{"done": ')
    total = sum_progress(read_progress(tmp_path))
    assert (total.done, total.total, total.note) == (7, 20, "one")
    assert sum_progress(read_progress(tmp_path / "missing")).done == 0


def test_progress_is_written_rarely_unless_forced(tmp_path):
    file = ProgressFile(tmp_path / "a.json")
    file.update(Progress(done=1))
    file.update(Progress(done=2))
    assert read_progress(tmp_path)[0].done == 1
    file.update(Progress(done=3), force=True)
    assert read_progress(tmp_path)[0].done == 3


@pytest.mark.slow
def test_work_in_a_thread_is_polled_and_its_error_is_raised():
    polls = []
    gate = threading.Event()

    def work():
        gate.wait(10)
        return 7

    def poll():
        polls.append(time.monotonic())
        if len(polls) == 2:
            gate.set()

    assert run_in_thread(work, poll) == 7
    assert len(polls) >= 2

    def fail():
        raise TimeoutError("from the work itself")

    with pytest.raises(TimeoutError, match="work itself"):
        run_in_thread(fail, lambda: None)


@pytest.mark.slow
def test_a_slow_poll_takes_a_tenth_of_the_time():
    polls = []

    def poll():
        polls.append(time.monotonic())
        time.sleep(0.1)

    run_in_thread(lambda: time.sleep(3), poll, every_s=0.01)
    assert 2 <= len(polls) <= 5, "3 s have room for three polls of 0.1 s, with pauses of 0.9 s, and the last one"
