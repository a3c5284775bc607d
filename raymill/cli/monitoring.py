"""The command that watches runs, endpoints and a cluster: monitor."""

from __future__ import annotations

import contextlib

import click

import raymill
from raymill.cli.context import CommandContext
from raymill.cli.options import shared_options


@click.command("monitor")
@click.option(
    "--address",
    metavar="URL",
    help="Ray's dashboard on the head, http://HEAD:8265. Default: the Ray that runs on this machine.",
)
@click.option("--endpoint", "endpoints", multiple=True, metavar="URL", help="Another endpoint, as it prints its URL.")
@click.option("--key-file", type=click.Path(), help="File with an API key for the endpoints.")
@click.option("--port", type=click.IntRange(1, 65535), default=9090, show_default=True, help="Port of Prometheus.")
@click.option("--grafana-port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="Port of Grafana.")
@click.option("--every", "every_s", type=click.FloatRange(0.5, 300), default=15.0, show_default=True,
              help="Seconds between two looks at the metrics.")  # fmt: skip
@shared_options("storage")
def monitor_command(
    context: CommandContext,
    address: str | None,
    endpoints: tuple[str, ...],
    key_file: str | None,
    port: int,
    grafana_port: int,
    every_s: float,
    storage: str | None,
) -> None:
    """Watch runs, endpoints and a Ray cluster until Ctrl-C.

    Starts a Prometheus, and a Grafana with dashboards where it is installed, on loopback ports of this machine. They end
    with the command and leave nothing.
    """
    with raymill.monitor(
        storage=storage or raymill.STORAGE,
        address=address,
        endpoints=endpoints,
        key_file=key_file,
        port=port,
        grafana_port=grafana_port,
        every_s=every_s,
    ) as urls:
        lines = [
            f"prometheus: {urls.prometheus}",
            f"targets: {urls.prometheus}/targets",
            f"alerts: {urls.prometheus}/alerts",
            f"grafana: {urls.grafana}/dashboards"
            if urls.grafana
            else f"grafana is not installed here; dashboards to import: {urls.dashboards}",
        ]
        with contextlib.suppress(KeyboardInterrupt):
            result = {**urls._asdict(), "dashboards": str(urls.dashboards)}
            context.emit(result, lines)
            raymill.wait_for_interrupt()
        context.console.print("stopping")
