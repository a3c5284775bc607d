"""Parameters of the estimators, a section each: what `model.params` may say, with defaults and bounds.

`model.params: {max_depth: 4}` is for the kind that `model.kind` names. `model.params: {xgboost: {max_depth: 4}}` is for
that kind only and is passed over by the others, so that a search over kinds can give each its own values.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainer.spec.section import Positive, Section

Share = Annotated[float, Field(gt=0.0, le=1.0)]
NotNegative = Annotated[float, Field(ge=0.0)]


class Params(Section):
    """No parameters."""


class Logistic(Params):
    """Logistic regression."""

    C: Annotated[float, Field(gt=0.0)] = 1.0
    """Inverse strength of the L2 penalty."""
    max_iter: Positive = 1000
    """Most iterations of the solver."""


class Ridge(Params):
    """Linear regression with an L2 penalty."""

    alpha: NotNegative = 1.0
    """Strength of the penalty; 0 is none."""


class Forest(Params):
    """Trees on samples of the rows, averaged."""

    n_estimators: Positive = 200
    """How many trees."""
    max_depth: Positive | None = None
    """Most levels of a tree. Default: no limit."""
    min_samples_leaf: Positive = 1
    """Fewest rows of a leaf."""
    max_features: Literal["sqrt", "log2"] | Share = "sqrt"
    """Columns looked at for each split."""


class Boosting(Params):
    """Histogram gradient boosting of scikit-learn."""

    max_iter: Positive = 200
    """How many rounds; each adds a tree (for classes: one a class)."""
    learning_rate: Share = 0.05
    """How much of each tree is added."""
    max_leaf_nodes: Annotated[int, Field(ge=2)] = 31
    """Most leaves of a tree."""
    max_depth: Positive | None = None
    """Most levels of a tree. Default: no limit."""
    min_samples_leaf: Positive = 20
    """Fewest rows of a leaf."""
    l2_regularization: NotNegative = 0.0
    """L2 penalty on the leaves."""
    max_features: Share = 1.0
    """Share of the columns looked at for each split."""


class XGBoost(Params):
    """Gradient boosting of XGBoost."""

    n_estimators: Positive = 300
    """How many rounds, over all of `train.epochs`."""
    learning_rate: Share = 0.05
    """How much of each tree is added."""
    max_depth: Annotated[int, Field(ge=1, le=30)] = 4
    """Most levels of a tree."""
    min_child_weight: NotNegative = 1.0
    """Smallest sum of hessians of a leaf."""
    subsample: Share = 0.9
    """Share of the rows that each round looks at."""
    colsample_bytree: Share = 0.9
    """Share of the columns that each tree looks at."""
    reg_lambda: NotNegative = 1.0
    """L2 penalty on the leaves."""
    reg_alpha: NotNegative = 0.0
    """L1 penalty on the leaves."""
    gamma: NotNegative = 0.0
    """Least gain for which a leaf is split."""


class Mlp(Params):
    """Fully connected layers over the values and an embedding of each column of ids; steps are those of `train:`."""

    hidden: Annotated[list[Positive], Field(min_length=1, max_length=8)] = Field(default_factory=lambda: [64, 64])
    """Width of each layer."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Share of a layer's outputs that is left out in training."""
    embedding: Positive | None = None
    """Width of an embedding. Default: by the number of ids, at most 32."""
