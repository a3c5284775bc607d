"""Facts about the prepared rows of a language model: tokens, what is learned of them, and how full the steps are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from trainer.chat.rules import CHAT_STEP, ChatRules
from trainer.chat.tokens import learned_mask, token_ids
from trainer.data.parts import PARTS
from trainer.data.prepared import Prepared, PreparedRows
from trainer.optim.token_plan import plan_steps
from trainer.preference.rows import row_kind, split_row
from trainer.report.data_facts import UsableRows
from trainer.tasks.catalog import task_of_contract
from trainer.tasks.roles import input_roles

# Characters of a row that are compared with other rows; more would take time and change little.
_COMPARED_CHARS = 4000
_SAMPLES = 12
# Tokens that are shown at the start and at the end of a long stretch that is learned, or only read.
_SHOWN_LEARNED, _SHOWN_READ = 200, 80
_BUDGETS = (4_096, 16_384, 65_536)
_NAMES = {"pair": ("chosen", "rejected"), "label": ("",), "sequence": ("",)}


class TokenRows(NamedTuple):
    """The usable rows of all parts, part after part."""

    rows: UsableRows
    learned: np.ndarray
    """int64: learned tokens of each row."""
    longest: np.ndarray
    """int64: tokens of each row's longest sequence."""


def collect_token_rows(prepared: Prepared) -> TokenRows:
    """Return all usable rows: the texts that are compared, and their numbers of tokens."""
    task = task_of_contract(prepared.contract)
    roles = input_roles(task, prepared.contract)
    kind = row_kind(roles)
    texts: list[str] = []
    parts: list[np.ndarray] = []
    lengths: list[int] = []
    learned: list[int] = []
    longest: list[int] = []
    for index, part in enumerate(PARTS):
        rows = prepared.part(part)
        shown = task.comparable_texts(prepared.contract, {role: rows.raw(role) for role in roles})
        texts += [text[:_COMPARED_CHARS] for text in shown]
        for row in range(len(rows)):
            sequences = split_row(kind, rows.inputs(row))
            lengths.append(sum(map(len, sequences)))
            longest.append(max(map(len, sequences)))
            learned.append(sum(int(learned_mask(tokens).sum()) for tokens in sequences))
        parts.append(np.full(len(rows), index, np.int8))
    usable = UsableRows(texts, [""] * len(texts), np.concatenate(parts), np.array(lengths, np.int64))
    return TokenRows(usable, np.array(learned, np.int64), np.array(longest, np.int64))


def cut_length(prepared: Prepared) -> int | None:
    """Return the length to which long sequences were cut; None if none was."""
    rules = ChatRules.model_validate(prepared.contract.step_params(CHAT_STEP))
    return rules.max_length if rules.overlong.startswith("truncate") else None


def describe_tokens(token_rows: TokenRows, cut: int | None) -> list[dict[str, Any]]:
    """Return {part, rows, tokens, learned, mean, median, p95, longest, at_limit} of each part that has rows.

    `at_limit` counts the rows with a sequence of `cut` tokens: nearly all of them were cut.
    """
    entries = []
    for part in PARTS:
        of_part = token_rows.rows.rows_of(part)
        lengths = token_rows.rows.lengths[of_part]
        if len(lengths):
            median, p95 = np.percentile(lengths, [50, 95])
            entries.append(
                {
                    "part": part,
                    "rows": len(lengths),
                    "tokens": int(lengths.sum()),
                    "learned": int(token_rows.learned[of_part].sum()),
                    "mean": float(lengths.mean()),
                    "median": float(median),
                    "p95": float(p95),
                    "longest": int(lengths.max()),
                    "at_limit": int((token_rows.longest[of_part] >= cut).sum()) if cut else 0,
                }
            )
    return entries


def describe_steps(token_rows: TokenRows, seed: int, chosen: int | None) -> list[dict[str, Any]]:
    """Return how full the steps of the first epoch are for some `tokens_per_step`, `chosen` among them.

    Each entry: {tokens_per_step, steps, rows, smallest, largest, fewest_learned, most_learned, is_chosen}. `smallest` and
    `largest` are shares of the mean step.
    """
    train = token_rows.rows.rows_of("train")
    lengths, learned = token_rows.rows.lengths[train], token_rows.learned[train]
    total = int(lengths.sum())
    budgets = sorted({*[budget for budget in _BUDGETS if budget <= total], *([chosen] if chosen else [])})
    entries = []
    for budget in budgets or [total]:
        steps = plan_steps(lengths, seed, 0, budget)
        sizes = np.array([lengths[step].sum() for step in steps])
        of_step = [int(learned[step].sum()) for step in steps]
        entries.append(
            {
                "tokens_per_step": budget,
                "steps": len(steps),
                "rows": len(train) / len(steps),
                "smallest": float(sizes.min() / sizes.mean()),
                "largest": float(sizes.max() / sizes.mean()),
                "fewest_learned": min(of_step),
                "most_learned": max(of_step),
                "is_chosen": budget == chosen,
            }
        )
    return entries


def show_samples(prepared: Prepared) -> list[dict[str, Any]]:
    """Return the first training rows with their tokens: {where, tokens, learned, note, spans} for each sequence.

    A span is {text, learned, special, omitted}: neighboring tokens of the same kind, or a number of omitted tokens.
    """
    from trainer.chat.tokenizer import SegmentTokenizer

    tokenizer = SegmentTokenizer(prepared.folder)
    special = np.array(sorted(tokenizer.special_ids.values()), np.int32)
    task = task_of_contract(prepared.contract)
    kind = row_kind(input_roles(task, prepared.contract))
    rows: PreparedRows = prepared.part("train")
    samples = []
    for row in range(min(_SAMPLES, len(rows))):
        whole = rows.inputs(row)
        names = _NAMES[kind]
        if kind == "label":
            names = ("desirable" if whole[0] else "undesirable",)
        for tokens, name in zip(split_row(kind, whole), names, strict=False):
            samples.append(
                {
                    "where": prepared.source("train", row),
                    "tokens": len(tokens),
                    "learned": int(learned_mask(tokens).sum()),
                    "note": name,
                    "spans": _spans(tokens, special, tokenizer.decode),
                }
            )
    return samples


def _spans(tokens: np.ndarray, special: np.ndarray, decode: Callable[[np.ndarray], str]) -> list[dict[str, Any]]:
    ids, learned = token_ids(tokens), learned_mask(tokens)
    is_special = np.isin(ids, special)
    spans: list[dict[str, Any]] = []
    for run in _runs(learned):
        half = _SHOWN_LEARNED if learned[run[0]] else _SHOWN_READ
        n_omitted = len(run) - 2 * half
        shown = [run] if n_omitted <= 0 else [run[:half], run[-half:]]
        for number, part in enumerate(shown):
            if number:
                spans.append({"omitted": n_omitted})
            for piece in _runs(is_special[part]):
                first = part[piece[0]]
                spans.append(
                    {
                        "text": decode(ids[part[piece]]),
                        "learned": bool(learned[first]),
                        "special": bool(is_special[first]),
                        "omitted": 0,
                    }
                )
    return spans


def _runs(values: np.ndarray) -> list[np.ndarray]:
    """Return the indices of each run of equal values."""
    if not len(values):
        return []
    return np.split(np.arange(len(values)), np.flatnonzero(np.diff(values)) + 1)
