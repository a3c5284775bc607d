"""Ray still has every private name that `cluster.ray_internals` uses. A failing test says what to do."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest
import ray

from cluster import ray_internals

ROOT = Path(__file__).parents[2]


def load_name(module, name, advice):
    """Return a name of a module of Ray. Fail with the advice if either is gone."""
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        pytest.fail(f"ray {ray.__version__} has no {module}.{name}: {advice}")


def require(condition, advice):
    if not condition:
        pytest.fail(f"ray {ray.__version__} has changed: {advice}")


def test_count_gpus(monkeypatch):
    advice = "change ray_internals.count_gpus to what `ray.init` uses now to count GPUs within CUDA_VISIBLE_DEVICES"
    manager = load_name("ray._private.accelerators.nvidia_gpu", "NvidiaGPUAcceleratorManager", advice)
    for method in ("get_current_process_visible_accelerator_ids", "get_current_node_num_accelerators"):
        require(hasattr(manager, method), advice)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    require(ray_internals.count_gpus() == 2, advice)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    require(ray_internals.count_gpus() == 0, advice)


def test_node_address_option():
    advice = "find the argument of `ray.init` that binds a local Ray to the loopback interface, for node_address_option"
    (name,) = ray_internals.node_address_option("127.0.0.1")
    require(name in inspect.getsource(inspect.unwrap(ray.init)), advice)


@pytest.mark.parametrize("log_monitor", [True, False])
def test_without_unused_daemons(log_monitor):
    advice = "find what a local Ray starts that one command does not use, for ray_internals.without_unused_daemons"
    node = load_name("ray._private.node", "Node", advice)
    starters = {name: method for name, method in vars(node).items() if name.startswith("start_")}
    daemons = {"start_monitor", "start_api_server", "start_log_monitor"}
    require(daemons <= set(starters), advice)
    source = inspect.getsource(node.start_head_processes) + inspect.getsource(node.start_ray_processes)
    for name in daemons:
        require(f"self.{name}(" in source, advice)
    with ray_internals.without_unused_daemons(log_monitor=log_monitor):
        changed = {name for name, method in starters.items() if vars(node)[name] is not method}
    assert changed == (daemons - {"start_log_monitor"} if log_monitor else daemons)
    assert starters == {name: vars(node)[name] for name in starters}


def test_head_question():
    advice = "find another question in gRPC that a head answers with UNAUTHENTICATED, for ray_internals.HEAD_QUESTION"
    stub = load_name("ray.core.generated.gcs_service_pb2_grpc", "NodeInfoGcsServiceStub", advice)
    require(f"'{ray_internals.HEAD_QUESTION}'" in inspect.getsource(stub), advice)


def test_serve_client():
    advice = (
        "change ray_internals.serve_is_running and serve_address to the way `ray.serve.status` finds its controller"
    )
    client = load_name("ray.serve.context", "_get_global_client", advice)
    require("raise_if_no_controller_running" in inspect.signature(client).parameters, advice)
    client_class = load_name("ray.serve._private.client", "ServeControllerClient", advice)
    require(isinstance(inspect.getattr_static(client_class, "http_config", None), property), advice)


def test_broadcast_answers():
    advice = "change ray_internals.broadcast_answers to the way `results_async` collects a broadcast's answers"
    response = load_name("ray.serve.handle", "DeploymentBroadcastResponse", advice)
    require(inspect.iscoroutinefunction(getattr(response, "_fetch_replica_results_async", None)), advice)
    require("rr.get_async() for rr in replica_results" in inspect.getsource(response.results_async), advice)


def test_finish_trial_session():
    advice = (
        "change ray_internals.finish_trial_session to the way `FunctionTrainable.cleanup` ends its training function"
    )
    load_name("ray.train._internal.session", "get_session", advice)
    session = load_name("ray.train._internal.session", "_TrainSession", advice)
    require("timeout" in inspect.signature(session.finish).parameters, advice)
    trainable = load_name("ray.tune.trainable.function_trainable", "FunctionTrainable", advice)
    require("get_session()" in inspect.getsource(trainable.cleanup), advice)
    ray_internals.finish_trial_session(0.0)  # does nothing outside a trial


def test_data_parallel_trainer():
    advice = "take the trainer without a backend from where `ray.train.torch.TorchTrainer` takes its base class now"
    trainer = load_name("ray.train.v2.api.data_parallel_trainer", "DataParallelTrainer", advice)
    torch_trainer = load_name("ray.train.torch", "TorchTrainer", advice)
    require(issubclass(torch_trainer, trainer), advice)


def test_live_actors():
    advice = "change ray_internals.live_actors to what lists actors without the dashboard now"
    load_name("ray._private.state", "actors", advice)


def test_running_replicas():
    advice = "change ray_internals.running_replicas to how Ray Serve names the actors of replicas now"
    replica_id = load_name("ray.serve._private.common", "ReplicaID", advice)
    deployment_id = load_name("ray.serve._private.common", "DeploymentID", advice)
    name = replica_id("abc", deployment_id("Endpoint", "tickets")).to_full_id_str()
    require(name == "SERVE_REPLICA::tickets#Endpoint#abc", advice)


def test_worker_setup_hook_variable():
    advice = (
        "set ray_internals.WORKER_SETUP_HOOK_VARIABLE to the variable that Ray's workers read their setup hook from"
    )
    name = load_name("ray._private.ray_constants", "WORKER_PROCESS_SETUP_HOOK_ENV_VAR", advice)
    require(name == ray_internals.WORKER_SETUP_HOOK_VARIABLE, advice)


def private_imports(path):
    """Return the private names of Ray that a file imports."""
    names, text = [], path.read_text()
    if not re.search(r"\b(import|from) ray\b", text):
        return names
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in names if name.startswith("ray.") and ("._" in name or name.startswith("ray.train.v2."))]


def test_only_ray_internals_imports_private_names_of_ray():
    folders = ("cluster", "trainer", "tune", "serve", "raymill", "benchmarks", "examples")
    files = {path: private_imports(path) for folder in folders for path in (ROOT / folder).rglob("*.py")}
    assert {str(path.relative_to(ROOT)) for path, names in files.items() if names} == {"cluster/ray_internals.py"}


def test_cluster_config():
    advice = "change ray_internals.cluster_config_problem to what `ray up` checks its config with now"
    for name in ("prepare_config", "validate_config"):
        load_name("ray.autoscaler._private.util", name, advice)
    require("vmSize" in ray_internals.azure_machine_keys(), "change ray_internals.azure_machine_keys to Ray's template")
