"""Golden rows: a few held-out rows with the inputs and scores they had when the model was registered.

A replica replays them before it is ready; whatever has drifted since (library, file, hardware) shows here first, by
row and field. When a model is registered, the base library's own tokenizer has to give the same inputs.
"""

from __future__ import annotations

from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import numpy as np

from cluster.errors import ModelError, RequestError
from cluster.files import read_json, write_json
from trainer.predictor import Predictor

FILE = "golden.json"
#: How many rows are kept.
ROWS = 8
# fp32 on another CPU differs by 1e-6 or so; a wrong tokenizer, weight or label order by far more.
_TOLERANCE = 1e-3


def to_keep(predictor: Predictor, raw: list[str]) -> dict[int, str]:
    """Return which rows become golden rows, and what is stored as the raw text of each.

    A model's folder must not hold what its `redact` step takes out, so there the cleaned text is stored, of rows in
    which cleaning finds nothing more to do: they have the same input, and with it the same scores.
    """
    if all(step.name != "redact" for step in predictor.contract.steps):
        return dict(enumerate(raw[:ROWS]))
    kept: dict[int, str] = {}
    for at, text in enumerate(raw):
        cleaned, reasons = predictor.cleaner([text])
        if reasons == [None] and predictor.cleaner(cleaned) == (cleaned, [None]):
            kept[at] = cleaned[0]
        if len(kept) == ROWS:
            break
    return kept


def write(
    folder: Path, predictor_inputs: list[np.ndarray], raw: list[str], scores: np.ndarray, checked: str = ""
) -> None:
    """Write golden.json with the first rows of those given.

    `scores` has shape (rows, classes); `checked` is what `compare_with_library` returned, kept for people.
    """
    rows = [
        {"raw": raw[at], "inputs": predictor_inputs[at].tolist(), "scores": [float(s) for s in scores[at]]}
        for at in range(min(ROWS, len(raw)))
    ]
    write_json(folder / FILE, {"tolerance": _TOLERANCE, "library": checked, "rows": rows})


def replay(folder: Path, predictor: Predictor) -> int:
    """Return how many rows were replayed.

    Raises `ModelError` naming row and field of the first that does not come out as recorded.
    """
    try:
        golden: dict[str, Any] = read_json(folder / FILE)
        rows, tolerance = golden["rows"], golden["tolerance"]
        inputs = [_encoded(predictor, at, row["raw"]) for at, row in enumerate(rows)]
        scores = predictor.scores(inputs)
        labels = predictor.contract.fitted.get("labels", [])
        for at, row in enumerate(rows):
            how = input_difference(row["inputs"], inputs[at].tolist(), folder)
            how = how or score_difference(row["scores"], scores[at].tolist(), labels, tolerance)
            if how:
                raise _differs(at, f"{how}; {folder} does not answer as it did when the model was registered")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{folder / FILE} is missing or damaged: {error}", "restore the version, or train again"
        ) from error
    return len(rows)


def _encoded(predictor: Predictor, at: int, raw: str) -> np.ndarray:
    try:
        return predictor.encode([raw])[0]
    except RequestError as error:
        raise _differs(at, f"raw: it was used when the model was registered, and is refused now: {error}") from error


def _differs(at: int, how: str) -> ModelError:
    return ModelError(
        f"golden row {at}, {how}", "serve with the library versions in the version's lineage.json, or train again"
    )


def input_difference(recorded: list[int], now: list[int], folder: Path) -> str:
    """Return which token id is another one, with the tokens by the tokenizer in `folder`; "" if all are equal."""
    parts = []
    if len(recorded) != len(now):
        parts.append(f"length of inputs: {len(recorded)} -> {len(now)}")
    place = next((at for at, pair in enumerate(zip(recorded, now, strict=False)) if pair[0] != pair[1]), None)
    if place is not None:
        before, after = recorded[place], now[place]
        parts.append(f"inputs[{place}]: recorded {before}, now {after}{_as_tokens(before, after, folder)}")
    return ", ".join(parts)


def score_difference(recorded: list[float], now: list[float], labels: list[str], tolerance: float) -> str:
    """Return the label whose score moved most, if any by more than `tolerance`; else ""."""
    if len(recorded) != len(now):
        return f"length of scores: {len(recorded)} -> {len(now)}"
    gap_C = np.abs(np.asarray(now, float) - np.asarray(recorded, float))
    if gap_C.size == 0 or gap_C.max() <= tolerance:  # a score that is no number is never within it
        return ""
    worst = int(gap_C.argmax())
    name = repr(labels[worst]) if worst < len(labels) else str(worst)
    return (
        f"scores[{name}]: recorded {_score(recorded[worst])}, now {_score(now[worst])} "
        f"(at most {tolerance:g} apart is allowed)"
    )


def compare_with_library(folder: Path, texts: list[str], inputs: list[np.ndarray], max_length: int) -> str:
    """Hold `inputs` against those of transformers' own tokenizer for the same `texts`, cleaned as the model gets them.

    Returns in a sentence what was compared: a folder without a transformers tokenizer, or with one that transformers
    cannot read, is served all the same. Raises `ModelError` naming row and field of the first difference.
    """
    if not texts:
        return "not compared: cleaning changes every row again, so that none could be kept"
    if not (folder / "tokenizer_config.json").is_file():
        return "not compared: there is no tokenizer_config.json"
    from transformers import AutoTokenizer

    library = f"transformers {installed('transformers')}"
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        theirs = tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]
    except Exception as error:  # transformers raises its own kinds, ImportError and plain Exception among them
        return f"not compared: {library} cannot read this tokenizer: {str(error).strip().splitlines()[0]}"
    for at, (ours, other) in enumerate(zip(inputs, theirs, strict=True)):
        how = input_difference(list(other), ours.tolist(), folder)
        if how:
            how = how.replace("recorded", f"by {library}").replace("now", "by raymill")
            raise ModelError(
                f"golden row {at}, {how}: the tokenizer.json that raymill reads gives another input than {library}",
                "save the base model's tokenizer again with save_pretrained(), so that its files say the same, and train again",
            )
    return f"the same ids as {library} for {len(texts)} rows"


def _as_tokens(before: int, after: int, folder: Path) -> str:
    path = folder / "tokenizer.json"
    if not path.is_file():
        return ""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    first, second = tokenizer.id_to_token(before), tokenizer.id_to_token(after)
    return f" (token {first!r} -> {second!r})"


def _score(value: float) -> str:
    return f"{value:.4f}"
