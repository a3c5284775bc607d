"""Two processes that train in one folder: the one that came later writes, the other ends."""

import pytest

from trainer.runs.claim import Claim, Superseded


def test_a_new_claim_ends_the_earlier_one(tmp_path):
    first = Claim(tmp_path)
    first.check()
    second = Claim(tmp_path)
    assert not first.is_valid
    with pytest.raises(Superseded):
        first.check()
    second.check()


def test_between_two_looks_nothing_is_read(tmp_path):
    first = Claim(tmp_path)
    first.check(now=False)
    Claim(tmp_path)
    first.check(now=False)
    with pytest.raises(Superseded):
        first.check()


def test_a_claim_that_cannot_be_read_is_still_valid(tmp_path):
    claim = Claim(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "away")
    claim.check()
