"""Write every generated page: `python -m docs.generate`."""

from __future__ import annotations

from docs.generate.pages import FOLDER, PAGES

if __name__ == "__main__":
    for name, build_page in PAGES.items():
        (FOLDER / name).write_text(build_page(), encoding="utf-8")
