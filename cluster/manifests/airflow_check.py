"""Check a DAG without Airflow: its syntax, what it imports, and that two nights never overlap."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping

from cluster.manifests.airflow import SPEC_FILE
from cluster.manifests.secret_check import find_secrets

# Airflow's workers have these; everything else may be missing there.
_MODULES = {"json", "datetime", "pathlib", "pendulum", "airflow.sdk", "airflow.providers.standard.operators.bash"}
_CRON = re.compile(r"@(hourly|daily|weekly|monthly)|\S+( \S+){4}")
_STEPS = {"prepare", "run", "roll_out"}


def check(files: Mapping[str, str]) -> list[str]:
    """Return what is wrong with the files of kind `airflow`. `airflow dags test` runs the DAG."""
    dags = [name for name in files if name.endswith(".py")]
    if len(dags) != 1:
        return [f"{len(dags)} files end with .py; a DAG is one"]
    name, text = dags[0], files[dags[0]]
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        return [f"{name}: line {error.lineno}: {error.msg}"]
    problems = [*_import_problems(tree), *_dag_problems(tree), *_step_problems(tree, text)]
    if SPEC_FILE not in files:
        problems.append(f"{SPEC_FILE}, which it runs, is not beside it")
    return [f"{name}: {problem}" for problem in problems] + find_secrets(files)


def _import_problems(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        for name in names:
            if name not in _MODULES:
                yield f"line {node.lineno}: it imports {name}, which Airflow 3's workers may not have"


def _dag_problems(tree: ast.Module) -> Iterator[str]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _name(node.func) == "DAG"]
    if len(calls) != 1:
        yield f"it makes {len(calls)} DAGs; it must be one"
        return
    arguments = {keyword.arg: _value(keyword.value) for keyword in calls[0].keywords}
    if arguments.get("max_active_runs") != 1:
        yield f"max_active_runs={arguments.get('max_active_runs')}: two nights must not overlap; it is 1"
    if arguments.get("catchup") is not False:
        yield f"catchup={arguments.get('catchup')}: every night since start_date would be made up for; it is False"
    if "start_date" not in arguments:
        yield "start_date is not set, so Airflow never starts the DAG"
    if "schedule_interval" in arguments:
        yield "schedule_interval: Airflow 3 has `schedule`"
    schedule = arguments.get("schedule")
    if not isinstance(schedule, str) or not _CRON.fullmatch(schedule):
        yield f"schedule={schedule}: it is no time of cron (minute, hour, day, month, day of the week)"


def _step_problems(tree: ast.Module, text: str) -> Iterator[str]:
    steps = {
        _value(node.args[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and _name(node.func) == "shell" and node.args
    }
    yield from (f"the step {step!r} is missing" for step in sorted(_STEPS - steps))
    runs = [line for line in text.splitlines() if "raymill run " in line]
    if not runs or any(" --lock " not in line for line in runs):
        yield "`raymill run` without --lock: something else may start the pipeline at the same time"


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _value(node: ast.expr) -> object:
    return node.value if isinstance(node, ast.Constant) else None
