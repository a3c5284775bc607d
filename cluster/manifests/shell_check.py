"""Ask bash whether it can read a script, without running it."""

from __future__ import annotations

import shutil
import subprocess


def shell_problem(script: str) -> str | None:
    """Return what bash says about the syntax of a script, or None. None as well where there is no bash."""
    bash = shutil.which("bash")
    if bash is None:
        return None
    done = subprocess.run([bash, "-n"], input=script, capture_output=True, encoding="utf-8", timeout=30)
    return done.stderr.strip().splitlines()[0] if done.returncode else None
