"""Two processes that train in one folder: the one that came later writes, the other ends."""

import time

import pytest

from trainer.runs import claim as claims
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


@pytest.mark.slow
def test_whoever_takes_over_waits_until_the_other_process_has_seen_it(tmp_path, monkeypatch):
    started = time.monotonic()
    Claim(tmp_path)
    Claim(tmp_path)  # this process, again
    assert time.monotonic() - started < claims._TAKEN_OVER_AFTER_S
    monkeypatch.setattr(claims, "_PROCESS", "another")
    started = time.monotonic()
    Claim(tmp_path)
    assert time.monotonic() - started >= claims._TAKEN_OVER_AFTER_S > claims._CHECK_EVERY_S
