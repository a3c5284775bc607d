"""Build an image and run containers without a registry, a daemon or systemd: a base of Debian's packages, podman, runc."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("mmdebstrap", "podman", "runc", "git")
# In a sandbox without CAP_SYS_RESOURCE, runc may not set the limits that podman asks for, not even to what they are.
_RUNTIME = """#!/usr/bin/python3
import json, os, sys

def drop_limits(path, section):
    with open(path) as file:
        config = json.load(file)
    (config["process"] if section else config).pop("rlimits", None)
    with open(path, "w") as file:
        json.dump(config, file)

words = sys.argv[1:]
if "--bundle" in words:
    drop_limits(os.path.join(words[words.index("--bundle") + 1], "config.json"), True)
if "--process" in words:
    drop_limits(words[words.index("--process") + 1], False)
os.execv(RUNC, ["runc", *words])
"""


def why_no_containers() -> str | None:
    """Return why images cannot be built here, or None if they can."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    return (
        f"images need the programs {', '.join(missing)} (`apt-get install mmdebstrap podman runc`)" if missing else None
    )


class Podman:
    """Podman with a storage of its own in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        driver = "overlay" if _has_overlay(folder) else "vfs"  # vfs copies the whole image for each container
        self.options = [
            *("--root", str(folder / "root"), "--runroot", str(folder / "run"), "--storage-driver", driver),
            *("--cgroup-manager", "cgroupfs", "--events-backend", "file"),
        ]
        self.runtime = folder / "runtime.py"
        self.runtime.write_text(_RUNTIME.replace("RUNC", repr(shutil.which("runc"))))
        self.runtime.chmod(0o755)

    def run(self, *arguments: object, check: bool = True, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """Run `podman ARGUMENTS`."""
        words = ["podman", *self.options, *map(str, arguments)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout_s)
        assert not check or done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        return done

    def import_base(self, image: str) -> None:
        """Make an image of Debian with Python, from packages."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            tar, packages = Path(folder) / "base.tar", "python3,python3-venv,ca-certificates"
            command = ["mmdebstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(tar)]
            subprocess.run(command, check=True, capture_output=True, timeout=600)
            self.run("import", "--quiet", tar, image)


@contextlib.contextmanager
def podman() -> Iterator[Podman]:
    """Yield a podman. At the end its containers and images are removed."""
    folder = Path(tempfile.mkdtemp(prefix="rmpod", dir="/tmp"))
    folder.chmod(0o755)
    engine = Podman(folder)
    try:
        yield engine
    finally:
        engine.run("rm", "--all", "--force", "--time", "5", check=False)
        engine.run("rmi", "--all", "--force", check=False)
        for mount in reversed([line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]):
            if mount.startswith(f"{folder}/"):
                subprocess.run(["umount", "--lazy", mount], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def _has_overlay(folder: Path) -> bool:
    """Return whether this kernel lays a file system over another in `folder`."""
    parts = [folder / name for name in ("lower", "upper", "work", "merged")]
    for part in parts:
        part.mkdir()
    lower, upper, work, merged = map(str, parts)
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    done = subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, merged], capture_output=True)
    subprocess.run(["umount", merged], capture_output=True, check=False)
    for part in parts:
        shutil.rmtree(part, ignore_errors=True)
    return done.returncode == 0
