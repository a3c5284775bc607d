"""What tasks on texts share: the tokenizer, the pre-trained encoder with a head, requests of texts.

A task has one text (`text`) or a pair (`text`, `text_pair`); what it predicts is its `Target`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from cluster.errors import ModelError, RequestError, nearest
from cluster.files import read_json, sha256
from cluster.text import blank_values, is_blank, is_unicode, json_kind
from trainer.contract import contract as contracts
from trainer.contract.contract import Contract, Step
from trainer.models import base_model, custom, lora, pretrained
from trainer.spec.run import RunSpec
from trainer.steps import cleaner
from trainer.targets.base import LOOP, where
from trainer.tasks.base import Task
from trainer.tasks.encoder import Columns, Encoded, Encoder
from trainer.tasks.text.word_ids import WordIds

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from trainer.tasks.rows import Rows

TOKENIZER = "tokenizer.json"
_AUTO_CLASS = "AutoModelForSequenceClassification"
# Read by transformers' AutoTokenizer, not by raymill: kept so that the folder works without raymill too.
_TOKENIZER_EXTRAS = ("tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


class TextEncoder(Encoder):
    """Texts to token ids, by the `tokenizers` library alone: a replica needs no transformers to prepare a request."""

    def __init__(self, path: Path, max_length: int, roles: Sequence[str]) -> None:
        self._roles = roles
        self._tokenizer = load_tokenizer(path)
        self._tokenizer.enable_truncation(max_length)
        # In a pair the first separator must be the border, whatever the texts hold.
        self._tokenizer.encode_special_tokens = len(roles) > 1
        self._words: WordIds | None = None
        self._max_length = max_length

    def __call__(self, columns: Columns) -> Encoded:
        texts = [columns[role] for role in self._roles]
        values = list(texts[0]) if len(texts) == 1 else list(zip(*texts, strict=True))
        found = self._tokenizer.encode_batch_fast(values)
        return Encoded([np.asarray(each.ids, dtype=np.int32) for each in found])

    def length(self, row: Sequence[Any]) -> int:
        self._tokenizer.no_truncation()
        try:
            return len(self._tokenizer.encode(row[0], *row[1:]).ids)
        finally:
            self._tokenizer.enable_truncation(self._max_length)

    def block(self, rows: pa.Table) -> tuple[pa.ListArray, list[str | None] | None]:
        if len(self._roles) == 1:
            self._words = self._words or WordIds(self._tokenizer, self._max_length)
            texts = rows[self._roles[0]].combine_chunks()
            found = self._words.column(texts.chunk(0) if isinstance(texts, pa.ChunkedArray) else texts)
            if found is not None:
                return found, None
        return super().block(rows)


class TextTask(Task):
    """Fine-tunes `AutoModelForSequenceClassification` of any encoder that transformers knows."""

    request = '"a text"'
    models = "base: an encoder of transformers"
    texts: tuple[str, ...] = ("text",)
    token_input = "input_ids"
    uses: frozenset[str] = LOOP

    def begin(self, spec: RunSpec, folder: Path) -> Contract:
        assert spec.model.base is not None  # check_spec was there first
        base = base_model.locate(spec.model.base)
        _write_tokenizer(base, folder)
        config = read_json(base / "config.json")
        length = min(spec.data.max_length, base_model.max_positions(config))
        cleaning, files = cleaner.of_spec(spec.data, folder)
        params = {"max_length": length, "pad_id": config.get("pad_token_id") or 0}
        if len(self.texts) > 1:
            params["second_after"] = _border(folder / TOKENIZER) if config.get("type_vocab_size", 0) > 1 else None
        return Contract(
            task=spec.task,
            columns=self.columns(spec),
            types={**dict.fromkeys(self.texts, "text"), self.target_role: self.target.kind},
            steps=[*cleaning, Step(name="tokenize", params=params)],
            fitted={},
            files={TOKENIZER: sha256(folder / TOKENIZER), **files},
        )

    def check(self, rows: pa.Table) -> list[pa.ChunkedArray]:
        unseen = [
            where(blank_values(rows[role]), "no visible character" + (f" in {role}" if at else ""))
            for at, role in enumerate(self.texts)
        ]
        return [*unseen, *super().check(rows)]

    def encoder(self, contract: Contract, folder: Path) -> TextEncoder:
        return TextEncoder(folder / TOKENIZER, contract.step("tokenize")["max_length"], self.texts)

    def longest(self, contract: Contract) -> int | None:
        return int(contract.step("tokenize")["max_length"])

    # -- requests

    def parse(self, contract: Contract, inputs: Sequence[Any]) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {role: [] for role in self.texts}
        for place, given in enumerate(inputs):
            here = f"inputs[{place}]"
            if len(self.texts) == 1:
                found[self.texts[0]].append(_text(given, here))
                continue
            if not isinstance(given, Mapping):
                raise RequestError(422, "wrong_type", f"{here} is {json_kind(given)}; each must be {self._shape()}")
            for key in given:
                if key not in found:
                    raise RequestError(
                        422, "unknown_key", f"{here}: unknown key {key[:80]!a}; {nearest(key[:80], found)}"
                    )
            for role in self.texts:
                if role not in given:
                    raise RequestError(422, "missing_key", f"{here} has no '{role}'; each must be {self._shape()}")
                found[role].append(_text(given[role], f"{here}.{role}"))
        return found

    def _shape(self) -> str:
        return "{" + ", ".join(f'"{role}": "..."' for role in self.texts) + "}"

    def as_request(self, contract: Contract, columns: Columns) -> list[Any]:
        if len(self.texts) == 1:
            return list(columns[self.texts[0]])
        rows = zip(*[columns[role] for role in self.texts], strict=True)
        return [dict(zip(self.texts, row, strict=True)) for row in rows]

    def example(self, contract: Contract) -> Any:
        return "a text" if len(self.texts) == 1 else {role: f"the {role}" for role in self.texts}

    # -- model

    def new_model(self, contract: Contract, spec: RunSpec) -> torch.nn.Module:
        assert spec.model.base is not None
        if spec.model.factory:
            return custom.build(spec, self.target.width(contract.fitted))
        changes = {} if spec.model.dropout is None else {"classifier_dropout": spec.model.dropout}
        return self._with_new_head(contract, spec.model.base, **changes)

    def _with_new_head(self, contract: Contract, base: str, **changes: Any) -> torch.nn.Module:
        labels = self.target.labels(contract.fitted) or [self.target_role]
        config = {
            "num_labels": len(labels),
            "id2label": dict(enumerate(labels)),
            "label2id": {label: index for index, label in enumerate(labels)},
            **changes,
        }
        return pretrained.load(_AUTO_CLASS, base_model.locate(base), ignore_mismatched_sizes=True, **config)

    def load_model(self, folder: Path) -> torch.nn.Module:
        if custom.is_saved_in(folder):
            return custom.load(folder)
        if lora.is_adapter(folder):
            contract = contracts.load(folder)
            return lora.load(self._with_new_head(contract, lora.base_of(folder)), folder)
        return pretrained.load(_AUTO_CLASS, folder)

    def save_model(self, model: torch.nn.Module, contract: Contract, folder: Path) -> None:
        if custom.is_own(model):
            custom.save(model, folder)
        else:
            model.save_pretrained(folder, safe_serialization=True)  # type: ignore[operator]

    def collate(self, contract: Contract, inputs: list[np.ndarray]) -> dict[str, torch.Tensor]:
        import torch

        longest = max(len(ids) for ids in inputs)
        ids_BT = np.full((len(inputs), longest), self.pad_id(contract), dtype=np.int64)
        mask_BT = np.zeros((len(inputs), longest), dtype=np.int64)
        for row, ids in enumerate(inputs):
            ids_BT[row, : len(ids)] = ids
            mask_BT[row, : len(ids)] = 1
        batch = {"input_ids": torch.from_numpy(ids_BT), "attention_mask": torch.from_numpy(mask_BT)}
        border = contract.step("tokenize").get("second_after")
        if border is not None:
            is_border = ids_BT == border
            batch["token_type_ids"] = torch.from_numpy((np.cumsum(is_border, axis=1) - is_border > 0) * mask_BT)
        return batch

    def pad_id(self, contract: Contract) -> int:
        return int(contract.step("tokenize")["pad_id"])

    def profile(self, parts: Mapping[str, Rows], contract: Contract, model: Any, folder: Path) -> dict[str, Any]:
        from trainer.tasks.text import profile as text_profile

        of_model = getattr(model, "get_input_embeddings", None)  # a model of the user's own may have none
        embedding = of_model().weight.detach().cpu().numpy() if of_model else None
        return text_profile.build(parts, contract, self.texts, embedding, read_json(folder / TOKENIZER))

    def library_agrees(self, contract: Contract, folder: Path, columns: Columns, inputs: list[np.ndarray]) -> str:
        from trainer.tasks.text import library_check

        texts = [list(columns[role]) for role in self.texts]
        return library_check.compare(folder, texts, inputs, contract.step("tokenize")["max_length"])


def load_tokenizer(path: Path) -> Tokenizer:
    """Return a tokenizer.json as it encodes single rows: nothing is padded."""
    from tokenizers import Tokenizer

    found: Tokenizer = Tokenizer.from_file(str(path))
    found.no_padding()
    return found


def _text(value: object, here: str) -> str:
    if not isinstance(value, str):
        raise RequestError(422, "wrong_type", f"{here} is {json_kind(value)}; each must be a text")
    if not is_unicode(value):
        raise RequestError(422, "invalid_unicode", f"{here} holds half of a surrogate pair")
    if is_blank(value):  # as the row of a training file would be
        raise RequestError(422, "empty_input", f"{here} is empty; take it out or give a text")
    return value


def _border(tokenizer: Path) -> int | None:
    """Return the token id after whose first occurrence the second text's types begin; None where there are no types."""
    found = load_tokenizer(tokenizer).encode("a", "b")
    return int(found.ids[found.type_ids.index(1) - 1]) if 1 in found.type_ids else None


def _write_tokenizer(base: Path, folder: Path) -> None:
    for name in _TOKENIZER_EXTRAS:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
    if (base / TOKENIZER).is_file():
        shutil.copyfile(base / TOKENIZER, folder / TOKENIZER)
        return
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False, local_files_only=True)
        tokenizer.backend_tokenizer.save(str(folder / TOKENIZER))
    except Exception as error:
        raise ModelError(
            f"{base} holds no tokenizer that can be read: {error}", "save a tokenizer.json beside the model"
        ) from error
