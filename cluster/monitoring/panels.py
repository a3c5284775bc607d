"""What the Grafana dashboards show: their panels with PromQL expressions. `cluster.monitoring.grafana` makes files of them.

Gauges of a run may reach Prometheus twice, from its own port and from Ray's exporter, so they are joined with `max`.
"""

from __future__ import annotations

from typing import NamedTuple


class Panel(NamedTuple):
    """One chart."""

    title: str
    unit: str
    """A unit of Grafana, for example `s`, `bytes`, `percentunit` or `short`."""
    queries: tuple[tuple[str, str], ...]
    """(legend, expression)."""
    about: str = ""
    kind: str = "timeseries"


class DashboardPanels(NamedTuple):
    """One dashboard; its file and its identity in Grafana are `raymill-<name>`."""

    name: str
    title: str
    variable: str
    """The metric whose `model` labels the dashboard offers; "" for a dashboard of all models."""
    panels: tuple[Panel, ...]


def _of_run(name: str, labels: str = "", matcher: str = "") -> str:
    """Return the expression of a run's gauge."""
    by = f"model, run, {labels}" if labels else "model, run"
    return f'max by ({by}) ({name}{{model=~"$model"{matcher}}})'


def _rate(name: str, by: str = "", matcher: str = "") -> str:
    """Return the expression of an endpoint's counter per second."""
    rate = f'rate({name}{{model=~"$model"{matcher}}}[$__rate_interval])'
    return f"sum by ({by}) ({rate})" if by else f"sum({rate})"


def _quantile(q: float) -> str:
    return f"histogram_quantile({q}, {_rate('raymill_request_seconds_bucket', 'le')})"


def _quantiles(buckets: str) -> tuple[tuple[str, str], ...]:
    return tuple((f"p{round(100 * q)}", f"histogram_quantile({q}, {_rate(buckets, 'le')})") for q in (0.5, 0.95, 0.99))


_RUN = "{{run}}"
_NODE = "{{NodeAddress}}"
_IP = "{{ip}}"  # Ray's agents call the node so

PREPARING = DashboardPanels("preparing", "raymill: preparing", "raymill_prepare_rows", (
    Panel("Rows read per second", "short", ((_RUN, _of_run("raymill_prepare_rows_per_second")),)),
    Panel("Rows read", "short", ((_RUN, _of_run("raymill_prepare_rows")),)),
    Panel("Seconds", "s", ((_RUN, _of_run("raymill_run_stage_seconds", "", ',stage="prepare"')),)),
    Panel("Prepared rows", "short", (("{{run}} {{part}}", _of_run("raymill_prepare_rows_used", "part")),)),
    Panel("Rows left out", "short", (("{{reason}}", _of_run("raymill_prepare_rows_left_out", "reason")),),
          "Bad rows and rows that a step leaves out, by reason."),
    Panel("Seconds without a new row", "s", ((_RUN, _of_run("raymill_run_stage_idle_seconds", "", ',stage="prepare"')),)),
    Panel("Blocks by Ray Data's step", "short", (("{{operator}}", "max by (dataset, operator) (ray_data_num_outputs_taken)"),),
          "A preparation on a cluster. One output is one block of 16,384 rows."),
    Panel("Cores by Ray Data's step", "short", (("{{operator}}", "sum by (dataset, operator) (ray_data_cpu_usage_cores)"),)),
    Panel("Object store by Ray Data's step", "bytes",
          (("{{operator}}", "sum by (dataset, operator) (ray_data_obj_store_mem_used)"),)),
))  # fmt: skip

