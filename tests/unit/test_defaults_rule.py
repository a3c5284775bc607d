"""The rule for `train:`, over a wide product of rows, classes, lengths, models and workers."""

import itertools
import math

import pytest

from trainer.defaults.facts import TrainingFacts
from trainer.defaults.rule import choose_training
from trainer.defaults.tables import choose_network, choose_rounds
from trainer.models.model_facts import UNKNOWN_MODEL, ModelFacts
from trainer.spec.train import AUTO_KEYS, TrainSpec

ROWS = [
    1,
    2,
    3,
    7,
    8,
    9,
    15,
    31,
    60,
    385,
    999,
    1_000,
    1_001,
    1_540,
    4_500,
    10_003,
    20_000,
    20_001,
    100_000,
    10**6,
    10**7,
]
CLASSES = [0, 2, 77, 5_000]
LENGTHS = [0.0, 14.4, 8_192.0]
WEIGHTS = [None, 20_000, 11_000_000, 85_000_000, 302_000_000, 7_000_000_000]
MODELS = [
    *(ModelFacts(weights, share, is_pretrained=True) for weights in WEIGHTS for share in (1.0, 1e-6)),
    *(ModelFacts(weights, 1.0, is_pretrained=False) for weights in WEIGHTS),
    *(ModelFacts(weights, 0.06, is_pretrained=True, uses_lora=True) for weights in WEIGHTS),
]
WORKERS = [1, 3, 64]
SEARCHED = [
    TrainingFacts(rows, classes, length, model, workers)
    for rows, classes, length, model, workers in itertools.product(ROWS, CLASSES, LENGTHS, MODELS, WORKERS)
]


def values(facts, **given):
    return {key: choice.value for key, choice in choose_training(facts, TrainSpec(**given)).items()}


@pytest.mark.slow
def test_every_choice_is_valid_bounded_and_has_a_reason():
    for facts in SEARCHED:
        choices = choose_training(facts, TrainSpec())
        assert set(choices) == set(AUTO_KEYS) - {"tokens_per_step"}
        assert all(choice.reason and not choice.reason.endswith(".") for choice in choices.values())
        chosen = {key: choice.value for key, choice in choices.items()}
        TrainSpec(**chosen)  # the types and bounds of the spec
        assert 1 <= chosen["epochs"] <= 40
        assert 1e-6 <= chosen["learning_rate"] <= 2e-2
        assert 0 < chosen["warmup_fraction"] <= 0.1
        assert chosen["early_stopping_patience"] >= 3


@pytest.mark.slow
def test_a_batch_is_full_and_every_worker_has_rows():
    for facts in SEARCHED:
        size = values(facts)["batch_size"]
        assert size % facts.workers == 0
        assert size <= max(facts.n_rows, facts.workers) + facts.workers
        if facts.workers == 1:
            assert size <= facts.n_rows
            assert size & (size - 1) == 0
            assert size * facts.mean_length <= max(16_384, facts.mean_length)


@pytest.mark.parametrize("model", MODELS)
def test_more_rows_never_mean_more_epochs_or_smaller_batches(model):
    for classes, length in itertools.product(CLASSES, LENGTHS):
        chosen = [values(TrainingFacts(rows, classes, length, model)) for rows in ROWS]
        for earlier, later in itertools.pairwise(chosen):
            assert later["batch_size"] >= earlier["batch_size"]
            # A new model counts steps, so a larger batch may need an epoch more.
            if model.is_pretrained:
                assert later["epochs"] <= earlier["epochs"]


def test_more_rows_are_never_used_less_in_all():
    for model, classes in itertools.product(MODELS, CLASSES):
        if not model.is_pretrained:
            continue
        used = [values(TrainingFacts(rows, classes, 14.4, model))["epochs"] * rows for rows in ROWS]
        for rows, (earlier, later) in zip(ROWS[1:], itertools.pairwise(used), strict=True):
            assert later + rows > earlier  # epochs are whole numbers, so one may be missing


