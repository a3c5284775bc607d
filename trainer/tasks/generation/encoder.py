"""The encoder of text generation: rows and requests to tokens, by `trainer.chat`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from trainer.chat.row_encoder import RowEncoder, RowInput
from trainer.chat.rules import CHAT_STEP, ChatRules
from trainer.contract.contract import Contract
from trainer.tasks.encoder import Columns, Encoded, Encoder, list_offsets

# The tokenizer's results for a whole block would take several times the memory of its tokens.
_ROWS_AT_A_TIME = 1024
_NOTHING = np.empty(0, np.int32)


class GenerationEncoder(Encoder):
    """Turns rows into tokens with their mask (`trainer.chat.tokens`). A request without an answer is a prompt."""

    def __init__(self, contract: Contract, folder: Path) -> None:
        self.rows = RowEncoder(ChatRules.model_validate(contract.step_params(CHAT_STEP)), folder)

    def __call__(self, columns: Columns) -> Encoded:
        return Encoded(*_separate(self.rows.encode(columns, needs_answer=False)))

    def encode_request_block(self, rows: pa.Table) -> tuple[pa.ListArray, list[str | None] | None]:
        return self._encode_block(rows, needs_answer=False)

    def encode_block(self, rows: pa.Table) -> tuple[pa.ListArray, list[str | None] | None]:
        return self._encode_block(rows, needs_answer=True)

    def _encode_block(self, rows: pa.Table, *, needs_answer: bool) -> tuple[pa.ListArray, list[str | None] | None]:
        encoded: list[RowInput] = []
        for start in range(0, len(rows), _ROWS_AT_A_TIME):
            part = rows.slice(start, _ROWS_AT_A_TIME)
            columns = {name: part[name].to_pylist() for name in part.column_names}
            encoded += self.rows.encode(columns, needs_answer=needs_answer)
        inputs, reasons = _separate(encoded)
        values = np.concatenate(inputs) if inputs else _NOTHING
        return pa.ListArray.from_arrays(pa.array(list_offsets(inputs)), pa.array(values, pa.int32())), reasons


def _separate(rows: list[RowInput]) -> tuple[list[np.ndarray], list[str | None] | None]:
    """Return the inputs, empty for a row that cannot be used, and the reasons, or None if all rows can be used."""
    reasons = [row if isinstance(row, str) else None for row in rows]
    inputs = [_NOTHING if isinstance(row, str) else row for row in rows]
    return inputs, reasons if any(reasons) else None
