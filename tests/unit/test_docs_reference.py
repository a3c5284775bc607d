"""The generated pages of docs/reference agree with the code."""

import re
from pathlib import Path

import pytest

from docs.generate.pages import FOLDER, PAGES

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_up_to_date(name):
    committed = (FOLDER / name).read_text(encoding="utf-8")
    assert committed == PAGES[name](), f"docs/reference/{name} is out of date; run `make reference` and commit it"


def test_every_environment_variable_that_the_code_reads_is_listed():
    page = (FOLDER / "environment.md").read_text(encoding="utf-8")
    read = set()
    for package in ("raymill", "cluster", "trainer", "tune", "serve"):
        for path in sorted((ROOT / package).rglob("*.py")):
            read |= set(re.findall(r"""os\.(?:environ\.get\(|getenv\()"([A-Z_]+)\"""", path.read_text()))
    missing = sorted(name for name in read if f"`{name}`" not in page)
    assert not missing, f"docs/reference/environment.md does not list {', '.join(missing)}"
