"""All private names of Ray that raymill uses, each in a small function of its own.

A new release of Ray may change private names without notice. Each name is imported inside its function, so that a
missing name breaks only the feature that needs it. The comments say why a name is used and what could replace it.
tests/unit/test_ray_internals.py has one test for each.
"""

from __future__ import annotations

import contextlib
import copy
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cluster.errors import first_line

#: The environment variable in which Ray passes the dotted name of a setup hook to its workers.
# Why: raymill does not start the job of an application from `serve deploy`, so it cannot set the hook for that job.
# Replaced by: `worker_process_setup_hook` in an actor's `runtime_env`, once Ray accepts it there and not only for jobs.
WORKER_SETUP_HOOK_VARIABLE = "__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR"

#: A question in gRPC that every head answers, unless it refuses the token.
# Why: `ray.init` tries for 20 s to join a cluster that refuses the token, and then says that it does not answer.
# Replaced by: an error of `ray.init` for a refused token, at once. If the name is gone, that wait is back, and no more.
HEAD_QUESTION = "/ray.rpc.NodeInfoGcsService/GetClusterId"


class ServeAddress(NamedTuple):
    """The address that Ray Serve listens on."""

    host: str
    port: int


def count_gpus() -> int:
    """Return the number of NVIDIA GPUs that Ray would count on this machine, within CUDA_VISIBLE_DEVICES."""
    # Why: `plan` and `doctor` must agree with Ray without starting it, and without importing torch.
    # Replaced by: a public function of Ray's that counts accelerators, or nvidia-ml-py.
    from ray._private.accelerators.nvidia_gpu import NvidiaGPUAcceleratorManager

    visible = NvidiaGPUAcceleratorManager.get_current_process_visible_accelerator_ids()
    return NvidiaGPUAcceleratorManager.get_current_node_num_accelerators() if visible is None else len(visible)


def node_address_option(address: str) -> dict[str, Any]:
    """Return the argument of `ray.init` that makes the new node listen on `address` only."""
    # Why: by default a local Ray uses the machine's network address, where other machines can reach it.
    # Replaced by: a public argument of `ray.init`; `ray start --node-ip-address` exists for the command line only.
    return {"_node_ip_address": address}


@contextlib.contextmanager
def without_unused_daemons(*, log_monitor: bool) -> Iterator[None]:
    """While the block runs, a Ray node starts without autoscaler and API server, and perhaps without log monitor.

    A Ray that lives as long as one command has one node, no dashboard, and nobody who reads its logs from afar. The
    daemons took 4 of the 13 CPU seconds of such a Ray, and half of the time in `ray.init`.
    `log_monitor` keeps the one that brings the output of workers to this process.
    """
    # Why: `ray.init(include_dashboard=False)` still starts all three, and has no argument against it.
    # Replaced by: arguments of `ray.init`; `RayParams` has `no_monitor` and `include_log_monitor`, out of its reach.
    from ray._private.node import Node

    names = ["start_monitor", "start_api_server", *([] if log_monitor else ["start_log_monitor"])]
    methods = {name: getattr(Node, name) for name in names}
    try:
        for name in names:
            setattr(Node, name, _start_nothing)
        yield
    finally:
        for name, method in methods.items():
            setattr(Node, name, method)


def _start_nothing(*_: object, **__: object) -> None:
    """Take the place of a method of Ray's that starts a daemon."""


def serve_is_running() -> bool:
    """Return whether the connected Ray has a running Serve controller."""
    # Why: `serve.status()` returns a status without applications whether or not a Serve controller runs.
    # Replaced by: a field of the status that says whether a controller runs.
    from ray.serve.context import _get_global_client

    return _get_global_client(raise_if_no_controller_running=False) is not None


def serve_address() -> ServeAddress:
    """Return the address that the running Serve listens on. Serve keeps the address that it was first started with."""
    # Why: only the dashboard also knows the address, and a local Ray does not start the dashboard.
    # Replaced by: the HTTP options in `serve.status()`. Today only the dashboard's `ServeInstanceDetails` has them.
    from ray.serve.context import _get_global_client

    client = _get_global_client()
    assert client is not None  # it raises if no controller runs
    return ServeAddress(str(client.http_config.host), int(client.http_config.port))


