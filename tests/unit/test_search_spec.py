"""The `tune:` section of the spec: grids and invalid searches."""

import pytest

from cluster.errors import SpecError
from trainer.spec.tune import TuneSpec
from trainer.tasks.load_spec import load_spec


def test_a_grid_has_each_point_once():
    space = {
        "train.loss.kind": {"choice": ["auto", "focal"]},
        "train.loss.gamma": {"choice": [1.0, 2.0], "when": {"train.loss.kind": "focal"}},
    }
    tune = TuneSpec.model_validate({"space": space, "algorithm": "grid"})
    assert list(tune.grid_points()) == [
        {"train.loss.kind": "auto"},
        {"train.loss.kind": "focal", "train.loss.gamma": 1.0},
        {"train.loss.kind": "focal", "train.loss.gamma": 2.0},
    ]
    assert tune.n_trials == 3


WRONG = [
    ({"space": {"train.epochs": {"uniform": [1, 3], "choice": [1]}}}, "exactly one"),
    ({"space": {"train.epochs": {"loguniform": [1, 3], "step": 1}}}, "step is for uniform and randint"),
    (
        {"space": {"train.epochs": {"randint": [1, 3], "when": {"train.seed": 1}}}},
        "not a key of the space with a choice",
    ),
    ({"scheduler": "pbt", "space": {"train.epochs": {"randint": [1, 3]}}}, "may change while training"),
    ({"algorithm": "nsga2"}, "several objectives"),
    ({"objective": {"minimize": "serve.p99_ms"}}, "needs a metric of the task"),
    ({"objective": {"maximize": ["macro_f1", "serve.p99_ms"]}}, "should be minimized"),
    ({"constraints": ["fast please"]}, "serve.p99_ms <= 20"),
    ({"initial_points": [{"train.seed": 1}]}, "not a key of the space"),
    ({"objective": {"maximize": "log_loss"}}, "lower is better"),
    ({"objective": {"maximize": "bleu"}}, "not computed"),
    ({"objective": {"maximize": "accuracy"}, "evaluate": {"metric": "macro_f1"}}, "remove `evaluate.metric`"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_an_invalid_search_is_rejected(changes, message):
    changes = dict(changes)
    evaluate = changes.pop("evaluate", {})
    tune = {"space": {"train.learning_rate": {"loguniform": [1e-5, 1e-2]}}, **changes}
    spec = {"name": "a", "data": {"train": "a.csv"}, "model": {"base": "b"}, "tune": tune, "evaluate": evaluate}
    with pytest.raises(SpecError, match=message):
        load_spec(spec)
