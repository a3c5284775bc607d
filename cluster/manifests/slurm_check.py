"""Check a batch script: its options of sbatch, its shell, and what a Ray on several machines needs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from cluster.manifests.node_check import node_problems
from cluster.manifests.secret_check import find_secrets
from cluster.manifests.shell_check import shell_problem
from cluster.manifests.slurm import SCRIPT_FILE

_NUMBER = r"[1-9]\d*"
_TEXT = r"'[^']+'|[^\s']+"
#: Option of sbatch -> the form of its value; None: it has none.
_OPTIONS = {
    "job-name": _TEXT,
    "nodes": rf"{_NUMBER}(-{_NUMBER})?",
    "ntasks-per-node": "1",
    "cpus-per-task": _NUMBER,
    "gpus-per-node": rf"([a-z][a-z0-9_\-]*:)?{_NUMBER}",
    "mem": rf"{_NUMBER}[KMGT]?",
    "time": r"(\d+-)?\d{1,2}(:\d{2}){2}",
    "partition": _TEXT,
    "account": _TEXT,
    "qos": _TEXT,
    "constraint": _TEXT,
    "output": _TEXT,
    "open-mode": "append|truncate",
    "signal": rf"(B:)?[A-Z0-9]+@{_NUMBER}",
    "requeue": None,
    "no-kill": None,
}  # fmt: skip
_REQUIRED = ("nodes", "ntasks-per-node", "cpus-per-task", "time")
_DIRECTIVE = re.compile(r"#SBATCH --([a-z\-]+)(?:=(.*))?")


def check(files: Mapping[str, str]) -> list[str]:
    """Return what is wrong with the files of kind `slurm`."""
    script = files.get(SCRIPT_FILE, "")
    problems = [*_directive_problems(script), *_shell_problems(script), *_ray_problems(script)]
    return [f"{SCRIPT_FILE}: {problem}" for problem in problems] + find_secrets(files)


def _directive_problems(script: str) -> Iterator[str]:
    lines = script.splitlines()
    if not lines or not lines[0].startswith("#!"):
        yield "line 1: sbatch wants the name of a shell, #!/bin/bash"
    first_command = next((number for number, line in enumerate(lines) if line.strip() and line[0] != "#"), len(lines))
    options: dict[str, str | None] = {}
    for number, line in enumerate(lines):
        if not line.lstrip().startswith("#SBATCH"):
            continue
        match = _DIRECTIVE.fullmatch(line.rstrip())
        if match is None:
            yield f"line {number + 1}: {line}: an option has the form `#SBATCH --name=value`"
            continue
        name, value = match.groups()
        if number > first_command:
            yield f"line {number + 1}: {line}: sbatch reads no option after the first command"
        if name not in _OPTIONS:
            yield f"line {number + 1}: --{name} is no option of sbatch that is known here"
        elif not _has_form(value, _OPTIONS[name]):
            yield f"line {number + 1}: --{name}={value}: sbatch expects {_OPTIONS[name] or 'no value'}"
        if name in options:
            yield f"line {number + 1}: --{name} is given twice"
        options[name] = value
    yield from (f"--{name} is missing" for name in _REQUIRED if name not in options)
    least, _, most = (options.get("nodes") or "").partition("-")
    if most and least.isdigit() and int(most) < int(least):
        yield f"--nodes={least}-{most}: the first number is the smaller one"
    if most and "no-kill" not in options:
        yield "--no-kill is missing: with a range of machines, the loss of one must not end the job"


def _has_form(value: str | None, form: str | None) -> bool:
    return value is None if form is None else value is not None and bool(re.fullmatch(form, value))


def _shell_problems(script: str) -> Iterator[str]:
    problem = shell_problem(script)
    if problem:
        yield f"bash does not read it: {problem}"
    if not re.search(r"^set -euo pipefail$", script, re.MULTILINE):
        yield "`set -euo pipefail` is missing: the job would go on after a command that failed"


def _ray_problems(script: str) -> Iterator[str]:
    variables = dict(re.findall(r"^export (\w+)=(\S*)", script, re.MULTILINE))
    yield from node_problems("export", variables)
    if "SRUN_CPUS_PER_TASK" not in variables:
        yield "SRUN_CPUS_PER_TASK is not exported: srun would give each step one core"
    if re.search(r"^\s*srun (?!--overlap )", script, re.MULTILINE):
        yield "srun without --overlap waits until Ray's own steps have ended, which is never"
    if not re.search(r"^trap stop_ray EXIT$", script, re.MULTILINE):
        yield "`trap stop_ray EXIT` is missing: Ray's files and the token would stay"
    if re.search(r"\bray (stop|symmetric-run)\b", script):
        yield "`ray stop` ends the Ray of other jobs on the machine, too; end the steps of this job"
