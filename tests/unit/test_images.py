"""The Dockerfile, the locks and the scripts of cluster/images."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

tomllib = pytest.importorskip("tomllib")  # since Python 3.11
ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "cluster" / "images"
EXTRAS = {
    "cpu": ("sql", "lora", "mlflow", "onnx", "otel", "openvino"),
    "cuda": ("sql", "lora", "mlflow", "onnx", "otel", "8bit"),
}
HADOLINT = shutil.which("hadolint") or shutil.which("hadolint", path=Path(sys.executable).parent)


def read_lock(name):
    """Return the versions and the numbers of hashes in a lock, by package."""
    packages = {}
    for entry in re.split(r"\n(?=\S)", (IMAGES / f"{name}.lock").read_text()):
        match = re.match(r"([\w.-]+)==(\S+)", entry)
        if match:
            packages[canonicalize_name(match[1])] = match[2], len(re.findall("--hash=sha256:[0-9a-f]{64}", entry))
    return packages


@pytest.mark.skipif(not HADOLINT, reason="hadolint is not installed (the extra `dev` brings it)")
def test_hadolint_takes_the_dockerfile():
    checked = subprocess.run([HADOLINT, IMAGES / "Dockerfile"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.skipif(not HADOLINT, reason="hadolint is not installed (the extra `dev` brings it)")
@pytest.mark.parametrize(
    ("line", "edited"),
    [
        ("WORKDIR /home/raymill", "WORKDIR home"),
        ("ENTRYPOINT [", "ENTRYPOINT tini # ["),
        ("USER 1000:1000", "USER root"),
        ("COPY raymill-*.whl /tmp/", "ADD raymill-*.whl /tmp/"),
        ("apt-get install --yes", "apt-get install"),
    ],
)
def test_hadolint_refuses_a_wrong_edit(line, edited, tmp_path):
    text = (IMAGES / "Dockerfile").read_text()
    assert line in text
    (tmp_path / "Dockerfile").write_text(text.replace(line, edited))
    checked = subprocess.run([HADOLINT, tmp_path / "Dockerfile"], capture_output=True, text=True, check=False)
    assert checked.returncode == 1, checked.stdout + checked.stderr


@pytest.mark.parametrize("name", ["cpu", "cuda", "tools"])
def test_every_package_of_a_lock_has_hashes(name):
    packages = read_lock(name)
    assert len(packages) > 20 and all(n_hashes for _, n_hashes in packages.values())


@pytest.mark.parametrize("variant", EXTRAS)
def test_a_lock_fits_pyproject(variant):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(line for extra in EXTRAS[variant] for line in optional[extra])]
    locked = read_lock(variant)
    wrong = []
    for requirement in map(Requirement, wanted):
        version = locked.get(canonicalize_name(requirement.name), ("missing", 0))[0]
        if not requirement.specifier.contains(version):
            wrong.append(f"{requirement}: {version}")
    assert not wrong, f"run cluster/images/lock.sh: {wrong}"
    script = (IMAGES / "lock.sh").read_text()
    assert all(f"--extra {extra}" in script for extra in EXTRAS[variant])


def test_the_cpu_image_has_nothing_for_gpus():
    locked = read_lock("cpu")
    assert locked["torch"][0].endswith("+cpu") and not [name for name in locked if name.startswith("nvidia")]
    assert "nvidia-nccl-cu13" in read_lock("cuda") and "nvidia-nccl-cu12" not in read_lock("cuda")


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ([], {}, "cpu or cuda"),
        (["cpu"], {}, "name of the image"),
        (["tpu", "x"], {}, "there is no tpu.lock"),
        (["cpu", "x"], {"BUILDER": "kaniko", "PYTHON": "true"}, "BUILDER is 'kaniko'"),
    ],
)
def test_build_says_what_is_wrong(arguments, environment, message, tmp_path):
    env = {"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path), **environment}
    done = subprocess.run(
        ["bash", IMAGES / "build.sh", *arguments], capture_output=True, text=True, env=env, check=False
    )
    assert done.returncode != 0 and message in done.stderr, done.stderr
    assert not list(tmp_path.iterdir())
