"""Airflow in an environment of its own, which the first test that needs it builds; later ones find it again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.locks import file_lock
from support.commands import ROOT

_REQUIREMENT = "apache-airflow==3.3.2"
# `make clean` removes it.
_FOLDER = ROOT / ".cache" / "airflow-venv"


def airflow_program() -> Path:
    """Return the command `airflow`. Skips the test, with the reason, if it cannot be installed."""
    program, built = _FOLDER / "bin" / "airflow", _FOLDER / "built"
    _FOLDER.parent.mkdir(exist_ok=True)
    with file_lock(_FOLDER.with_suffix(".lock")):
        if not built.is_file() or built.read_text() != _REQUIREMENT:
            shutil.rmtree(_FOLDER, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", str(_FOLDER)], check=True)
            install = [_FOLDER / "bin" / "python", "-m", "pip", "install", "--quiet", _REQUIREMENT]
            done = subprocess.run(install, capture_output=True, text=True, timeout=700)
            if done.returncode:
                pytest.skip(f"{_REQUIREMENT} cannot be installed: {done.stderr.strip().splitlines()[-1]}")
            built.write_text(_REQUIREMENT)
    return program


class Airflow:
    """Airflow with a home folder and a database of its own."""

    def __init__(self, home: Path, dags: Path) -> None:
        self.program = airflow_program()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "AIRFLOW"))},
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "PATH": f"{self.program.parent}{os.pathsep}{os.environ['PATH']}",
        }

    def run(self, *arguments: str, timeout_s: float = 500) -> subprocess.CompletedProcess[str]:
        """Run `airflow ARGUMENTS` to its end, and return its exit code and output, stdout and stderr together."""
        return subprocess.run(
            [self.program, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment,
            cwd=self.environment["AIRFLOW_HOME"],
            timeout=timeout_s,
        )
