"""The command line: one module for each kind of command, added here in the order of `raymill --help`.

Imports click only; everything else is imported when a command runs.
"""

from __future__ import annotations

import click

from raymill.cli import info, models, runs, serving
from raymill.cli.options import OrderedGroup


@click.group(cls=OrderedGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="raymill", message="%(version)s")
def cli() -> None:
    """One YAML spec from raw data to an HTTP prediction, on Ray."""


for _command in (
    runs.run_command,
    runs.plan_command,
    runs.prepare_command,
    runs.data_group,
    runs.train_command,
    runs.tune_command,
    models.evaluate_command,
    models.predict_command,
    models.models_group,
    models.contract_group,
    serving.serve_command,
    serving.optimize_command,
    serving.deploy_config_command,
    serving.keys_group,
    info.tasks_command,
    info.schema_command,
    info.doctor_command,
):
    cli.add_command(_command)
