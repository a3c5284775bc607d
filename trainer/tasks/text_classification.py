"""Text classification: one text in, one of the labels seen in training out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import DataError, ModelError
from cluster.files import sha256
from cluster.text import is_blank
from trainer import base_model, steps
from trainer.classification_metrics import classification_metrics
from trainer.contract import Contract, Step
from trainer.spec import RunSpec
from trainer.tasks.base import Encoder, Task, resolve_columns
from trainer.words import WordIds

if TYPE_CHECKING:
    import torch

_TOKENIZER = "tokenizer.json"
# Read by transformers' AutoTokenizer, not by raymill: kept so that the folder works without raymill too.
_TOKENIZER_EXTRAS = ("tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
# A label is part of URLs, metrics and reports; more than that is usually the wrong column.
_MAX_LABELS = 10_000


class TextEncoder(Encoder):
    """Texts to token ids, by the `tokenizers` library alone: a replica needs no transformers to prepare a request."""

    def __init__(self, path: Path, max_length: int) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length)
        self._words: WordIds | None = None
        self._max_length = max_length

    def __call__(self, values: list[str]) -> list[np.ndarray]:
        return [np.asarray(found.ids, dtype=np.int32) for found in self._tokenizer.encode_batch_fast(values)]

    def column(self, values: pa.Array) -> pa.ListArray:
        self._words = self._words or WordIds(self._tokenizer, self._max_length)
        return self._words.column(values) or super().column(values)


class TextClassification(Task):
    """Fine-tunes `AutoModelForSequenceClassification` of any encoder that transformers knows."""

    name = "text-classification"
    roles = {"text": "the text to classify", "label": "its class"}  # noqa: RUF012  read-only
    subject = "text"
    target = "label"

    def begin(self, spec: RunSpec, folder: Path) -> Contract:
        base = base_model.locate(spec.model.base)
        _write_tokenizer(base, folder)
        config = json.loads((base / "config.json").read_bytes())
        length = min(spec.data.max_length, base_model.max_positions(config))
        cleaning, files = steps.of_spec(spec.data, folder)
        tokenize = Step(name="tokenize", params={"max_length": length, "pad_id": config.get("pad_token_id") or 0})
        return Contract(
            task=self.name,
            columns=resolve_columns(self, spec.data.columns),
            types={"text": "text", "label": "class"},
            steps=[*cleaning, tokenize],
            fitted={},
            files={_TOKENIZER: sha256(folder / _TOKENIZER), **files},
        )

    def check(self, rows: pa.Table) -> pa.Array:
        found = [_where(_blank(rows["text"]), "no visible character")]
        if "label" in rows.column_names:  # files to predict have none
            # "tool " would be a class of its own, and nobody would see why.
            trimmed = pc.utf8_trim_whitespace(rows["label"])
            found += [
                _where(_blank(rows["label"]), "no visible character in label"),
                _where(pc.not_equal(trimmed, rows["label"]), "label with white space around it"),
            ]
        return pc.coalesce(*found)

    def encoder(self, contract: Contract, folder: Path) -> TextEncoder:
        return TextEncoder(folder / _TOKENIZER, contract.step("tokenize")["max_length"])

    def fit(self, contract: Contract, targets: Mapping[str, int], declared: list[str] | None = None) -> Contract:
        labels = sorted(declared) if declared is not None else sorted(targets)
        absent = [label for label in labels if label not in targets]
        if absent:
            raise DataError(
                f"no training row has the label {absent[0]!r}, which data.labels names",
                "add rows of it, or take it out",
            )
        if len(labels) < 2:
            raise DataError(
                f"the training rows have {len(labels)} class: {labels}; there must be at least 2",
                "check data.columns.label, or add rows of another class",
            )
        if len(labels) > _MAX_LABELS:
            raise DataError(
                f"the label column has {len(labels)} different values; at most {_MAX_LABELS} are classes",
                "check data.columns.label: it looks like an id or a text",
            )
        return contract.model_copy(update={"fitted": {"labels": labels}})

    def target_ids(self, contract: Contract, targets: pa.Array | pa.ChunkedArray) -> np.ndarray:
        labels = pa.array(contract.fitted["labels"], pa.string())
        found = pc.fill_null(pc.index_in(targets, value_set=labels), -1)
        return found.to_numpy(**({} if isinstance(found, pa.ChunkedArray) else {"zero_copy_only": False})).astype(
            np.int32
        )

    def new_model(self, contract: Contract, base: Path, spec: RunSpec) -> torch.nn.Module:
        labels = contract.fitted["labels"]
        config = {
            "num_labels": len(labels),
            "id2label": dict(enumerate(labels)),
            "label2id": {label: index for index, label in enumerate(labels)},
        }
        if spec.model.dropout is not None:
            config["classifier_dropout"] = spec.model.dropout
        return _from_pretrained(base, ignore_mismatched_sizes=True, **config)

    def load_model(self, folder: Path) -> torch.nn.Module:
        return _from_pretrained(folder)

    def save_model(self, model: torch.nn.Module, contract: Contract, folder: Path) -> None:
        model.save_pretrained(folder, safe_serialization=True)  # type: ignore[operator]

    def collate(self, contract: Contract, inputs: list[np.ndarray]) -> dict[str, torch.Tensor]:
        import torch

        longest = max(len(ids) for ids in inputs)
        ids_BT = np.full((len(inputs), longest), self.pad_id(contract), dtype=np.int64)
        mask_BT = np.zeros((len(inputs), longest), dtype=np.int64)
        for row, ids in enumerate(inputs):
            ids_BT[row, : len(ids)] = ids
            mask_BT[row, : len(ids)] = 1
        return {"input_ids": torch.from_numpy(ids_BT), "attention_mask": torch.from_numpy(mask_BT)}

    def pad_id(self, contract: Contract) -> int:
        return int(contract.step("tokenize")["pad_id"])

    def loss_sum(
        self, logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        import torch

        return torch.nn.functional.cross_entropy(logits.float(), targets, weight=weights, reduction="sum")

    def scores(self, logits: np.ndarray) -> np.ndarray:
        shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
        exponents = np.exp(shifted)
        return exponents / exponents.sum(axis=1, keepdims=True)

    def metrics(self, scores: np.ndarray, targets: np.ndarray, n_bins: int) -> dict[str, float]:
        return classification_metrics(scores, targets, n_bins)

    def answer(self, contract: Contract, scores: np.ndarray) -> list[dict[str, Any]]:
        labels = contract.fitted["labels"]
        answers = []
        for row in scores:
            best = int(row.argmax())
            rounded = [round(float(score), 6) for score in row]
            answers.append(
                {"label": labels[best], "score": rounded[best], "scores": dict(zip(labels, rounded, strict=True))}
            )
        return answers


def _blank(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return which values show nothing, by the rule that a request is held to; null is none of them."""
    # Unicode tables differ in age; only what Arrow's know as a letter or digit is settled without asking ours.
    doubtful = column.filter(pc.invert(pc.match_substring_regex(column, r"[\pL\pN]")))
    unseen = [value for value in pc.unique(doubtful).to_pylist() if is_blank(value)]
    return pc.is_in(column, value_set=pa.array(unseen, column.type))


def _where(condition: pa.ChunkedArray, reason: str) -> pa.ChunkedArray:
    return pc.if_else(condition, reason, pa.scalar(None, pa.string()))


def _from_pretrained(folder: Path, **config: Any) -> torch.nn.Module:
    import torch
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model: torch.nn.Module = AutoModelForSequenceClassification.from_pretrained(
            folder, use_safetensors=True, trust_remote_code=False, dtype=torch.float32, local_files_only=True, **config
        )
    except Exception as error:  # transformers and safetensors raise their own kinds, plain Exception among them
        raise ModelError(
            f"{folder} cannot be loaded as a model: {error}", "check model.base, or train again"
        ) from error
    return model


def _write_tokenizer(base: Path, folder: Path) -> None:
    for name in _TOKENIZER_EXTRAS:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
    if (base / _TOKENIZER).is_file():
        shutil.copyfile(base / _TOKENIZER, folder / _TOKENIZER)
        return
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False, local_files_only=True)
        tokenizer.backend_tokenizer.save(str(folder / _TOKENIZER))
    except Exception as error:
        raise ModelError(
            f"{base} holds no tokenizer that can be read: {error}", "save a tokenizer.json beside the model"
        ) from error
