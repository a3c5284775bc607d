"""The task text-generation: a causal language model learns to continue conversations and texts.

What is learned is part of the rows' own text, so there is no column of targets. The columns that a spec names choose the
layout of its rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from cluster.errors import SpecError
from trainer.chat.layouts import ROLES, TEXT, TOOLS, layout_of, read_cell, row_identity
from trainer.chat.long_texts import whole_part
from trainer.chat.messages import MessageError
from trainer.chat.new_tokenizer import write_new_tokenizer
from trainer.chat.row_encoder import RowEncoder
from trainer.chat.rules import CHAT_STEP, ChatRules
from trainer.contract.contract import Contract, Step
from trainer.contract.row_hash import hash_contents
from trainer.spec.run import RunSpec
from trainer.steps.cleaner import contract_steps
from trainer.targets.generated import GeneratedTokens
from trainer.tasks.base import Task
from trainer.tasks.draft_options import ColumnSample, DraftedSections, DraftFacts
from trainer.tasks.encoder import Columns, Encoder
from trainer.tasks.fitting import unfitted_contract
from trainer.tasks.generation.answers import AnswerWriter
from trainer.tasks.generation.chat_contract import (
    check_model,
    contract_files,
    layout_of_spec,
    new_template,
    rules_of_base,
    rules_of_new_model,
    tokenizer_spec,
)
from trainer.tasks.generation.draft import draft_generation_sections, recognize_columns
from trainer.tasks.generation.encoder import GenerationEncoder
from trainer.tasks.generation.method_check import check_method
from trainer.tasks.generation.model import LanguageModelTask
from trainer.tasks.generation.requests import as_requests, example_request, read_requests
from trainer.tasks.row_options import RowIdentity


class TextGeneration(LanguageModelTask, AnswerWriter, Task):
    """Trains `AutoModelForCausalLM`, pre-trained or new from a config."""

    name = "text-generation"
    service = "generation"
    roles = {  # noqa: RUF012  read-only
        "messages": "a conversation",
        "tools": "the functions that the assistant may call",
        "prompt": "what a completion follows",
        "completion": "what is learned after a prompt",
        "text": "a text that is learned whole",
        "chosen": "the better answer of a pair",
        "rejected": "the worse answer of a pair",
        "desirable": "whether a completion is good",
    }
    target = GeneratedTokens()
    target_role = None
    text_roles = tuple(roles)
    nested_roles = frozenset(roles)
    optional_roles = frozenset({"tools"})
    answer_roles = frozenset({"completion", "chosen", "rejected", "desirable"})
    allowed_issues = frozenset({"contradicting labels"})  # a prompt may have several answers
    request = '{"messages": [{"role": "user", "content": "..."}]}, {"prompt": "..."} or "a text"'

    # -- rows

    def check_spec(self, spec: RunSpec) -> None:
        self.column_roles(spec.data.columns)
        cleaning = [
            step.name for step in spec.data.steps if step.name in ("normalize", "strip_html", "redact", "python")
        ]
        if cleaning:
            raise SpecError(
                f"data.steps has {cleaning[0]}, which cleans single texts, and {self.name} reads conversations",
                "clean the texts before, and remove the step",
            )
        if spec.data.mode == "streaming":
            raise SpecError(
                f"data.mode: streaming cannot be used by {self.name}: its steps are planned from the lengths of all rows",
                "use `data.mode: prepared`",
            )
        if spec.data.chat.overlong == "split" and layout_of_spec(spec) != "text":
            raise SpecError(
                "data.chat.overlong: split is for rows of plain text; part of a conversation would be learned without what "
                "was said before",
                "use truncate_left, truncate_right or refuse",
            )
        check_model(spec, self.name)
        check_method(spec, self.column_roles(spec.data.columns))

    def column_roles(self, renamed: Collection[str]) -> tuple[str, ...]:
        layout = layout_of(renamed or ("messages",))
        unknown = next((role for role in renamed if role not in self.roles), None)
        if layout is None and unknown is None:
            layouts = "; ".join(", ".join(known) for known in ROLES.values())
            raise SpecError(
                f"data.columns names {', '.join(renamed)}, which are the columns of no layout of rows",
                f"name those of one layout: {layouts} (tools, and the prompt of chosen and rejected, may be left out)",
            )
        return tuple(role for role in self.roles if role in renamed) or ("messages",)

    def learned_files(self, spec: RunSpec) -> dict[str, Any] | None:
        if spec.model.base is not None:
            return None
        return {"tokenizer": tokenizer_spec(spec).model_dump(mode="json"), "template": new_template(spec)}

    def write_learned_files(self, spec: RunSpec, rows: Iterator[pa.Table], folder: Path) -> None:
        settings = tokenizer_spec(spec)
        texts = (
            text for block in rows for cells in block.columns for cell in cells for text in _texts_of(cell.as_py())
        )
        write_new_tokenizer(folder, texts, settings.kind, settings.size, new_template(spec))

    def split_rows(self, contract: Contract, encoder: Encoder, rows: pa.Table) -> pa.Table:
        rules = rules_of(contract)
        if rules.overlong != "split" or TEXT not in rows.column_names:
            return rows
        assert isinstance(encoder, GenerationEncoder)
        return split_long_texts(encoder.rows, rows, rules.max_length)

    def make_contract(self, spec: RunSpec, folder: Path) -> Contract:
        rules = rules_of_base(spec, folder) if spec.model.base else rules_of_new_model(spec, folder)
        cleaning, files = contract_steps(spec.data, folder)
        return unfitted_contract(
            self,
            spec,
            steps=[*cleaning, Step(name=CHAT_STEP, params=rules.params())],
            files={**contract_files(folder), **files},
        )

    def encoder(self, contract: Contract, folder: Path) -> GenerationEncoder:
        return GenerationEncoder(contract, folder)

    def max_length(self, contract: Contract) -> int | None:
        return None  # a prompt that is too long is refused, never cut

    def row_identity(self, contract: Contract, rows: pa.Table) -> RowIdentity | None:
        known = {step.name: step.params for step in contract.steps}.get(CHAT_STEP, {})  # a draft has no rules yet
        layout = known.get("layout") or layout_of(contract.columns)
        assert layout is not None
        columns = [rows[name].to_pylist() for name in rows.column_names]
        pairs = [
            row_identity(layout, known.get("learn", "assistant"), dict(zip(rows.column_names, row, strict=True)))
            for row in zip(*columns, strict=True)
        ]
        contents = [f"{content:016x}" for content in hash_contents([whole for _, whole in pairs])]
        return RowIdentity(
            hash_contents([asked for asked, _ in pairs]), pa.chunked_array([pa.array(contents, pa.string())])
        )

    def comparable_texts(self, contract: Contract, columns: Columns) -> list[str]:
        # Tools are often the same in all rows, and longer than what is said.
        texts = [cells for role, cells in columns.items() if role != TOOLS]
        return [" ".join(text for cell in row for text in _texts_of(cell)) for row in zip(*texts, strict=True)]

    # -- requests

    def parse(self, contract: Contract, inputs: Sequence[Any]) -> dict[str, list[Any]]:
        return read_requests(rules_of(contract).layout, list(contract.columns), inputs)

    def as_request(self, contract: Contract, columns: Columns) -> list[Any]:
        return as_requests(rules_of(contract).layout, columns)

    def example(self, contract: Contract) -> Any:
        return example_request(rules_of(contract).layout)

    # -- drafts

    def recognize(self, columns: Sequence[ColumnSample]) -> dict[str, str] | None:
        return recognize_columns(columns)

    def draft(self, facts: DraftFacts) -> DraftedSections:
        return draft_generation_sections(facts)

    # -- reporting

    def show(self, contract: Contract, columns: Columns) -> list[str]:
        return self.comparable_texts(contract, columns)


def rules_of(contract: Contract) -> ChatRules:
    """Return the rules by which a contract encodes rows."""
    return ChatRules.model_validate(contract.step_params(CHAT_STEP))


def split_long_texts(encoder: RowEncoder, rows: pa.Table, n_tokens: int) -> pa.Table:
    """Return the rows with each text of more than `n_tokens` tokens in parts, each a row with the number of its row."""
    texts = rows[TEXT].to_pylist()
    reasons = rows["reason"].to_pylist()
    # A token has at least one byte, so a short text is not tokenized twice.
    is_long = [
        text is not None and reason is None and len(text.encode()) > n_tokens - 2
        for text, reason in zip(texts, reasons, strict=True)
    ]
    if not any(is_long):
        return rows
    parts = [encoder.split_text(text) if long else [text] for text, long in zip(texts, is_long, strict=True)]
    index = [row for row, of_row in enumerate(parts) for _ in of_row]
    split = rows.take(pa.array(index))
    column = pa.array([part for of_row in parts for part in of_row], pa.string())
    return split.set_column(split.schema.get_field_index(TEXT), TEXT, column)


def _texts_of(cell: str | None) -> list[str]:
    """Return the texts in a cell: its own, or those of its messages; none if it holds messages that cannot be read."""
    try:
        value = read_cell(cell) if cell else ""
    except MessageError:
        return []
    if isinstance(value, str):
        return [whole_part(value)[0]]
    return [str(message.get("content", "")) for message in value]
