"""Two models are compared only if they read the same columns and predict the same kind of target."""

import pytest

from trainer.contract.contract import Contract
from trainer.registry.register import _check_comparable
from trainer.registry.registry import Version


def test_models_that_read_other_columns_are_not_compared(tmp_path):
    def version(number, task, columns, fitted):
        folder = tmp_path / str(number)
        folder.mkdir()
        Contract(task=task, columns=columns, steps=[], fitted=fitted, files={}).save(folder)
        return Version("a", number, folder)

    label = {"label": "y"}
    one = version(1, "tabular-classification", {**label, "feature.a": "a"}, {"labels": ["p", "q"]})
    two = version(2, "tabular-classification", {"feature.b": "b", **label, "feature.a": "a"}, {"labels": ["p", "q"]})
    three = version(3, "tabular-regression", {"value": "y", "feature.a": "a"}, {"target": {"mean": 0, "std": 1}})
    _check_comparable(one, one)
    for candidate, champion, message in [
        (one, two, "reads other columns"),
        (three, one, "predicts a class, not a number"),
    ]:
        with pytest.raises(Exception, match=message):
            _check_comparable(candidate, champion)