TRAINING = DashboardPanels("training", "raymill: training", "raymill_train_step", (
    Panel("Loss", "short", ((_RUN, _of_run("raymill_train_loss")),)),
    Panel("Validation", "short", (("{{run}} {{metric}}", _of_run("raymill_train_validation", "metric")),),
          "Metrics on the validation rows after each epoch."),
    Panel("Learning rate", "short", ((_RUN, _of_run("raymill_train_learning_rate")),)),
    Panel("Norm of the gradient", "short", ((_RUN, _of_run("raymill_train_grad_norm")),)),
    Panel("Rows per second", "short", ((_RUN, _of_run("raymill_train_rows_per_second")),), "All workers together."),
    Panel("Tokens per second", "short", ((_RUN, _of_run("raymill_train_tokens_per_second")),), "Texts only."),
    Panel("Seconds per step", "s", ((_RUN, _of_run("raymill_train_step_seconds")),)),
    Panel("Memory of the first worker", "bytes", ((_RUN, _of_run("raymill_train_memory_bytes")),)),
    Panel("Epoch and step", "short", (("{{run}} epoch", _of_run("raymill_train_epoch")),
                                      ("{{run}} step", _of_run("raymill_train_step")))),
    Panel("Share done", "percentunit", ((_RUN, 'max by (model, run) (raymill_run_stage_done{model=~"$model",stage="train"}) / '
          'max by (model, run) (raymill_run_stage_total{model=~"$model",stage="train"})'),)),
    Panel("Seconds by stage", "s", (("{{run}} {{stage}}", _of_run("raymill_run_stage_seconds", "stage")),)),
    Panel("Seconds without a new row", "s", ((_RUN, _of_run("raymill_run_stage_idle_seconds", "", ',stage="train"')),)),
))  # fmt: skip

_TRIAL = ',run=~".*/trials/.*"'
TUNING = DashboardPanels("tuning", "raymill: tuning", "raymill_search_trials_planned", (
    Panel("Trials", "short", (("{{run}} {{state}}", _of_run("raymill_search_trials", "state")),
                              ("{{run}} planned", _of_run("raymill_search_trials_planned")))),
    Panel("Best value", "short", (("{{run}} {{metric}}", _of_run("raymill_search_best", "metric")),),
          "On the validation rows."),
    Panel("Epochs", "short", (("{{run}} done", _of_run("raymill_run_stage_done", "", ',stage="tune"')),
                              ("{{run}} expected", _of_run("raymill_run_stage_total", "", ',stage="tune"')))),
    Panel("Loss of each trial", "short", ((_RUN, _of_run("raymill_train_loss", "", _TRIAL)),)),
    Panel("Validation of each trial", "short",
          (("{{run}} {{metric}}", _of_run("raymill_train_validation", "metric", _TRIAL)),)),
    Panel("Rows per second, all trials", "short", (("{{model}}", f"sum by (model) ({_of_run('raymill_train_rows_per_second', '', _TRIAL)})"),)),
))  # fmt: skip

SERVING = DashboardPanels("serving", "raymill: serving", "raymill_model_info", (
    Panel("Requests per second", "reqps", (("{{status}}", _rate("raymill_requests_total", "status")),)),
    Panel("Time of a request", "s", (("p50", _quantile(0.5)), ("p95", _quantile(0.95)), ("p99", _quantile(0.99)))),
    Panel("Time of a request by stage", "s", (("{{stage}}", f"{_rate('raymill_stage_seconds_sum', 'stage')} / "
          f"{_rate('raymill_stage_seconds_count', 'stage')}"),), "Mean seconds of each stage of a request."),
    Panel("Rejected and failed requests", "reqps",
          (("{{reason}}", 'sum by (reason) (rate(raymill_requests_total{model=~"$model|",reason!="ok"}[$__rate_interval]))'),),
          "By the error's code. Requests that reach no model have no model either."),
    Panel("Inputs in a batch", "short",
          (("mean", f"{_rate('raymill_batch_inputs_sum')} / {_rate('raymill_batch_inputs_count')}"),)),
    Panel("Waiting inputs", "short", (("inputs without an answer", 'sum(raymill_queue_inputs{model=~"$model"})'),
                                      ("requests in flight", 'sum(raymill_requests_in_flight{model=~"$model"})'))),
    Panel("Inputs and tokens per second", "short", (("inputs", _rate("raymill_inputs_total")),
                                                    ("tokens", _rate("raymill_tokens_total")))),
    Panel("Predictions by label", "short", (("{{label}}", f"topk(10, {_rate('raymill_predictions_total', 'label')})"),)),
    Panel("Replicas", "short", (("{{model}}@{{version}}", 'sum by (model, version) (raymill_model_info{model=~"$model"})'),),
          kind="stat"),
    Panel("Engine", "short", (("{{model}}@{{version}} {{engine}}",
          'sum by (model, version, engine) (raymill_model_info{model=~"$model"})'),), kind="stat"),
))  # fmt: skip

