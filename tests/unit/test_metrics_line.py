"""The metrics of a model in one line."""

from trainer.targets.metrics.summary import metrics_line


def test_metrics_in_one_line():
    assert metrics_line({"macro_f1": 0.5, "accuracy": 0.75, "other": 1}) == "accuracy 0.7500  macro_f1 0.5000"


def test_a_mean_over_folds_is_shown_with_its_spread():
    assert metrics_line({"rmse": 57.5, "rmse_std": 2.1, "r2": 0.4}) == "rmse 57.5000 ± 2.1000  r2 0.4000"
    assert metrics_line({"pr_auc": 0.9, "pr_auc_std": 0.01, "mse": 2.0}) == "pr_auc 0.9000 ± 0.0100"


def test_what_no_row_has_is_said_beside_the_metrics():
    metrics = {"macro_f1": 0.5, "classes_without_rows": 100.0}
    assert metrics_line(metrics) == "macro_f1 0.5000  (100 classes have no rows)"
    assert metrics_line({"micro_f1": 0.5, "tags_without_rows": 1.5}) == "micro_f1 0.5000  (1.5 tags have no rows)"
