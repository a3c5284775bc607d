"""The batch script of kind `slurm` on a real Slurm: two machines, one run."""

import pytest
import yaml

import raymill
from cluster.manifests.files import write_manifest
from support.namespaces import Network
from support.slurm import SlurmMachines, why_no_slurm
from support.tiny_table import make_table_rows, table_spec, write_rows

pytestmark = pytest.mark.long


def test_a_job_on_two_machines_trains_and_registers(can_make_machines, tmp_path):
    if reason := why_no_slurm():
        pytest.skip(reason)
    write_rows(tmp_path / "train.csv", make_table_rows(300, 1))
    write_rows(tmp_path / "test.csv", make_table_rows(80, 2))
    spec = table_spec(
        tmp_path,
        model={"kind": "mlp"},
        train={"epochs": 1},
        cluster={"workers": 2, "cpus_per_worker": 1},
        deploy={"storage": {"path": str(tmp_path)}, "project": str(tmp_path), "slurm": {"time": "00:20:00"}},
    )
    del spec["storage"]
    spec_file = tmp_path / "spec.yaml"
    spec_file.write_text(yaml.safe_dump(spec))
    job_folder = tmp_path / "job"
    write_manifest(raymill.manifest(spec_file, "slurm"), job_folder)
    with Network(shared=[tmp_path]) as network:
        slurm = SlurmMachines(network, tmp_path, 2)
        slurm.wait_until_idle(2)
        submitted = slurm.run("sbatch", "--parsable", "run.sbatch", cwd=job_folder)
        assert submitted.code == 0, submitted
        job = submitted.stdout.strip()
        state = slurm.wait_for_end(job)
        log = (job_folder / f"tiny-table-{job}.log").read_text()
        assert state == "COMPLETED", log
    assert "2 machines have joined" in log
    assert raymill.show("tiny-table@champion", storage=tmp_path / "raymill")["version"] == 1
    # What was made for this job only is gone; Ray's logs stay.
    assert not (tmp_path / "raymill" / "slurm" / job / "token").exists()
    assert (tmp_path / "raymill" / "slurm" / job / "workers.log").is_file()
