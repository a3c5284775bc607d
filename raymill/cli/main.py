"""The command line. Each module has one kind of command; this module adds them in the order of `raymill --help`.

Importing it loads click but no other large library; commands import those when they run.
"""

from __future__ import annotations

import click

from raymill.cli import (
    chatting,
    drafting,
    exporting,
    info,
    jobs,
    manifests,
    models,
    monitoring,
    plan,
    run_history,
    runs,
    serving,
)
from raymill.cli.options import OrderedGroup


@click.group(cls=OrderedGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="raymill", message="%(version)s")
def cli() -> None:
    """Train and serve models on Ray: one YAML spec from raw data to HTTP predictions."""


for _command in (
    drafting.init_command,
    runs.run_command,
    plan.plan_command,
    runs.prepare_command,
    runs.data_group,
    runs.train_command,
    runs.tune_command,
    run_history.runs_group,
    jobs.submit_command,
    jobs.jobs_group,
    jobs.run_job_command,
    models.evaluate_command,
    models.predict_command,
    models.models_group,
    models.contract_group,
    exporting.export_command,
    serving.serve_command,
    chatting.chat_command,
    serving.optimize_command,
    serving.deploy_config_command,
    serving.rollout_command,
    serving.keys_group,
    monitoring.monitor_command,
    manifests.manifest_command,
    info.tasks_command,
    info.schema_command,
    info.doctor_command,
):
    cli.add_command(_command)
