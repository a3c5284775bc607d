"""Kind `airflow`: the nightly pipeline as a DAG of Airflow 3."""

from __future__ import annotations

from cluster.errors import SpecError
from cluster.manifests.documents import Rendered
from cluster.manifests.inputs import ManifestInputs
from cluster.manifests.text_templates import render_template

SPEC_FILE = "run.yaml"


def dag_file(inputs: ManifestInputs) -> str:
    """Return the name of the DAG's file."""
    return f"{inputs.spec.name.replace('-', '_')}_nightly.py"


def render(inputs: ManifestInputs) -> Rendered:
    """Return the DAG and the spec that it runs."""
    airflow = inputs.deploy.airflow
    for line in airflow.setup:
        if any(sign in line for sign in ("{{", "{%", "{#")):
            raise SpecError(
                f"deploy.airflow.setup has the line {line!r}, and Airflow takes {{{{, {{% and {{# for its own",
                "put the line into a script on Airflow's workers, and `source` it",
            )
    environment = {
        **({} if airflow.ray_address == "auto" else {"RAY_ADDRESS": airflow.ray_address}),
        "RAY_DASHBOARD_ADDRESS": airflow.dashboard,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": airflow.token_file,
    }
    dag = render_template(
        "nightly_dag.py.j2",
        name=inputs.spec.name,
        model=inputs.spec.name,
        dag_id=f"{inputs.spec.name}_nightly",
        spec_file=SPEC_FILE,
        storage=inputs.storage,
        environment=environment,
        project=inputs.deploy.project,
        setup="\n".join(airflow.setup),
        schedule=inputs.deploy.schedule,
        time_zone=inputs.deploy.time_zone,
        queue=airflow.queue,
        retries=airflow.retries,
        max_hours=airflow.max_hours,
        lock=inputs.lock,
        alias=inputs.spec.promote.alias,
    )
    return {dag_file(inputs): dag, SPEC_FILE: inputs.spec_text}
