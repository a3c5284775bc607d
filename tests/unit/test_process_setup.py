"""What a process of raymill's does first: streams that were closed, few open files, warnings as errors, no folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.errors import ResourceError
from cluster.process_setup import working_directory

ROOT = Path(__file__).parents[2]
SETUP = "from cluster import process_setup as setup; import os, resource, sys, warnings; "


def shell(code, before="", **env):
    """Run Python code below a shell that first does `before`; return the result with what it wrote to stderr."""
    command = ["bash", "-c", f'{before}\nexec "$0" -c "$1"', sys.executable, SETUP + code]
    return subprocess.run(
        command, env={"PYTHONPATH": str(ROOT), **env}, cwd=ROOT, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&-", "0<&- 1>&- 2>&-"])
def test_closed_streams_are_opened_and_the_next_file_gets_another_number(closed, tmp_path):
    code = (
        "setup.open_standard_streams(); file = os.open('/dev/null', os.O_RDONLY); print('x', flush=True); "
        "sys.stderr.write('y'); assert sys.stdin.read() == ''; "
        f"open({str(tmp_path / 'numbers')!r}, 'w').write(str((file, sys.stdout.fileno(), sys.stderr.fileno())))"
    )
    done = shell(code, f"exec {closed} < /dev/null" if "0<&-" not in closed else f"exec {closed}")
    assert done.returncode == 0, done.stderr
    number, *streams = eval((tmp_path / "numbers").read_text())
    assert number > 2 and streams == [1, 2]


def test_open_streams_stay(capsys):
    done = shell("before = sys.stdout; setup.open_standard_streams(); assert sys.stdout is before; print('x')")
    assert done.stdout == "x\n"


@pytest.mark.parametrize(
    ("limits", "expected"), [("-S -n 256", "65536 or the hard limit"), ("-n 256", "256"), ("-n 70000", "70000")]
)
def test_the_limit_of_open_files_is_raised_as_far_as_it_may(limits, expected):
    done = shell(
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]; setup.raise_open_files_limit(); "
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], hard)",
        f"ulimit {limits} || exit 9",
    )
    if done.returncode == 9:
        pytest.skip("this user may not raise the limit so far")
    soft, hard = map(int, done.stdout.split())
    assert soft == (min(65_536, hard) if "hard" in expected else int(expected))


@pytest.mark.parametrize("value", ["error", "error::DeprecationWarning", "ignore,error"])
def test_warnings_are_no_errors(value):
    done = shell(
        "setup.show_warnings(); warnings.warn('w', DeprecationWarning); print(os.environ['PYTHONWARNINGS'])",
        PYTHONWARNINGS=value,
    )
    assert done.stdout == "default\n" and "DeprecationWarning: w" in done.stderr


def test_other_settings_of_warnings_stay():
    done = shell(
        "setup.show_warnings(); warnings.warn('w', UserWarning); print(os.environ['PYTHONWARNINGS'])",
        PYTHONWARNINGS="ignore",
    )
    assert done.stdout == "ignore\n" and not done.stderr


def test_a_working_directory_that_was_deleted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert working_directory() == Path(os.path.realpath(tmp_path))
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ResourceError, match="it was deleted.*(?s:.*)change to a folder that exists"):
        working_directory()


@pytest.mark.parametrize(
    ("settings", "spins"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_threads_spin_briefly_unless_the_user_sets_how_they_wait(settings, spins):
    done = shell("setup.limit_spinning(); print(os.environ.get('GOMP_SPINCOUNT'))", **settings)
    assert done.stdout == f"{spins}\n", done.stderr


@pytest.mark.slow
def test_garbage_is_collected_less_often():
    done = shell("import gc; setup.collect_garbage_less_often(); print(gc.get_threshold()[0], gc.isenabled())")
    assert done.stdout == "50000 True\n", done.stderr
