"""What the columns of `data.features` are like in the training rows: the profile that live traffic is compared with."""

from __future__ import annotations

from trainer.data.blocks import FEATURE, features_of
from trainer.data.late import training_tables
from trainer.data.whole import Whole
from trainer.features import fit
from trainer.features.profile import Profile


def described(whole: Whole) -> Profile:
    """Return the profile of the rows that are trained on; of the held-out ones where the others are streamed."""
    tables = training_tables(whole, [FEATURE + name for name in whole.data.features])
    return fit.fit_tables(map(features_of, tables), whole.data.features).profile
