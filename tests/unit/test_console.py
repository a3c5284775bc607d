"""The console: progress lines and tables for people."""

import io

from cluster.console import Console, Rate
from cluster.progress import Progress


def test_the_rate_counts_from_the_first_unit_done():
    rate = Rate(started_s=0.0)
    assert rate.describe(Progress(), 9.0) == "starting, 9 s"
    assert rate.describe(Progress(note="epoch 1/3"), 9.0) == "epoch 1/3, 9 s"
    rate.describe(Progress(done=100, total=1000), 20.0)
    assert (
        rate.describe(Progress(done=300, total=1000, note="epoch 1/3"), 22.0) == " 30%  100 rows/s  7 s left  epoch 1/3"
    )
    assert rate.describe(Progress(done=300), 22.0) == "100 rows/s"
    slow = Rate(started_s=0.0)
    slow.describe(Progress(done=1, total=9, unit="epochs"), 20.0)
    assert slow.describe(Progress(done=3, total=9, unit="epochs"), 30.0) == " 33%  5.0 s/epoch  30 s left"


def test_it_writes_plain_lines_without_a_terminal():
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
    console.print("hello")
    assert capsys.readouterr() == ("", "")