def test_larger_models_never_get_a_higher_rate_and_longer_texts_never_larger_batches():
    for rows, pretrained in itertools.product(ROWS, (True, False)):
        rates = [
            values(TrainingFacts(rows, 2, 14.4, ModelFacts(weights, 1.0, is_pretrained=pretrained)))["learning_rate"]
            for weights in WEIGHTS[1:]
        ]
        assert rates == sorted(rates, reverse=True)
        sizes = [values(TrainingFacts(rows, 2, length, MODELS[0]))["batch_size"] for length in LENGTHS]
        assert sizes == sorted(sizes, reverse=True)


def test_a_smaller_trained_share_never_means_a_lower_rate():
    rates = [
        values(TrainingFacts(1_000, 2, 14.4, ModelFacts(11_000_000, share, is_pretrained=True)))["learning_rate"]
        for share in (1.0, 0.5, 0.1, 0.01, 1e-6)
    ]
    assert rates == sorted(rates)
    assert rates[-1] <= 5.1 * rates[0]


def test_a_value_of_the_spec_wins_and_the_others_follow_it():
    facts = TrainingFacts(1_143, 12, 20.0, ModelFacts(11_000_000, 1.0, is_pretrained=True))
    plain = values(facts)
    assert "batch_size" not in values(facts, batch_size=64)
    assert values(facts, batch_size=64)["learning_rate"] == pytest.approx(2 * plain["learning_rate"], rel=0.05)
    # Epochs that the spec sets are all trained.
    assert set(values(facts, epochs=3)) == {"batch_size", "learning_rate", "warmup_fraction"}
    assert values(facts, learning_rate=1e-4) == {key: value for key, value in plain.items() if key != "learning_rate"}
    every = {
        "epochs": 2,
        "batch_size": 4,
        "learning_rate": 0.1,
        "warmup_fraction": 0.0,
        "early_stopping_patience": None,
    }
    assert values(facts, **every) == {}


def test_a_long_training_warms_up_in_a_thousand_steps():
    facts = TrainingFacts(10**7, 2, 14.4, ModelFacts(11_000_000, 1.0, is_pretrained=True))
    chosen = values(facts)
    steps = chosen["epochs"] * math.ceil(facts.n_rows / chosen["batch_size"])
    assert chosen["warmup_fraction"] * steps == pytest.approx(1_000, rel=0.1)
    assert values(facts, max_steps=500)["warmup_fraction"] == 0.1


def test_known_recipes():
    def rate(weights, batch_size):
        facts = TrainingFacts(50_000, 2, 100.0, ModelFacts(weights, 1.0, is_pretrained=True))
        return values(facts, batch_size=batch_size)["learning_rate"]

    assert 3e-5 <= rate(85_000_000, 16) <= 1e-4  # BERT base
    assert 1e-5 <= rate(302_000_000, 16) <= 3e-5  # BERT large
    new = TrainingFacts(1_438, 10, 0.0, ModelFacts(90_000, 1.0, is_pretrained=False))
    assert 1e-3 <= values(new)["learning_rate"] <= 1e-2


def test_a_model_of_which_nothing_is_known_is_trained_as_a_new_one():
    assert values(TrainingFacts(500, 2, 0.0, UNKNOWN_MODEL))["learning_rate"] == 3e-3


@pytest.mark.parametrize("workers", WORKERS)
def test_networks_for_tables_have_valid_choices(workers):
    epochs = []
    for rows in ROWS:
        chosen = {key: choice.value for key, choice in choose_network(rows, TrainSpec(), workers).items()}
        TrainSpec(**chosen)
        assert chosen["batch_size"] % workers == 0
        assert workers > 1 or chosen["batch_size"] <= rows
        epochs.append(chosen["epochs"])
    assert all(5 <= value <= 100 for value in epochs)


def test_more_rows_never_mean_fewer_rounds():
    rounds = [choose_rounds(rows).value for rows in ROWS]
    assert all(isinstance(value, int) for value in rounds)
    assert rounds == sorted(rounds)
    assert rounds[0] >= 100
    assert rounds[-1] <= 800
