"""Experiment tracking: a real MLflow server, the readers of TensorBoard and W&B, a real Prometheus."""

import contextlib
import json
import os
import shutil
import signal
import struct
from pathlib import Path

import httpx
import pytest
import yaml

from cluster.ports import free_port
from support.commands import RunningCommand, run_raymill, still_running
from support.tiny_text import tiny_spec, write_spec

PROMETHEUS = shutil.which("prometheus")
SLOW_LOSS = """
import time

import torch


def slow(logits, targets, weights):
    time.sleep(0.03)
    return torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
"""
TRAIN = {"epochs": 4, "batch_size": 8, "learning_rate": 2e-3, "precision": "fp32", "checkpoint": {"every_steps": 20}}


def is_healthy(client):
    try:
        return client.get("/health").status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory):
    """The address of a real server on sqlite."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    arguments = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port, "--workers", 1]
    arguments += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    arguments += ["--artifacts-destination", folder / "artifacts"]
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    server = RunningCommand(*arguments, cwd=folder)
    uri = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=uri, timeout=2) as client:
            server.wait_until(lambda: is_healthy(client), "MLflow answers", timeout_s=300)
        yield uri
    finally:
        server.terminate()


@pytest.fixture(scope="module")
def tracked(mlflow_server, tiny_base, tiny_data, tmp_path_factory):
    """The folder of a run that is tracked everywhere, killed in the middle and resumed."""
    folder = tmp_path_factory.mktemp("tracked")
    (folder / "slow_loss.py").write_text(SLOW_LOSS)
    train = {**TRAIN, "loss": {"function": "slow_loss:slow"}}
    track = {"every_steps": 5, "mlflow": {"uri": mlflow_server, "experiment": "tests"}, "wandb": {}}
    spec = tiny_spec(tiny_base, tiny_data, folder / "storage", train=train, track=track)
    command = RunningCommand("-m", "raymill", "run", write_spec(folder / "run.yaml", spec), cwd=folder)
    try:
        checkpoint = "storage/runs/*/checkpoints/step-00000040"
        command.wait_until(lambda: list(folder.glob(checkpoint)), "the checkpoint of step 40", timeout_s=300)
        processes = command.descendants()
        os.kill(command.process.pid, signal.SIGKILL)
        command.process.wait(20)
        for process in still_running(processes):
            process.kill()
    finally:
        command.terminate()
    (run,) = folder.glob("storage/runs/*")
    done = run_raymill("run", "--resume", run, "--json", cwd=folder)
    assert done.code == 0 and json.loads(done.stdout)["version"] == 1, done
    assert not (run / "notices.jsonl").exists(), (run / "notices.jsonl").read_text()
    return run


def test_mlflow_has_parameters_metrics_files_and_the_version(tracked, mlflow_server, tmp_path):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=mlflow_server)
    experiment = client.get_experiment_by_name("tests")
    (run,) = client.search_runs([experiment.experiment_id])  # one run, although the training was killed
    assert run.info.run_name == tracked.name and run.info.status == "FINISHED"
    assert run.data.params["train.learning_rate"] == "0.002" and run.data.params["name"] == "tiny"
    lines = [json.loads(line) for line in (tracked / "metrics.jsonl").read_text().splitlines()]
    sent = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, "train/loss")}
    assert sent == {line["step"]: pytest.approx(line["loss"]) for line in lines}
    epochs = client.get_metric_history(run.info.run_id, "validation/accuracy")
    assert len({metric.step for metric in epochs}) == 4
    files = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"spec.yaml", "resolved.yaml", "environment.json", "metrics.jsonl", "report.html", "model"} <= files
    version = client.get_model_version_by_alias("tiny", "champion")
    assert version.run_id == run.info.run_id and version.tags["raymill_version"] == "1"
    path = client.download_artifacts(run.info.run_id, "model/model.safetensors", str(tmp_path))
    ours = tracked.parents[1] / "models" / "tiny" / "versions" / "1" / "model.safetensors"
    assert Path(path).read_bytes() == ours.read_bytes()


def test_tensorboard_reads_its_files(tracked):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tracked / "tensorboard"))
    events.Reload()
    lines = [json.loads(line) for line in (tracked / "metrics.jsonl").read_text().splitlines()]
    seen = {event.step: event.value for event in events.Scalars("train/loss")}
    assert seen == {line["step"]: pytest.approx(line["loss"]) for line in lines}
    assert "validation/macro_f1" in events.Tags()["scalars"]


def wandb_records(path):
    """Yield the records of a W&B file: after 7 bytes, LevelDB's log format in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, offset, parts = path.read_bytes(), 7, []
    assert content[:4] == b":W&B"
    while offset + 7 <= len(content):
        left = 32768 - offset % 32768
        if left < 7:
            offset += left
            continue
        length, kind = struct.unpack_from("<HB", content, offset + 4)
        parts.append(content[offset + 7 : offset + 7 + length])
        offset += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(b"".join(parts))
            parts = []
            yield record


