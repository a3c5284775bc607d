"""The dashboards as Grafana's JSON, and the files with which a Grafana comes up with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cluster.monitoring.panels import DASHBOARDS, DashboardPanels, Panel

#: Folder of the dashboards' files, to import or to mount into a Grafana.
DASHBOARDS_FOLDER = Path(__file__).parent / "dashboards"
_COLUMNS, _WIDTH, _HEIGHT = 3, 8, 7
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def dashboard_files() -> dict[str, str]:
    """Return the text of each dashboard by the name of its file."""
    return {f"{dashboard.name}.json": json.dumps(_dashboard(dashboard), indent=1) + "\n" for dashboard in DASHBOARDS}


def write_provisioning(folder: Path, prometheus_url: str) -> None:
    """Write Grafana's provisioning files into `folder`: the data source and the dashboards."""
    import yaml

    files = {
        "datasources/raymill.yml": {
            "apiVersion": 1,
            "datasources": [
                {
                    "name": "Prometheus",
                    "type": "prometheus",
                    "access": "proxy",
                    "url": prometheus_url,
                    "isDefault": True,
                }
            ],
        },
        "dashboards/raymill.yml": {
            "apiVersion": 1,
            "providers": [{"name": "raymill", "type": "file", "options": {"path": str(DASHBOARDS_FOLDER)}}],
        },
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def _dashboard(dashboard: DashboardPanels) -> dict[str, Any]:
    return {
        "title": dashboard.title,
        "uid": f"raymill-{dashboard.name}",
        "schemaVersion": 39,
        "version": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "tags": ["raymill"],
        "editable": True,
        "templating": {"list": _variables(dashboard)},
        "panels": [_panel(panel, number) for number, panel in enumerate(dashboard.panels)],
    }


def _variables(dashboard: DashboardPanels) -> list[dict[str, Any]]:
    variables: list[dict[str, Any]] = [{"name": "datasource", "type": "datasource", "query": "prometheus"}]
    if dashboard.variable:
        variables.append(
            {
                "name": "model",
                "type": "query",
                "datasource": _DATASOURCE,
                "query": f"label_values({dashboard.variable}, model)",
                "refresh": 2,  # whenever the time range changes
                "multi": True,
                "includeAll": True,
                "allValue": ".*",
                "current": {"text": "All", "value": "$__all"},
            }
        )
    return variables


def _panel(panel: Panel, number: int) -> dict[str, Any]:
    row, column = divmod(number, _COLUMNS)
    legend = {"legend": {"displayMode": "list", "placement": "bottom"}}
    return {
        "id": number + 1,
        "title": panel.title,
        "description": panel.about,
        "type": panel.kind,
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "datasource": _DATASOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "options": legend if panel.kind == "timeseries" else {"textMode": "value_and_name"},
        "targets": [
            {"refId": chr(ord("A") + index), "expr": expression, "legendFormat": name}
            for index, (name, expression) in enumerate(panel.queries)
        ],
    }
