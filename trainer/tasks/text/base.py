"""The base of tasks on texts: a tokenizer, a pre-trained encoder with a head, requests of texts.

A task has one text (`text`) or a pair (`text`, `text_pair`); what it predicts is its `Target`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from cluster.files import file_sha256, read_json
from cluster.text import blank_mask
from trainer.contract.contract import Contract, Step, load_contract
from trainer.models import custom, lora
from trainer.models.base_model import locate_base_model, max_positions
from trainer.models.new_model import NewModel
from trainer.models.pretrained import load_pretrained, model_without_weights
from trainer.models.save import save_torch_model
from trainer.spec.run import RunSpec
from trainer.steps.cleaner import contract_steps
from trainer.targets.arrays import reason_where
from trainer.tasks.base import Task
from trainer.tasks.draft_options import DraftedSections, DraftFacts
from trainer.tasks.encoder import Columns
from trainer.tasks.fitting import unfitted_contract
from trainer.tasks.spec_keys import TORCH_LOOP_KEYS
from trainer.tasks.text.encoder import TOKENIZER_FILE, TextEncoder, copy_tokenizer, separator_id
from trainer.tasks.text.requests import read_texts

if TYPE_CHECKING:
    import torch

    from trainer.tasks.rows import RowsView

_AUTO_CLASS = "AutoModelForSequenceClassification"
_STEP = "tokenize"


class TextTask(Task):
    """Fine-tunes `AutoModelForSequenceClassification` of any encoder that transformers supports."""

    request = '"a text"'
    models = "base: an encoder of transformers"
    text_roles: tuple[str, ...] = ("text",)
    token_input = "input_ids"
    used_keys: frozenset[str] = TORCH_LOOP_KEYS

    # -- rows

    def make_contract(self, spec: RunSpec, folder: Path) -> Contract:
        assert spec.model.base is not None  # checked by check_spec
        base = locate_base_model(spec.model.base)
        copy_tokenizer(base, folder)
        config = read_json(base / "config.json")
        length = min(spec.data.max_length, max_positions(config))
        params = {"max_length": length, "pad_id": config.get("pad_token_id") or 0}
        if len(self.text_roles) > 1:
            has_types = config.get("type_vocab_size", 0) > 1
            params["second_after"] = separator_id(folder / TOKENIZER_FILE) if has_types else None
        cleaning, files = contract_steps(spec.data, folder)
        return unfitted_contract(
            self,
            spec,
            steps=[*cleaning, Step(name=_STEP, params=params)],
            files={TOKENIZER_FILE: file_sha256(folder / TOKENIZER_FILE), **files},
        )

    def check(self, rows: pa.Table) -> list[pa.ChunkedArray]:
        reasons = [
            reason_where(blank_mask(rows[role]), "no visible character" + (f" in {role}" if number else ""))
            for number, role in enumerate(self.text_roles)
        ]
        return [*reasons, *super().check(rows)]

    def encoder(self, contract: Contract, folder: Path) -> TextEncoder:
        return TextEncoder(folder / TOKENIZER_FILE, contract.step_params(_STEP)["max_length"], self.text_roles)

    def max_length(self, contract: Contract) -> int | None:
        return int(contract.step_params(_STEP)["max_length"])

    def collate(self, contract: Contract, inputs: list[np.ndarray]) -> dict[str, torch.Tensor]:
        import torch

        longest = max(len(ids) for ids in inputs)
        ids_BT = np.full((len(inputs), longest), self.pad_id(contract), dtype=np.int64)
        mask_BT = np.zeros((len(inputs), longest), dtype=np.int64)
        for row, ids in enumerate(inputs):
            ids_BT[row, : len(ids)] = ids
            mask_BT[row, : len(ids)] = 1
        batch = {"input_ids": torch.from_numpy(ids_BT), "attention_mask": torch.from_numpy(mask_BT)}
        separator = contract.step_params(_STEP).get("second_after")
        if separator is not None:
            is_separator_BT = ids_BT == separator
            is_second_BT = np.cumsum(is_separator_BT, axis=1) - is_separator_BT > 0
            batch["token_type_ids"] = torch.from_numpy(is_second_BT * mask_BT)
        return batch

    def pad_id(self, contract: Contract) -> int:
        return int(contract.step_params(_STEP)["pad_id"])

    # -- requests

    def parse(self, contract: Contract, inputs: Sequence[Any]) -> dict[str, list[Any]]:
        return read_texts(inputs, self.text_roles)

    def as_request(self, contract: Contract, columns: Columns) -> list[Any]:
        if len(self.text_roles) == 1:
            return list(columns[self.text_roles[0]])
        rows = zip(*[columns[role] for role in self.text_roles], strict=True)
        return [dict(zip(self.text_roles, row, strict=True)) for row in rows]

    def example(self, contract: Contract) -> Any:
        return "a text" if len(self.text_roles) == 1 else {role: f"the {role}" for role in self.text_roles}

    # -- model

    def new_model(self, contract: Contract, spec: RunSpec) -> Any:
        assert spec.model.base is not None  # checked by check_spec
        if spec.model.factory:
            return custom.build_custom_model(spec, self.target.width(contract.fitted))
        changes = {} if spec.model.dropout is None else {"classifier_dropout": spec.model.dropout}
        return self._with_new_head(contract, spec.model.base, **changes)

    def save_model(self, model: Any, contract: Contract, folder: Path) -> None:
        save_torch_model(model, folder)

    def load_model(self, folder: Path) -> torch.nn.Module:
        if custom.holds_custom_model(folder):
            return custom.load_custom_model(folder)
        if lora.holds_adapter(folder):
            base = self._with_new_head(load_contract(folder), lora.base_of_adapter(folder))
            return lora.load_adapter(base.module, folder)
        return load_pretrained(_AUTO_CLASS, folder).module

    def _with_new_head(self, contract: Contract, base: str, **changes: Any) -> NewModel:
        labels = self.target.labels(contract.fitted) or [self.target_role or self.target.kind]
        config = {
            "num_labels": len(labels),
            "id2label": dict(enumerate(labels)),
            "label2id": {label: index for index, label in enumerate(labels)},
            **changes,
        }
        return load_pretrained(_AUTO_CLASS, locate_base_model(base), ignore_mismatched_sizes=True, **config)

    def model_on_meta(self, spec: RunSpec, outputs: int) -> Any | None:
        from transformers import AutoConfig

        assert spec.model.base is not None  # checked by check_spec
        return model_without_weights(
            _AUTO_CLASS, AutoConfig.from_pretrained(locate_base_model(spec.model.base), num_labels=outputs)
        )

    def batch_on_meta(self, spec: RunSpec, rows: int, length: int) -> dict[str, torch.Tensor]:
        import torch

        ones_BT = torch.ones((rows, length), dtype=torch.long, device="meta")
        return {"input_ids": ones_BT, "attention_mask": ones_BT.clone()}

    # -- drafts

    def draft(self, facts: DraftFacts) -> DraftedSections:
        from trainer.tasks.text.draft import draft_text_sections

        return draft_text_sections(facts)

    # -- reporting

    def profile(self, parts: Mapping[str, RowsView], contract: Contract, model: Any, folder: Path) -> dict[str, Any]:
        from trainer.tasks.text.profile import build_text_profile

        get_embeddings = getattr(model, "get_input_embeddings", None)  # a user's own model may have none
        embedding_VD = get_embeddings().weight.detach().cpu().numpy() if get_embeddings else None
        return build_text_profile(parts, contract, self.text_roles, embedding_VD, read_json(folder / TOKENIZER_FILE))

    def check_against_library(
        self, contract: Contract, folder: Path, columns: Columns, inputs: list[np.ndarray]
    ) -> str:
        from trainer.tasks.text.library_check import compare_token_ids

        texts = [list(columns[role]) for role in self.text_roles]
        return compare_token_ids(folder, texts, inputs, contract.step_params(_STEP)["max_length"])
