"""The training profile: right figures, the same whatever the order of the rows, plain JSON."""

import json

import numpy as np
import pyarrow as pa
import pytest

from trainer.contract.contract import Contract, Step
from trainer.data.prepared import Rows
from trainer.tasks import profile
from trainer.tasks.text import profile as text_profile

LABELS = ["a", "b", "c"]


def contract():
    return Contract(
        task="text-classification",
        columns={"text": "text", "label": "label"},
        steps=[Step(name="tokenize", params={"max_length": 5, "pad_id": 0})],
        fitted={"labels": LABELS},
        files={},
    )


def rows_of(texts, ids, targets):
    shard = pa.table(
        {"text": texts, "label": [LABELS[t] for t in targets], "inputs": pa.array(ids, pa.list_(pa.int32()))}
    )
    index = pa.table(
        {
            "shard": pa.array([0] * len(texts), pa.int32()),
            "offset": pa.array(range(len(texts)), pa.int32()),
            "target": pa.array(targets, pa.int32()),
            "length": pa.array([len(i) for i in ids], pa.int32()),
        }
    )
    return Rows([shard], index, contract())


def built(parts, embedding=None, unknown_id=None):
    tokenizer = {} if unknown_id is None else {"model": {"type": "Unigram", "unk_id": unknown_id}}
    embedding = np.ones((10, 3), np.float32) if embedding is None else embedding
    of_texts = text_profile.build(parts, contract(), ["text"], embedding, tokenizer)
    return {**profile.build(parts, contract()), **of_texts}


TEXTS, IDS, TARGETS = ["ab", "", "Zoë 🚚", "abc"], [[2, 1, 3], [2, 3], [2, 1, 1, 7, 3], [2, 7, 3]], [0, 0, 2, 0]
NOTHING = rows_of([], [], [])


def test_the_figures():
    held_out = rows_of(["x"], [[2, 9, 3]], [1])
    found = built({"train": rows_of(TEXTS, IDS, TARGETS), "validation": held_out}, unknown_id=1)
    assert found["part"] == "train" and found["rows"] == {"train": 4, "validation": 1}
    assert found["labels"]["train"] == {"a": 0.75, "b": 0.0, "c": 0.25}
    assert found["labels"]["validation"] == {"a": 0.0, "b": 1.0, "c": 0.0}
    assert found["tokens"]["mean"] == 3.25 and len(found["tokens"]["quantiles"]) == 21
    assert (found["tokens"]["quantiles"][0], found["tokens"]["quantiles"][10], found["tokens"]["quantiles"][20]) == (
        2,
        3,
        5,
    )
    assert found["characters"]["quantiles"][20] == 5 and found["characters"]["mean"] == 2.5
    assert (found["max_length"], found["cut_share"]) == (5, 0.25)
    assert found["unknown"] == {"token_share": round(3 / 13, 6), "row_share": 0.5}
    assert found["target"] == {}
    json.dumps(found, allow_nan=False)


def test_neither_the_order_of_rows_nor_the_machine_is_in_it():
    rng = np.random.default_rng(1)
    ids = [rng.integers(0, 500, rng.integers(1, 12)).tolist() for _ in range(2_500)]
    embedding = rng.normal(size=(500, 24)).astype(np.float32)
    texts, targets = [str(each) for each in ids], [int(each[0]) % 3 for each in ids]
    turned = rng.permutation(len(ids))
    first = built({"train": rows_of(texts, ids, targets), "validation": NOTHING}, embedding, 3)
    other = rows_of(*([values[at] for at in turned] for values in (texts, ids, targets)))
    second = built({"train": other, "validation": NOTHING}, embedding, 3)
    assert first == second
    sketch = first["embedding"]
    assert (sketch["rows"], sketch["dimensions"], sketch["from"], len(sketch["sample"])) == (2_000, 16, 24, 256)
    assert np.array(sketch["quantiles"]).shape == (16, 21)
    medians = np.array(sketch["quantiles"])[:, 10]
    assert np.abs(medians - np.array(sketch["mean"])).max() < 3 * max(sketch["std"])
    # Pinned: a profile of today is compared with traffic of tomorrow.
    assert (text_profile.projection(24)[0] * 4).tolist() == [1, 1, 1, 1, -1, 1, 1, 1, 1, 1, -1, 1, -1, -1, -1, 1]


def test_the_projection_keeps_distances():
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(200, 384))
    ratio = np.linalg.norm(vectors @ text_profile.projection(384), axis=1) / np.linalg.norm(vectors, axis=1)
    assert 0.9 < ratio.mean() < 1.1


def test_a_row_is_the_mean_of_its_tokens():
    embedding = np.arange(12, dtype=np.float32).reshape(4, 3)
    found = text_profile.project([np.array([1, 3]), np.array([], np.int32)], embedding)
    assert found[0] == pytest.approx(embedding[[1, 3]].mean(axis=0) @ text_profile.projection(3))
    assert not found[1].any()


def test_without_training_rows_the_validation_rows_are_described():
    found = built({"train": NOTHING, "validation": rows_of(TEXTS, IDS, TARGETS)})
    assert found["part"] == "validation" and found["tokens"]["mean"] == 3.25 and found["unknown"] is None
    empty = built({"train": NOTHING, "validation": NOTHING}, np.ones((4, 3)), 1)
    assert empty["tokens"] == {"mean": None, "quantiles": []} and empty["embedding"]["sample"] == []
    json.dumps(empty, allow_nan=False)


@pytest.mark.parametrize(
    ("tokenizer", "wanted"),
    [
        ({"model": {"type": "WordPiece", "unk_token": "[UNK]", "vocab": {"[UNK]": 100}}}, 100),
        ({"model": {"unk_token": "[UNK]", "vocab": {}}, "added_tokens": [{"content": "[UNK]", "id": 7}]}, 7),
        ({"model": {"type": "Unigram", "unk_id": 3, "vocab": [["<unk>", 0.0]]}}, 3),
        ({"model": {"type": "BPE", "unk_token": None, "vocab": {"a": 0}}}, None),
        ({}, None),
    ],
)
def test_the_unknown_token(tokenizer, wanted):
    assert text_profile.unknown_id_of(tokenizer) == wanted
