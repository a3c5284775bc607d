"""Manifests for what is not Kubernetes: the examples are what the command writes, and wrong edits are refused."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import raymill
from cluster.errors import SpecError
from cluster.manifests.kinds import KINDS
from cluster.manifests.machine_types import choose_type

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "cluster"
BIN = Path(sys.executable).parent
# The program inside the package: the command beside Python loses its exit code.
COMPOSE = Path(importlib.util.find_spec("compose").origin).with_name("docker-compose")
KINDS_HERE = ("ray-up", "compose", "slurm", "airflow", "serve-config")


def _load_renderer():
    spec = importlib.util.spec_from_file_location("render_cluster_examples", EXAMPLES / "render.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


renderer = _load_renderer()
FOLDERS = [folder for folder, (kind, _) in renderer.RENDERED.items() if kind in KINDS_HERE]


def read_files(folder):
    """Return the files of a rendered example: name -> text."""
    return {path.name: path.read_text() for path in sorted((EXAMPLES / folder).iterdir())}


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_examples_are_what_the_command_writes(folder):
    # `python examples/cluster/render.py` writes them again.
    assert read_files(folder) == renderer.render(folder)


# Folder, file, what is replaced by what, and a word of the problem that is found.
WRONG_EDITS = [
    ("ray-up-aws", "cluster.yaml", "max_workers: 5", "max_wokers: 5", "max_wokers"),
    ("ray-up-aws", "cluster.yaml", "max_workers: 5", "max_workers: 0", "max_workers"),
    ("ray-up-aws", "cluster.yaml", "max_workers: 5", "max_workers: 2", "never start"),
    ("ray-up-aws", "cluster.yaml", "head_node_type: head", "head_node_type: main", "head_node_type"),
    ("ray-up-aws", "cluster.yaml", "      GPU: 1", "      GPU: 1.5", "GPU"),
    ("ray-up-aws", "cluster.yaml", "      GPU: 1", "      GPU: 4", "has 1"),
    ("ray-up-aws", "cluster.yaml", "      CPU: 8", "      CPU: 64", "has 8"),
    ("ray-up-aws", "cluster.yaml", "      accelerator_type:L4: 1\n", "", "accelerator_type"),
    ("ray-up-aws", "cluster.yaml", "      accelerator_type:L4: 1", "      accelerator_type:H100: 1", "are L4"),
    ("ray-up-aws", "cluster.yaml", "      - --gpus all", "      - --gpus none", "--gpus all"),
    ("ray-up-aws", "cluster.yaml", "InstanceType: g6", "InstanceTyp: g6", "InstanceType"),
    ("ray-up-aws", "cluster.yaml", "VolumeSize: 200", "VolumeSize: '200'", "VolumeSize"),
    ("ray-up-aws", "cluster.yaml", "DeleteOnTermination", "DeleteOnTerminate", "DeleteOnTerminate"),
    ("ray-up-aws", "cluster.yaml", "  region: us-east-1", "  location: us-east-1", "provider.location"),
    ("ray-up-aws", "cluster.yaml", "raymill@sha256:", "raymill:latest@sha257:", "digest"),
    ("ray-up-aws", "cluster.yaml", "-e RAY_AUTH_MODE=token", "-e RAY_AUTH_MODE=disabled", "RAY_AUTH_MODE"),
    ("ray-up-aws", "cluster.yaml", "-e RAY_AUTH_TOKEN_PATH=/etc/raymill/token", "-e RAY_AUTH_TOKEN=0123456789", "line"),
    ("ray-up-aws", "cluster.yaml", "  - -e RAY_SERVE_ENABLE_HA_PROXY=1\n", "", "RAY_SERVE_ENABLE_HA_PROXY"),
    ("ray-up-aws", "cluster.yaml", "raymill-token /etc/raymill/token", "raymill-token /etc/token", "initialization"),
    ("ray-up-aws", "cluster.yaml", "file_mounts:\n  /tmp/raymill-token: ~/.ray/auth_token", "file_mounts: {}", "token"),
    ("ray-up-aws", "cluster.yaml", "--address=$RAY_HEAD_IP:6379", "--address=$RAY_HEAD_IP:6380", "6379"),
    ("ray-up-aws", "cluster.yaml", "--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0", "dashboard"),
    ("ray-up-aws", "cluster.yaml", "ray start --address", "ray start --head --address", "--head"),
    ("ray-up-aws", "cluster.yaml", "  gpu-l4-spot:\n    min_workers: 0", "  gpu-l4-spot:\n    min_workers: 2", "spot machines"),
    ("ray-up-aws", "cluster.yaml", "  gpu-l4:\n    min_workers: 1", "  gpu-l4:\n    min_workers: 2", "min_workers"),
    ("ray-up-aws", "cluster.yaml", "market-type: spot", "market-type: on-demand", "market-type"),
    ("ray-up-aws", "cluster.yaml", "user=$(docker", "user=$((docker", "bash"),
    ("ray-up-aws", "cluster.yaml", "  - --entrypoint tini\n", "", "--entrypoint"),
    ("ray-up-aws", "cluster.yaml", "- --ulimit", "- --privileged --ulimit", "--privileged"),
    ("ray-up-gcp", "cluster.yaml", "machineType: g2", "machinetype: g2", "machinetype"),
    ("ray-up-gcp", "cluster.yaml", "provisioningModel: SPOT", "provisioning: SPOT", "scheduling.provisioning"),
    ("ray-up-gcp", "cluster.yaml", "boot: true", "boot: false", "boot disk"),
    ("ray-up-azure", "cluster.yaml", "osDiskSize", "osDiskSizeGb", "osDiskSizeGb"),
    ("ray-up-azure", "cluster.yaml", "azure_arm_parameters", "arm_parameters", "azure_arm_parameters"),
    ("ray-up-hosts", "cluster.yaml", "  head_ip: 192.168.1.10\n", "", "head_ip"),
    ("ray-up-hosts", "cluster.yaml", "- 192.168.1.12", "- 192.168.1.10", "named twice"),
    ("compose", "compose.yaml", "@sha256:", ":", "digest"),
    ("compose", "compose.yaml", "    entrypoint:\n    - tini\n    - --\n", "", "entrypoint"),
    ("compose", "compose.yaml", "read_only: true", "read_only: false", "read_only"),
    ("compose", "compose.yaml", "    cap_drop:\n    - ALL\n", "", "cap_drop"),
    ("compose", "compose.yaml", "    restart:", "    privileged: true\n    restart:", "privileged"),
    ("compose", "compose.yaml", "    restart:", "    user: '0:0'\n    restart:", "user"),
    ("compose", "compose.yaml", "RAY_AUTH_MODE: token", "RAY_AUTH_MODE: disabled", "RAY_AUTH_MODE"),
    ("compose", "compose.yaml", "RAY_AUTH_TOKEN_PATH: /run/secrets/ray-token", "RAY_AUTH_TOKEN: 0123456789abcdef", "line"),
    ("compose", "compose.yaml", "    secrets:\n    - ray-token\n", "", "secrets"),
    ("compose", "compose.yaml", "--port=6379", "--port=6380", "6380"),
    ("compose", "compose.yaml", "network_mode: host", "network_mode: bridge", "network_mode"),
    ("compose", "compose.yaml", "file: ./run.yaml", "file: ./spec.yaml", "spec.yaml"),
    ("compose", "compose.yaml", "    - --keys\n    - /run/secrets/api-keys", "    - --insecure", "127.0.0.1"),
    ("slurm", "run.sbatch", "#SBATCH --nodes=1-4", "#SBATCH --nodes=4-1", "smaller"),
    ("slurm", "run.sbatch", "#SBATCH --nodes=1-4", "#SBATCH --node=1-4", "--node "),
    ("slurm", "run.sbatch", "--time=1-00:00:00", "--time=1 day", "--time"),
    ("slurm", "run.sbatch", "--mem=64G", "--mem=64 GB", "--mem"),
    ("slurm", "run.sbatch", "--ntasks-per-node=1", "--ntasks-per-node=8", "ntasks-per-node"),
    ("slurm", "run.sbatch", "--gpus-per-node=l4:1", "--gpus-per-node=0", "gpus-per-node"),
    ("slurm", "run.sbatch", "#SBATCH --no-kill\n", "", "--no-kill"),
    ("slurm", "run.sbatch", "#SBATCH --requeue\n", "set -e\n#SBATCH --requeue\n", "first command"),
    ("slurm", "run.sbatch", "\nfi\n", "\n", "bash"),
    ("slurm", "run.sbatch", "set -euo pipefail\n", "", "set -euo pipefail"),
    ("slurm", "run.sbatch", "srun --overlap --nodes=1", "srun --nodes=1", "--overlap"),
    ("slurm", "run.sbatch", "export SRUN_CPUS_PER_TASK", "SRUN_CPUS_PER_TASK", "SRUN_CPUS_PER_TASK"),
    ("slurm", "run.sbatch", "export RAY_AUTH_MODE=token", "export RAY_AUTH_MODE=disabled", "RAY_AUTH_MODE"),
    ("slurm", "run.sbatch", "trap stop_ray EXIT", "trap 'ray stop' EXIT", "trap"),
    ("airflow", "support_tickets_nightly.py", "max_active_runs=1", "max_active_runs=2", "max_active_runs"),
    ("airflow", "support_tickets_nightly.py", "catchup=False", "catchup=True", "catchup"),
    ("airflow", "support_tickets_nightly.py", 'schedule="0 2 * * *"', 'schedule="2 am"', "schedule"),
    ("airflow", "support_tickets_nightly.py", " --lock support_tickets", "", "--lock"),
    ("airflow", "support_tickets_nightly.py", "from airflow.sdk import", "from airflow.models import", "airflow.models"),
    ("airflow", "support_tickets_nightly.py", '    roll_out = shell("roll_out"', '    roll_out = shell("deploy"', "roll_out"),
    ("airflow", "support_tickets_nightly.py", "passed >> roll_out", "passed > > roll_out", "line"),
    ("airflow", "support_tickets_nightly.py", '"RAY_AUTH_TOKEN_PATH": "/etc/raymill/token"', '"RAY_AUTH_TOKEN": "abcdef01"', "token"),
    ("serve-config", "serve.yaml", "proxy_location: EveryNode", "proxy_location: AllNodes", "proxy_location"),
    ("serve-config", "serve.yaml", "      replicas:", "      replica:", "replica"),
    ("serve-config", "serve.yaml", "raymill.deploy:build", "serve.app:build", "import_path"),
    ("serve-config", "serve.yaml", "    model: support_tickets", "    modle: support_tickets", "modle"),
]  # fmt: skip


@pytest.mark.parametrize(("folder", "file", "old", "new", "word"), WRONG_EDITS)
def test_a_wrong_edit_is_refused(folder, file, old, new, word):
    files = read_files(folder)
    assert old in files[file], "the edit does not apply any more"
    files[file] = files[file].replace(old, new)
    kind, _ = renderer.RENDERED[folder]
    problems = KINDS[kind].check(files)
    assert any(word in problem for problem in problems), problems


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_command_checks_a_folder(folder, tmp_path):
    kind, _ = renderer.RENDERED[folder]
    shutil.copytree(EXAMPLES / folder, tmp_path / "copy")
    assert len(raymill.check_manifest(tmp_path / "copy", kind)) == len(read_files(folder))


@pytest.mark.parametrize(
    ("overrides", "fix"),
    [
        (["deploy.ray_up=null"], "provider"),
        (["deploy.gpu_type=null"], "deploy.gpu_type"),
        (["deploy.gpu_type=L5"], "L4"),
        (["deploy.image=raymill:latest"], "sha256"),
        (["deploy.ray_up.machine_image=null"], "aws ssm"),
        (["cluster.cpus_per_worker=500"], "gpu_machine"),
    ],
)
def test_a_spec_without_what_a_kind_needs_is_refused_with_the_fix(overrides, fix):
    with pytest.raises(SpecError) as caught:
        raymill.manifest(renderer.SPEC, "ray-up", overrides=overrides)
    assert fix in caught.value.fix


def test_an_elastic_training_gets_spot_machines_beyond_its_minimum():
    config = yaml.safe_load(
        raymill.manifest(renderer.SPEC, "ray-up", overrides=["cluster.workers=[2,6]"])["cluster.yaml"]
    )
    types = config["available_node_types"]
    assert (types["gpu-l4"]["min_workers"], types["gpu-l4"]["max_workers"]) == (2, 2)
    assert (types["gpu-l4-spot"]["min_workers"], types["gpu-l4-spot"]["max_workers"]) == (0, 4)


def test_a_training_of_a_fixed_size_gets_no_spot_machines():
    config = yaml.safe_load(raymill.manifest(renderer.SPEC, "ray-up", overrides=["cluster.workers=4"])["cluster.yaml"])
    assert "gpu-l4-spot" not in config["available_node_types"]
    assert config["available_node_types"]["gpu-l4"]["min_workers"] == 4


def test_workers_share_the_machines_of_a_larger_type():
    overrides = ["deploy.ray_up.gpu_machine={type: g6.48xlarge, cpus: 192, gpus: 8}", "cluster.workers=16"]
    config = yaml.safe_load(raymill.manifest(renderer.SPEC, "ray-up", overrides=overrides)["cluster.yaml"])
    assert config["available_node_types"]["gpu-l4"]["max_workers"] == 2


def test_a_machine_has_memory_for_what_runs_on_it():
    small = choose_type("aws", 4, 1, "L4", "deploy.ray_up.gpu_machine", 4 << 30)
    large = choose_type("aws", 4, 1, "L4", "deploy.ray_up.gpu_machine", 30 << 30)
    assert (small.name, large.name) == ("g6.xlarge", "g6.4xlarge")
    with pytest.raises(SpecError, match="1430 GiB of memory"):
        choose_type("aws", 4, 1, "L4", "deploy.ray_up.gpu_machine", 1000 << 30)


def test_a_batch_job_asks_for_the_memory_of_the_plan():
    script = raymill.manifest(renderer.SPEC, "slurm", overrides=["deploy.slurm.memory_gb=null"])["run.sbatch"]
    assert "#SBATCH --mem=" in script


def test_docker_compose_reads_the_file():
    command = [COMPOSE, "-f", EXAMPLES / "compose" / "compose.yaml", "--profile", "*", "config", "-q"]
    environment = {**os.environ, "RAYMILL_HEAD": "192.0.2.1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("old", "new"), [("shm_size:", "shm_sizes:"), ("- ray-token", "- ray-tokens"), ("soft: 65536", "soft: x")]
)
def test_docker_compose_refuses_a_wrong_edit(tmp_path, old, new):
    shutil.copytree(EXAMPLES / "compose", tmp_path / "compose")
    file = tmp_path / "compose" / "compose.yaml"
    file.write_text(file.read_text().replace(old, new))
    command = [COMPOSE, "-f", file, "--profile", "*", "config", "-q"]
    environment = {**os.environ, "RAYMILL_HEAD": "192.0.2.1"}
    assert subprocess.run(command, capture_output=True, env=environment, timeout=60).returncode != 0


def test_compose_asks_for_the_address_of_the_head():
    command = [COMPOSE, "-f", EXAMPLES / "compose" / "compose.yaml", "--profile", "head", "config", "-q"]
    environment = {name: value for name, value in os.environ.items() if name != "RAYMILL_HEAD"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode != 0
    assert "address of the host of the head" in done.stderr


def test_shellcheck_has_nothing_to_say_about_the_batch_script():
    # SC1091: it cannot follow the user's own setup.
    command = [BIN / "shellcheck", "--exclude=SC1091", EXAMPLES / "slurm" / "run.sbatch"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
