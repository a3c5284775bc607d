"""The profile of training rows: right values, independent of the order of rows, plain JSON."""

import json

import numpy as np
import pyarrow as pa
import pytest

from trainer.contract.contract import Contract, Step
from trainer.data.prepared import PreparedRows
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
    return PreparedRows([shard], index, contract())


def build(parts, embedding=None, unknown_id=None):
    tokenizer = {} if unknown_id is None else {"model": {"type": "Unigram", "unk_id": unknown_id}}
    embedding = np.ones((10, 3), np.float32) if embedding is None else embedding
    text_fields = text_profile.build_text_profile(parts, contract(), ["text"], embedding, tokenizer)
    return {**profile.build_profile(parts, contract()), **text_fields}


TEXTS, IDS, TARGETS = ["ab", "", "Zoë 🚚", "abc"], [[2, 1, 3], [2, 3], [2, 1, 1, 7, 3], [2, 7, 3]], [0, 0, 2, 0]
NOTHING = rows_of([], [], [])


def test_the_fields():
    held_out = rows_of(["x"], [[2, 9, 3]], [1])
    described = build({"train": rows_of(TEXTS, IDS, TARGETS), "validation": held_out}, unknown_id=1)
    assert described["part"] == "train" and described["rows"] == {"train": 4, "validation": 1}
    assert described["labels"]["train"] == {"a": 0.75, "b": 0.0, "c": 0.25}
    assert described["labels"]["validation"] == {"a": 0.0, "b": 1.0, "c": 0.0}
    assert described["tokens"]["mean"] == 3.25 and len(described["tokens"]["quantiles"]) == 21
    assert (
        described["tokens"]["quantiles"][0],
        described["tokens"]["quantiles"][10],
        described["tokens"]["quantiles"][20],
    ) == (
        2,
        3,
        5,
    )
    assert described["characters"]["quantiles"][20] == 5 and described["characters"]["mean"] == 2.5
    assert (described["max_length"], described["cut_share"]) == (5, 0.25)
    assert described["unknown"] == {"token_share": round(3 / 13, 6), "row_share": 0.5}
    assert described["target"] == {}
    json.dumps(described, allow_nan=False)


def test_the_profile_does_not_depend_on_the_order_of_rows_or_the_machine():
    rng = np.random.default_rng(1)
    ids = [rng.integers(0, 500, rng.integers(1, 12)).tolist() for _ in range(2_500)]
    embedding = rng.normal(size=(500, 24)).astype(np.float32)
    texts, targets = [str(row_ids) for row_ids in ids], [int(row_ids[0]) % 3 for row_ids in ids]
    order = rng.permutation(len(ids))
    first = build({"train": rows_of(texts, ids, targets), "validation": NOTHING}, embedding, 3)
    other = rows_of(*([values[row] for row in order] for values in (texts, ids, targets)))
    second = build({"train": other, "validation": NOTHING}, embedding, 3)
    assert first == second
    sketch = first["embedding"]
    assert (sketch["rows"], sketch["dimensions"], sketch["from"], len(sketch["sample"])) == (2_000, 16, 24, 256)
    assert np.array(sketch["quantiles"]).shape == (16, 21)
    medians = np.array(sketch["quantiles"])[:, 10]
    assert np.abs(medians - np.array(sketch["mean"])).max() < 3 * max(sketch["std"])
    # Pinned: profiles of today may be compared with later traffic.
    assert (text_profile.projection(24)[0] * 4).tolist() == [1, 1, 1, 1, -1, 1, 1, 1, 1, 1, -1, 1, -1, -1, -1, 1]


def test_the_projection_keeps_distances():
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(200, 384))
    ratio = np.linalg.norm(vectors @ text_profile.projection(384), axis=1) / np.linalg.norm(vectors, axis=1)
    assert 0.9 < ratio.mean() < 1.1


def test_a_row_is_the_mean_of_its_tokens():
    embedding = np.arange(12, dtype=np.float32).reshape(4, 3)
    described = text_profile.project_inputs([np.array([1, 3]), np.array([], np.int32)], embedding)
    assert described[0] == pytest.approx(embedding[[1, 3]].mean(axis=0) @ text_profile.projection(3))
    assert not described[1].any()


def test_without_training_rows_the_validation_rows_are_described():
    described = build({"train": NOTHING, "validation": rows_of(TEXTS, IDS, TARGETS)})
    assert described["part"] == "validation" and described["tokens"]["mean"] == 3.25 and described["unknown"] is None
    empty = build({"train": NOTHING, "validation": NOTHING}, np.ones((4, 3)), 1)
    assert empty["tokens"] == {"mean": None, "quantiles": []} and empty["embedding"]["sample"] == []
    json.dumps(empty, allow_nan=False)


@pytest.mark.parametrize(
    ("tokenizer", "expected"),
    [
        ({"model": {"type": "WordPiece", "unk_token": "[UNK]", "vocab": {"[UNK]": 100}}}, 100),
        ({"model": {"unk_token": "[UNK]", "vocab": {}}, "added_tokens": [{"content": "[UNK]", "id": 7}]}, 7),
        ({"model": {"type": "Unigram", "unk_id": 3, "vocab": [["<unk>", 0.0]]}}, 3),
        ({"model": {"type": "BPE", "unk_token": None, "vocab": {"a": 0}}}, None),
        ({}, None),
    ],
)
def test_the_unknown_token(tokenizer, expected):
    assert text_profile.unknown_token_id(tokenizer) == expected