def test_wandb_can_sync_its_files(tracked):
    seen = {}
    files = sorted(tracked.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 2  # one from before the kill, one from after
    for file in files:
        for record in wandb_records(file):
            items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            if "train/loss" in items:
                seen[int(items["step"])] = float(items["train/loss"])
    lines = [json.loads(line) for line in (tracked / "metrics.jsonl").read_text().splitlines()]
    assert seen == {line["step"]: pytest.approx(line["loss"]) for line in lines}


def test_a_missing_server_does_not_stop_the_training(tiny_base, tiny_data, tmp_path):
    track = {"mlflow": {"uri": f"http://127.0.0.1:{free_port()}"}}
    spec = tiny_spec(tiny_base, tiny_data, tmp_path / "storage", train={**TRAIN, "epochs": 1}, track=track)
    done = run_raymill("train", write_spec(tmp_path / "run.yaml", spec))
    assert done.code == 0 and "mlflow gets no metrics of this run" in done.stderr, done


@pytest.mark.skipif(not PROMETHEUS, reason="Debian's prometheus is not installed (.ci/run installs it)")
def test_prometheus_watches_a_training(tiny_base, tiny_data, tmp_path):
    (tmp_path / "slow_loss.py").write_text(SLOW_LOSS.replace("0.03", "0.1"))
    train = {**TRAIN, "epochs": 1000, "loss": {"function": "slow_loss:slow"}}
    spec = tiny_spec(tiny_base, tiny_data, tmp_path / "storage", train=train, track={"prometheus": True})
    runs = tmp_path / "storage" / "runs"
    config = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [
            {
                "job_name": "raymill",
                "file_sd_configs": [{"files": [f"{runs.parent}/prometheus/*.json"], "refresh_interval": "1s"}],
            }
        ],
    }
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    server = RunningCommand(
        Path(PROMETHEUS), f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    )  # fmt: skip
    command = RunningCommand("-m", "raymill", "train", write_spec(tmp_path / "run.yaml", spec), cwd=tmp_path)
    try:
        names = {"raymill_train_loss", "raymill_train_rows_per_second", "raymill_train_tokens_per_second",
                 "raymill_train_step_seconds", "raymill_train_memory_bytes", "raymill_train_step"}  # fmt: skip
        query = {"query": '{__name__=~"raymill_train_.*", model="tiny"}'}
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=5)
        series = []

        def has_all_metrics():
            with contextlib.suppress(httpx.HTTPError):
                reply = client.get("/api/v1/query", params=query).json()
                series[:] = reply["data"]["result"]
            return names <= {row["metric"]["__name__"] for row in series}

        with client:
            command.wait_until(has_all_metrics, f"Prometheus has {names}", timeout_s=300)
        values = {row["metric"]["__name__"]: float(row["value"][1]) for row in series}
        (run,) = runs.glob("*")
        assert {row["metric"]["run"] for row in series} == {run.name}
        assert 0 < values["raymill_train_loss"] < 5 and values["raymill_train_step_seconds"] > 0.03
        targets = json.loads((runs.parent / "prometheus" / f"{run.name}.json").read_text())
        assert targets[0]["targets"][0].startswith("127.0.0.1:")
    finally:
        command.terminate()
        server.terminate()
