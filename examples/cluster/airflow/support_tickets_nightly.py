"""The nightly pipeline of support_tickets as a DAG of Airflow 3: new data, train or search, gate, roll-out, report.

Copy this folder into Airflow's folder of DAGs. Its workers need the command `raymill`, the shared storage and the Ray cluster.
Written by `raymill manifest --kind airflow`. Change the spec, and write it again.
"""

import json
from datetime import timedelta
from pathlib import Path

import pendulum
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, task

MODEL = "support_tickets"
SPEC = Path(__file__).with_name("run.yaml")
STORAGE = "/storage/raymill"
# The working directory, in which the spec's own modules are found.
PROJECT = "/storage/project"
# Ray's head, which raymill joins, and its dashboard, which takes the endpoint's config.
ENVIRONMENT = {
    "RAY_ADDRESS": "ray://ray-head.example.com:10001",
    "RAY_DASHBOARD_ADDRESS": "http://ray-head.example.com:8265",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN_PATH": "/etc/raymill/token",
}
# Lines of shell that make `raymill` and `serve` commands of a task.
SETUP = "source /opt/raymill/bin/activate"


# Rolls the promoted version out, and back if it does not start. On the first night the cluster may serve nothing yet.
ROLL_OUT = """
config=$(mktemp)
if [[ $(serve config) != *import_path* ]]; then
  raymill deploy-config "$MODEL@champion" --storage "$STORAGE" > "$config"
  serve deploy "$config" >&2
fi
raymill rollout "$MODEL@champion" --storage "$STORAGE" --address "$RAY_DASHBOARD_ADDRESS" --json
"""


def shell(task_id: str, command: str, **options) -> BashOperator:
    """Return a task that runs a command, whose last line on stdout is a JSON object: the task's result."""
    return BashOperator(
        task_id=task_id,
        bash_command=f'{SETUP}\nset -euo pipefail\nmkdir -p "$PROJECT"\ncd "$PROJECT"\nresult=$({command})\necho "$result"\n',
        output_processor=json.loads,
        env={**ENVIRONMENT, "MODEL": MODEL, "SPEC": str(SPEC), "STORAGE": STORAGE, "PROJECT": PROJECT},
        append_env=True,
        **options,
    )


with DAG(
    dag_id="support_tickets_nightly",
    schedule="0 2 * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,  # a missed night is not made up for: the next one has its data, too
    max_active_runs=1,  # and `--lock` below holds off runs that something else starts
    dagrun_timeout=timedelta(hours=20),
    default_args={"retries": 1, "retry_delay": timedelta(minutes=10)},
    tags=["raymill", MODEL],
    doc_md=__doc__,
) as dag:
    # Prepares the rows, or finds them again within milliseconds if the files have not changed.
    prepare = shell("prepare", 'raymill prepare "$SPEC" --json')

    @task.short_circuit(ignore_downstream_trigger_rules=False)
    def new_data(prepared: dict) -> bool:
        """Skip the training if a finished run has had the same rows and the same spec."""
        if prepared.get("same_run"):
            print(f"no new data: the run {prepared['same_run']} has had the same rows")
        return not prepared.get("same_run")

    # Trains or searches, evaluates, registers, and moves the alias if the new version passes the gate. A retry resumes.
    run = shell("run", 'raymill run "$SPEC" --continue --lock support_tickets --json')

    @task.short_circuit(ignore_downstream_trigger_rules=False)
    def gate(outcome: dict) -> bool:
        """Skip the roll-out if the gate did not promote the new version."""
        print(f"{outcome['model']}@{outcome['version']}: {outcome['reason']}")
        return bool(outcome["promoted"])

    # Ray Serve starts replicas of the new version, which must reproduce its golden rows, before it stops the old ones.
    roll_out = shell("roll_out", ROLL_OUT, retries=0)

    @task(trigger_rule="none_failed")
    def report(**context) -> dict:
        """Say what the night came to, also if there was nothing new. After a step that failed, Airflow says which."""
        tasks = context["ti"]
        outcome = tasks.xcom_pull(task_ids="run") or {}
        rolled_out = tasks.xcom_pull(task_ids="roll_out") or {}
        summary = {
            "model": MODEL,
            "new_data": bool(outcome),
            "version": outcome.get("version"),
            "metrics": outcome.get("metrics", {}).get("test"),
            "promoted": outcome.get("promoted"),
            "reason": outcome.get("reason"),
            "report": outcome.get("report"),
            "rolled_out": rolled_out.get("version"),
        }
        print(json.dumps(summary, indent=2))
        return summary

    prepared = new_data(prepare.output)
    passed = gate(run.output)
    prepared >> run
    passed >> roll_out
    roll_out >> report()
