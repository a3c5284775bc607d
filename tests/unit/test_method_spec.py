"""The keys of `train.method`: short forms, defaults, and keys that a method does not use."""

import pytest
from pydantic import ValidationError

from trainer.spec.method import MethodSpec
from trainer.spec.train import TrainSpec


def method(value):
    return TrainSpec.model_validate({"method": value}).method


def test_a_method_is_its_kind_alone_or_its_keys():
    assert method("dpo") == MethodSpec(kind="dpo")
    assert method("dpo").strength == 0.1 and method("simpo").strength == 2.0
    spec = method({"kind": "grpo", "rewards": ["exact_match", {"kind": "regex", "pattern": "[0-9]+", "weight": 0.1}]})
    assert [reward.kind for reward in spec.rewards] == ["exact_match", "regex"]
    assert TrainSpec().method.kind == "sft"


@pytest.mark.parametrize("kind", ["sft", "dpo", "ipo", "orpo", "kto", "simpo"])
def test_a_resolved_method_is_read_again(kind):
    assert method(method(kind).model_dump(mode="json")) == method(kind)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"kind": "sft", "beta": 0.1}, "does not use beta"),
        ({"kind": "orpo", "label_smoothing": 0.1}, "does not use label_smoothing"),
        ({"kind": "dpo", "rewards": ["exact_match"]}, "does not use rewards"),
        ("grpo", "needs `rewards`"),
        ({"kind": "simpo", "beta": 0}, "needs a beta above 0"),
        ({"kind": "grpo", "rewards": ["bleu"]}, "is no reward"),
        ({"kind": "grpo", "rewards": ["regex"]}, "needs `pattern`"),
        ({"kind": "grpo", "rewards": [{"kind": "regex", "pattern": "("}]}, "no regular expression"),
    ],
)
def test_what_does_not_fit_is_refused(value, message):
    with pytest.raises(ValidationError, match=message):
        method(value)