async def broadcast_answers(handle: Any, method: str, timeout_s: float, *arguments: Any) -> list[Any]:
    """Call `method` on all replicas of a deployment's `handle`, and return the answers that arrive within `timeout_s`.

    A replica that fails, or does not answer in time, is left out; empty if none answers.
    """
    import asyncio  # here: every command loads this file, and asyncio takes longer than all else that `--help` needs

    # Why: `results_async` of a broadcast raises `TimeoutError` if one replica of 200 is stuck, and its answers are lost.
    # Replaced by: an argument of `results_async` that returns the answers so far.
    ends_at = time.monotonic() + timeout_s
    try:
        response = handle.broadcast(method, *arguments)
        results = await asyncio.wait_for(response._fetch_replica_results_async(), timeout_s)
    except Exception:  # of many kinds: the deployment is being updated or deleted
        return []
    questions = [asyncio.ensure_future(result.get_async()) for result in results]
    answered, late = await asyncio.wait(questions, timeout=max(0.0, ends_at - time.monotonic()))
    for question in late:
        question.cancel()
    return [question.result() for question in questions if question in answered and question.exception() is None]


def finish_trial_session(timeout_s: float) -> None:
    """Wait up to `timeout_s` for the training function of this process's Ray Tune trial to end."""
    # Why: `FunctionTrainable.cleanup` waits 0 s, then Ray Tune kills the process, and Ray Train's controller with it.
    # The workers' placement group would stay, and the next trial would wait for its cores forever.
    # Replaced by: a timeout for `cleanup` in `ray.tune.RunConfig`.
    from ray.train._internal.session import get_session

    session = get_session()
    if session is not None:
        session.finish(timeout=timeout_s)


def data_parallel_trainer() -> Any:
    """Return Ray Train's trainer that starts workers without a backend such as torch's process group."""
    # Why: `ray.train.data_parallel_trainer.DataParallelTrainer` belongs to Train v1; v2 does not export its trainer.
    # Replaced by: `ray.train.DataParallelTrainer`, once v2 exports it.
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    return DataParallelTrainer


def live_actors() -> dict[str, str]:
    """Return the actors of the connected Ray that are not dead: id -> class name."""
    # Why: the tests check that no actor is left, and `ray.util.state.list_actors` needs the dashboard.
    # Replaced by: `list_actors`, once it works without the dashboard.
    from ray._private.state import actors

    return {key: actor["ActorClassName"] for key, actor in actors().items() if actor["State"] != "DEAD"}


def running_replicas() -> list[tuple[str, str]]:
    """Return the running replicas of the connected Ray's endpoints: name of the application, id of the node."""
    # Why: `serve.status()` counts replicas and does not say where they run; the dashboard does, if it is there.
    # Replaced by: the nodes of replicas in `serve.status()`.
    from ray._private.state import actors

    alive = [actor for actor in actors().values() if actor["State"] == "ALIVE"]
    prefix, separator = "SERVE_REPLICA::", "#"
    return [
        (actor["Name"].removeprefix(prefix).partition(separator)[0], actor["Address"]["NodeID"])
        for actor in alive
        if actor["Name"].startswith(prefix)
    ]


def cluster_config_problem(config: dict[str, Any]) -> str | None:
    """Return what `ray up` refuses in a cluster's config, in one sentence, or None. It asks no cloud."""
    # Why: `ray up` has no option that only checks; the check must be Ray's own, with Ray's defaults filled in.
    # Replaced by: a public function or `ray up --dry-run`; `ray.autoscaler.sdk` has no validation without the cloud.
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        validate_config(prepare_config(copy.deepcopy(config)))
    except Exception as error:  # jsonschema's, click's, ValueError and AssertionError
        where = ".".join(map(str, getattr(error, "absolute_path", ())))
        return f"{where}: {first_line(error)}" if where else first_line(error)
    return None


def azure_machine_keys() -> set[str]:
    """Return the keys that Ray takes in `azure_arm_parameters`: the parameters of its template for a machine."""
    # Why: Azure refuses an unknown parameter only after `ray up` has made the network.
    # Replaced by: a schema of `node_config`; the file is data of Ray's.
    import ray.autoscaler

    folder = Path(ray.autoscaler.__file__).parent / "_private" / "_azure"
    template = json.loads((folder / "azure-vm-template.json").read_text(encoding="utf-8"))
    return set(template["parameters"]) | {"availability_zone"}
