"""The parameters of each estimator: what `model.params` accepts, with defaults and bounds.

`model.params: {max_depth: 4}` is for the kind that `model.kind` names. `model.params: {xgboost: {max_depth: 4}}` is for
xgboost only; other kinds ignore it. So a search over kinds can give each kind its own values.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainer.spec.section import Positive, SpecSection

Share = Annotated[float, Field(gt=0.0, le=1.0)]
NotNegative = Annotated[float, Field(ge=0.0)]


class Params(SpecSection):
    """Base class of an estimator's parameters; by itself it has none."""


class LogisticParams(Params):
    """Logistic regression."""

    C: Annotated[float, Field(gt=0.0)] = 1.0
    """Inverse strength of the L2 penalty."""
    max_iter: Positive = 1000
    """Maximum number of iterations of the solver."""


class RidgeParams(Params):
    """Linear regression with an L2 penalty."""

    alpha: NotNegative = 1.0
    """Strength of the penalty; 0 turns it off."""


class ForestParams(Params):
    """Random forest: the average of trees that are each grown on a sample of the rows."""

    n_estimators: Positive = 200
    """Number of trees."""
    max_depth: Positive | None = None
    """Maximum depth of a tree. Default: no limit."""
    min_samples_leaf: Positive = 1
    """Minimum number of rows in a leaf."""
    max_features: Literal["sqrt", "log2"] | Share = "sqrt"
    """Columns considered for each split: the square root or the logarithm of their number, or a share of them."""


class BoostingParams(Params):
    """Histogram gradient boosting of scikit-learn."""

    max_iter: Positive = 200
    """Number of rounds; each adds a tree (for classes, one per class). Unless it is set, raymill chooses it from the
    number of rows."""
    learning_rate: Share = 0.05
    """Factor by which each tree is scaled."""
    max_leaf_nodes: Annotated[int, Field(ge=2)] = 31
    """Maximum number of leaves of a tree."""
    max_depth: Positive | None = None
    """Maximum depth of a tree. Default: no limit."""
    min_samples_leaf: Positive = 20
    """Minimum number of rows in a leaf."""
    l2_regularization: NotNegative = 0.0
    """L2 penalty on the leaves."""
    max_features: Share = 1.0
    """Share of the columns considered for each split."""


class XGBoostParams(Params):
    """Gradient boosting of XGBoost."""

    n_estimators: Positive = 300
    """Number of rounds in total; they are divided over `train.epochs`. Unless it is set, raymill chooses it from the
    number of rows."""
    learning_rate: Share = 0.05
    """Factor by which each tree is scaled."""
    max_depth: Annotated[int, Field(ge=1, le=30)] = 4
    """Maximum depth of a tree."""
    min_child_weight: NotNegative = 1.0
    """Minimum sum of hessians in a leaf."""
    subsample: Share = 0.9
    """Share of the rows that each round uses."""
    colsample_bytree: Share = 0.9
    """Share of the columns that each tree uses."""
    reg_lambda: NotNegative = 1.0
    """L2 penalty on the leaves."""
    reg_alpha: NotNegative = 0.0
    """L1 penalty on the leaves."""
    gamma: NotNegative = 0.0
    """Minimum gain that is required to split a leaf."""


class MlpParams(Params):
    """Fully connected layers over the values and an embedding of each id. `train:` sets epochs and optimizer."""

    hidden: Annotated[list[Positive], Field(min_length=1, max_length=8)] = Field(default_factory=lambda: [64, 64])
    """Width of each layer."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Share of a layer's outputs that is dropped in training."""
    embedding: Positive | None = None
    """Width of an embedding. Default: depends on the number of ids, at most 32."""
