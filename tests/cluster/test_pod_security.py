"""A job of a manifest works as its pods have it: no root, no rights, and a root file system that can only be read."""

import secrets
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import raymill
from support.commands import ROOT
from support.tiny_text import tiny_spec

pytestmark = pytest.mark.long

IMAGE = f"registry.example.com/raymill@sha256:{'0' * 64}"
# What a pod has: everything can only be read, except its volumes. Python may be in a home folder that only root enters.
POD = """
set -eu
ip link set lo up
mount --rbind / {root}
mount --make-rslave {root}
mount -o remount,bind,ro {root}
for folder in /tmp /dev/shm /home; do mount -t tmpfs -o mode=1777 tmpfs {root}$folder; done
mount --bind {storage} {root}/mnt
if [ -n "{closed}" ]; then
  mount -t tmpfs -o mode=755 tmpfs {root}{closed}
  mkdir -p {root}{python}
  mount --bind {python} {root}{python}
  mount -o remount,bind,ro {root}{python}
fi
exec chroot {root} setpriv --reuid 1000 --regid 1000 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all env -i {variables} bash /mnt/pod.sh
"""
# What KubeRay does in the pod of the head: it starts Ray, looks at the probe, and submits the job.
HEAD = """
touch /x 2>&1 || echo "root: read-only"
grep CapEff /proc/self/status
ray start --head --num-cpus=2 --memory=2000000000 --object-store-memory=100000000 --dashboard-host=127.0.0.1 --node-ip-address=127.0.0.1
for _ in $(seq 60); do
  python -c "import urllib.request as u; print('probe:', u.urlopen('http://127.0.0.1:52365/api/healthz', timeout=5).status)" 2>/dev/null && break
  sleep 1
done
ray job submit --address http://127.0.0.1:8265 -- {entrypoint}
echo "job: $?"
"""


def can_make_pods():
    command = ["unshare", "--mount", "--pid", "--net", "--fork", "--mount-proc", "setpriv", "--no-new-privs", "true"]
    try:
        return subprocess.run(command, capture_output=True, timeout=30).returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(not can_make_pods(), reason="namespaces for mounts, processes and the network cannot be made")
def test_a_job_runs_without_root_and_with_a_read_only_root(tmp_path, tiny_base, tiny_data):
    storage, root = tmp_path / "storage", tmp_path / "root"
    root.mkdir()
    shutil.copytree(tiny_data, storage / "project" / "rows")
    shutil.copytree(tiny_base, storage / "project" / "base")
    deploy = {"image": IMAGE, "project": "/mnt/project", "storage": {"path": "/mnt"}}
    spec = tiny_spec(Path("/mnt/project/base"), Path("/mnt/project/rows"), Path("/mnt"), deploy=deploy)
    files = raymill.manifest(spec, "rayjob")
    job = yaml.safe_load(files["rayjob.yaml"])["spec"]
    run_yaml = yaml.safe_load(files["config.yaml"])["data"]["run.yaml"]
    (storage / "run.yaml").write_text(run_yaml)
    entrypoint = job["entrypoint"].replace("/etc/raymill/run.yaml", "/mnt/run.yaml --set cluster.cpus_per_worker=1")
    (storage / "pod.sh").write_text(HEAD.format(entrypoint=entrypoint))
    subprocess.run(["chown", "-R", "1000:1000", storage], check=True)

    head = job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    variables = {item["name"]: item["value"] for item in head["env"] if "BINARY_PATH" not in item["name"]}
    variables |= {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": "/home", "PYTHONPATH": str(ROOT)}
    variables |= {"RAY_ADDRESS": "127.0.0.1:6379", "RAY_AUTH_TOKEN": secrets.token_hex(32), "LANG": "C.UTF-8"}
    python = Path(sys.base_prefix).resolve()
    closed = next((str(folder) for folder in reversed(python.parents) if folder.stat().st_mode & 0o005 != 0o005), "")
    script = tmp_path / "pod"
    words = " ".join(shlex.quote(f"{name}={value}") for name, value in variables.items())
    script.write_text(POD.format(root=root, storage=storage, closed=closed, python=python, variables=words))
    command = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child=KILL", "--mount-proc", "bash", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert "root: read-only" in done.stdout and "CapEff:\t0000000000000000" in done.stdout, done.stdout + done.stderr
    assert "probe: 200" in done.stdout and "job: 0" in done.stdout, done.stdout[-3000:] + done.stderr[-2000:]
    manifest = storage / "raymill" / "models" / spec["name"] / "versions" / "1" / "manifest.json"
    assert manifest.stat().st_uid == 1000
    assert (storage / "raymill" / "locks" / spec["name"]).is_file()
