"""Comparison of raymill's token ids, made from tokenizer.json alone, with those of transformers' own tokenizer."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np

from cluster.errors import ModelError, first_line
from trainer.tasks.input_difference import input_difference


def compare_token_ids(folder: Path, texts: list[list[str]], inputs: list[np.ndarray], max_length: int) -> str:
    """Compare `inputs` with the token ids that transformers' tokenizer in `folder` gives the same cleaned rows.

    `texts` has one list of texts, or two lists for pairs. Returns a sentence that says what was compared. It is not an
    error if the folder has no transformers tokenizer, or one that transformers cannot read: serving does not need it.
    Raises `ModelError` naming row and field of the first difference.
    """
    if not texts[0]:
        return "not compared: no row could be stored, because cleaning changes every cleaned row once more"
    if not (folder / "tokenizer_config.json").is_file():
        return "not compared: there is no tokenizer_config.json"
    from transformers import AutoTokenizer

    library = f"transformers {version('transformers')}"
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        # As in `TextEncoder`: in a pair, a literal `[SEP]` inside a text must not count as a separator.
        special = {"split_special_tokens": True} if len(texts) > 1 else {}
        theirs = tokenizer(*texts, truncation=True, max_length=max_length, **special)["input_ids"]
    except Exception as error:  # transformers raises many types, including ImportError and plain Exception
        return f"not compared: {library} cannot read this tokenizer: {first_line(error)}"
    for row, (ours, expected) in enumerate(zip(inputs, theirs, strict=True)):
        difference = input_difference(list(expected), ours.tolist(), folder)
        if difference:
            difference = difference.replace("recorded", f"by {library}").replace("now", "by raymill")
            raise ModelError(
                f"golden row {row}, {difference}: raymill (by tokenizer.json) and {library} make different inputs",
                "save the base model's tokenizer again with save_pretrained(), so that its files agree; train again",
            )
    return f"the same ids as {library} for {len(texts[0])} rows"
