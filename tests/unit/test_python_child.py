"""Functions in processes of their own: messages both ways, import paths, priorities, and ends."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from cluster.import_guard import ROOT
from cluster.python_child import PythonChild
from support.commands import still_running
from support.timing import wait_until

CODE = """
import os, time

def answer(argument, channel):
    channel.on_message = lambda message: channel.send({"heard": message})
    threads = os.environ["OMP_NUM_THREADS"]
    channel.send({"argument": argument, "nice": os.nice(0), "pid": os.getpid(), "threads": threads})
    while True:
        time.sleep(60)

def end(argument, channel):
    channel.send({"before": "the end"})

def fail(argument, channel):
    raise ValueError("on purpose")
"""


@pytest.fixture
def entries(tmp_path, monkeypatch):
    """A module that only this process's import path finds, and a file that would hide one of raymill's packages."""
    (tmp_path / "child_entries.py").write_text(CODE)
    (tmp_path / "cluster.py").write_text("raise ImportError('hides raymill')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return "child_entries"


def test_messages_arrive_and_the_priority_is_low(entries, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    argument = {"text": "é" * 50_000}  # more than a pipe holds
    child = PythonChild(f"{entries}:answer", argument, title="a test", threads=3, niceness=7)
    try:
        messages = child.messages()
        first = next(messages)
        assert first == {"argument": argument, "nice": 7 + os.nice(0), "pid": child.pid, "threads": "3"}
        child.send({"a": 1})
        child.send({"b": 2})
        assert [next(messages), next(messages)] == [{"heard": {"a": 1}}, {"heard": {"b": 2}}]
        assert "a test" in psutil.Process(child.pid).cmdline()
    finally:
        child.kill()
    assert child.wait() == -signal.SIGKILL and list(messages) == []


def test_the_exit_code_says_whether_the_function_failed(entries, capfd):
    child = PythonChild(f"{entries}:end", None, title="a test")
    assert list(child.messages()) == [{"before": "the end"}] and child.wait() == 0
    child.send({"too": "late"})  # ignored
    failing = PythonChild(f"{entries}:fail", None, title="a test")
    assert list(failing.messages()) == [] and failing.wait() == 1
    assert "ValueError: on purpose" in capfd.readouterr().err


@pytest.mark.slow
def test_a_child_ends_with_its_parent_even_after_kill_9(entries, tmp_path):
    code = (
        f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(tmp_path)!r}]\n"
        "from cluster.python_child import PythonChild\n"
        f"child = PythonChild('{entries}:answer', None, title='a test')\n"
        "print(next(child.messages())['pid'], flush=True)\n"
        "import time; time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    child = psutil.Process(int(parent.stdout.readline()))
    time.sleep(0.2)
    assert still_running([child])
    parent.kill()
    parent.wait()
    wait_until(lambda: not still_running([child]), what="the child ends")
