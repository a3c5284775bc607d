"""The tutorial and README's first screen: their commands run, and print what the pages show."""

import pytest

from docs.generate.replay import Replay
from support.commands import ROOT


@pytest.mark.parametrize("page", ["docs/tutorial/first-model.md", "README.md"])
def test_the_commands_of_a_page_print_what_it_shows(page, tmp_path):
    with Replay(ROOT / page, tmp_path / "home") as replay:
        replay.run()
    hint = f"run `make replay PAGE={page}`, and read the page again"
    assert not replay.differences, "\n\n".join([*replay.differences, hint])
