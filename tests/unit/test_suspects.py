"""The accuracy of the simple model that finds doubtful labels."""

import numpy as np

from trainer.report.suspects import find_suspects


def test_rows_that_the_model_could_not_score_do_not_count():
    # Both rows of the rare class have one text, so they share a fold: without them there is one class to learn from.
    texts = [f"plum apple fig {number}" for number in range(60)] + ["saw drill"] * 2
    groups = np.append(np.arange(60), [60, 60])
    for rare, common in (("a", "b"), ("b", "a")):
        suspects = find_suspects(texts, [common] * 60 + [rare] * 2, groups)
        assert suspects.accuracy == 1.0
