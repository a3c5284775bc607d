"""Files, modules and links that the documentation names exist."""

import re

import pytest

from support.pages import PAGES, ROOT

PACKAGES = "raymill|cluster|trainer|tune|serve"
# The changelog names what was there before.
NAMES = [page for page in PAGES if page.name != "CHANGELOG.md"]
FILE = re.compile(rf"`((?:{PACKAGES}|tests|benchmarks|examples)/[\w./-]*)`")
LINK = re.compile(r"\]\(([^)#\s]+)?(#[^)\s]+)?\)")


@pytest.mark.parametrize("page", NAMES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_exist(page):
    missing = [name for name in FILE.findall(page.read_text()) if not (ROOT / name).exists()]
    assert not missing


def anchors(page):
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_resolve(page):
    broken = []
    for file, anchor in LINK.findall(page.read_text()):
        if file.startswith(("http:", "https:", "mailto:")):
            continue
        target = page.parent / file if file else page
        if not target.exists() or (anchor and anchor[1:] not in anchors(target)):
            broken.append(file + anchor)
    assert not broken
