"""What a person sees while a stage runs."""

import io
import threading
import time

import pytest

from cluster.console import Console, Rate
from cluster.progress import Progress, ProgressFile, read_all, run_watched, total_of
from trainer.targets.metrics.summary import figures_line


def test_the_rate_counts_from_the_first_unit_done():
    rate = Rate(started_s=0.0)
    assert rate.describe(Progress(), 9.0) == "starting, 9 s"
    rate.describe(Progress(done=100, total=1000), 20.0)
    assert (
        rate.describe(Progress(done=300, total=1000, note="epoch 1/3"), 22.0) == " 30%  100 rows/s  7 s left  epoch 1/3"
    )
    assert rate.describe(Progress(done=300), 22.0) == "100 rows/s"
    slow = Rate(started_s=0.0)
    slow.describe(Progress(done=1, total=9, unit="epochs"), 20.0)
    assert slow.describe(Progress(done=3, total=9, unit="epochs"), 30.0) == " 33%  5.0 s/epoch  30 s left"


def test_plain_lines_where_there_is_no_terminal():
    out = io.StringIO()
    console = Console(out)
    with console.stage("train") as show:
        show(Progress(done=1, total=2))
    console.table("T", ["a", "b"], [["x", 0.5], ["y", None]])
    text = out.getvalue()
    assert "train" in text and "0.5000" in text and "\x1b[" not in text


def test_a_console_without_a_stream_is_silent(capsys):
    console = Console()
    with console.stage("x") as show:
        show(Progress(done=1))
    console.say("hello")
    assert capsys.readouterr() == ("", "")


def test_progress_crosses_processes_as_files(tmp_path):
    ProgressFile(tmp_path / "a.json").update(Progress(done=3, total=10, note="one"))
    ProgressFile(tmp_path / "b.json").update(Progress(done=4, total=10))
    (tmp_path / "c.json").write_text('{"done": ')
    found = total_of(read_all(tmp_path))
    assert (found.done, found.total, found.note) == (7, 20, "one")
    assert total_of(read_all(tmp_path / "nowhere")).done == 0


def test_progress_writes_seldom_unless_forced(tmp_path):
    file = ProgressFile(tmp_path / "a.json")
    file.update(Progress(done=1))
    file.update(Progress(done=2))
    assert read_all(tmp_path)[0].done == 1
    file.update(Progress(done=3), force=True)
    assert read_all(tmp_path)[0].done == 3


def test_work_is_watched_and_its_error_rises():
    looks = []
    gate = threading.Event()

    def work():
        gate.wait(10)
        return 7

    def look():
        looks.append(time.monotonic())
        if len(looks) == 2:
            gate.set()

    assert run_watched(work, look) == 7
    assert len(looks) >= 2

    def fail():
        raise TimeoutError("from the work itself")

    with pytest.raises(TimeoutError, match="work itself"):
        run_watched(fail, lambda: None)


def test_figures_in_one_line():
    assert figures_line({"macro_f1": 0.5, "accuracy": 0.75, "other": 1}) == "accuracy 0.7500  macro_f1 0.5000"


def test_a_mean_over_folds_is_shown_with_its_spread():
    assert figures_line({"rmse": 57.5, "rmse_std": 2.1, "r2": 0.4}) == "rmse 57.5000 ± 2.1000  r2 0.4000"
    assert figures_line({"pr_auc": 0.9, "pr_auc_std": 0.01, "mse": 2.0}) == "pr_auc 0.9000 ± 0.0100"