GENERATION = DashboardPanels("generation", "raymill: language models", "raymill_generated_tokens_total", (
    Panel("Time to the first token", "s", _quantiles("raymill_first_token_seconds_bucket"),
          "From the request to the first token of its answer."),
    Panel("Time between tokens", "s", _quantiles("raymill_between_tokens_seconds_bucket")),
    Panel("Tokens per second", "short", (("{{model}} prompts", _rate("raymill_prompt_tokens_total", "model")),
                                         ("{{model}} answers", _rate("raymill_generated_tokens_total", "model"))),
          "An adapter is a model of its own."),
    Panel("Answers", "short", (("{{model}} running", 'sum by (model) (raymill_sequences_running{model=~"$model"})'),
                               ("{{model}} waiting", 'sum by (model) (raymill_sequences_waiting{model=~"$model"})'))),
    Panel("Cache in use", "percentunit", (("{{model}}", 'sum by (model) (raymill_cache_tokens{model=~"$model"}) / '
          'sum by (model) (raymill_cache_capacity_tokens{model=~"$model"})'),)),
    Panel("Tokens of prompts from the cache", "percentunit",
          (("{{model}}", f"{_rate('raymill_cached_prompt_tokens_total', 'model')} / "
                         f"{_rate('raymill_prompt_tokens_total', 'model')}"),)),
    Panel("Prompts with a beginning in the cache", "reqps", (("{{model}}", _rate("raymill_prefix_hits_total", "model")),)),
    Panel("Ends of answers", "reqps", (("{{finish_reason}}", _rate("raymill_answers_total", "finish_reason")),)),
))  # fmt: skip

CLUSTER = DashboardPanels("cluster", "raymill: cluster", "", (
    Panel("Nodes", "short", (("{{node_type}}", "sum by (node_type) (ray_cluster_active_nodes)"),), kind="stat"),
    Panel("Cores in use", "percent", ((_IP, "max by (ip) (ray_node_cpu_utilization)"),)),
    Panel("Memory in use", "percentunit",
          ((_IP, "max by (ip) (ray_node_mem_used) / max by (ip) (ray_node_mem_total)"),)),
    Panel("Reserved resources", "short",
          (("{{Name}} {{State}}", 'sum by (Name, State) (ray_resources{Name=~"CPU|GPU|memory"})'),)),
    Panel("Object store in use", "bytes", ((_NODE, "sum by (NodeAddress) (ray_object_store_used_memory)"),)),
    Panel("Objects on disk", "bytes", ((_NODE, 'sum by (NodeAddress) (ray_spill_manager_objects_bytes{State="Spilled"})'),),
          "Objects that did not fit into memory."),
    Panel("Disk in use", "percent", ((_IP, "max by (ip) (ray_node_disk_utilization_percentage)"),)),
    Panel("Network", "Bps", (("{{ip}} sent", "sum by (ip) (ray_node_network_send_speed)"),
                             ("{{ip}} received", "sum by (ip) (ray_node_network_receive_speed)"))),
    Panel("Tasks", "short", (("{{State}}", "sum by (State) (ray_tasks)"),)),
    Panel("Actors", "short", (("{{State}}", "sum by (State) (ray_actors)"),)),
    Panel("Jobs", "short", (("running", "sum(ray_running_jobs)"),)),
    Panel("GPUs in use", "percent",
          (("{{ip}} {{GpuIndex}}", "max by (ip, GpuIndex) (ray_node_gpus_utilization)"),)),
    Panel("GPU memory in use", "decmbytes",
          (("{{ip}} {{GpuIndex}}", "max by (ip, GpuIndex) (ray_node_gram_used)"),)),
))  # fmt: skip

DASHBOARDS = (PREPARING, TRAINING, TUNING, SERVING, GENERATION, CLUSTER)
