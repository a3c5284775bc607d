"""Write every generated page, and the dashboards: `python -m docs.generate`."""

from __future__ import annotations

from cluster.monitoring.grafana import DASHBOARDS_FOLDER, dashboard_files
from docs.generate.pages import FOLDER, PAGES

if __name__ == "__main__":
    for name, build_page in PAGES.items():
        (FOLDER / name).write_text(build_page(), encoding="utf-8")
    for name, text in dashboard_files().items():
        (DASHBOARDS_FOLDER / name).write_text(text, encoding="utf-8")
