"""raymill's Python API: one function for each stage and command.

Nothing heavy is imported until a function runs, so `raymill --help` answers without torch, Ray or pydantic.
"""

# ruff: noqa: E402

from raymill.own_packages import guard

guard()  # before anything imports one of the four packages: a user's own serve.py may be first on the import path

from raymill.contracts import contract_diff, contract_show
from raymill.endpoint import deploy_config, optimize, serve, serve_versions, wait_for_interrupt
from raymill.inference import evaluate, load, predict
from raymill.registry import models, promote, rollback, show
from raymill.run_listing import runs
from raymill.session import STORAGE
from raymill.stages import data_report, plan, prepare, repeat, resume, run, train, tune
from raymill.task_listing import tasks

__all__ = [
    "STORAGE",
    "contract_diff",
    "contract_show",
    "data_report",
    "deploy_config",
    "evaluate",
    "load",
    "models",
    "optimize",
    "plan",
    "predict",
    "prepare",
    "promote",
    "repeat",
    "resume",
    "rollback",
    "run",
    "runs",
    "serve",
    "serve_versions",
    "show",
    "tasks",
    "train",
    "tune",
    "wait_for_interrupt",
]
