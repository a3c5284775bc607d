"""raymill's Python API: one function for each stage and command.

Large libraries are imported only when a function runs, so `raymill --help` does not load torch, Ray or pydantic.
"""

# ruff: noqa: E402

from raymill.own_packages import guard

guard()  # before any import from raymill's other packages: a user's own serve.py may come first on the import path

from raymill.cluster_jobs import job_logs, job_status, jobs, stop_job
from raymill.contracts import contract_diff, contract_show
from raymill.drafting import init
from raymill.endpoint import deploy_config, node_variables, optimize, serve, serve_versions, wait_for_interrupt
from raymill.exporting import export
from raymill.health_checks import doctor
from raymill.inference import evaluate, load, predict
from raymill.manifests import check_manifest, manifest
from raymill.monitor import monitor
from raymill.planning import plan
from raymill.registry import models, promote, rollback, show
from raymill.rollout import rollout
from raymill.run_comparison import compare_runs
from raymill.run_details import show_run
from raymill.run_listing import runs
from raymill.run_removal import remove_runs
from raymill.session import STORAGE
from raymill.stages import data_report, prepare, repeat, resume, run, train, tune
from raymill.submission import submit
from raymill.task_listing import tasks

__all__ = [
    "STORAGE",
    "check_manifest",
    "compare_runs",
    "contract_diff",
    "contract_show",
    "data_report",
    "deploy_config",
    "doctor",
    "evaluate",
    "export",
    "init",
    "job_logs",
    "job_status",
    "jobs",
    "load",
    "manifest",
    "models",
    "monitor",
    "node_variables",
    "optimize",
    "plan",
    "predict",
    "prepare",
    "promote",
    "remove_runs",
    "repeat",
    "resume",
    "rollback",
    "rollout",
    "run",
    "runs",
    "serve",
    "serve_versions",
    "show",
    "show_run",
    "stop_job",
    "submit",
    "tasks",
    "train",
    "tune",
    "wait_for_interrupt",
]
