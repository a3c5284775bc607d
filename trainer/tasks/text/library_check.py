"""Whether transformers' own tokenizer gives the same token ids as raymill, which reads tokenizer.json alone."""

from __future__ import annotations

from importlib.metadata import version as installed
from pathlib import Path

import numpy as np

from cluster.errors import ModelError
from trainer.tasks.input_difference import input_difference


def compare(folder: Path, texts: list[list[str]], inputs: list[np.ndarray], max_length: int) -> str:
    """Hold `inputs` against those of transformers' own tokenizer for the same rows, cleaned as the model gets them.

    `texts` has a list for each text of a row: one, or two for pairs.

    Returns in a sentence what was compared: a folder without a transformers tokenizer, or with one that transformers
    cannot read, is served all the same. Raises `ModelError` naming row and field of the first difference.
    """
    if not texts[0]:
        return "not compared: cleaning changes every row again, so that none could be kept"
    if not (folder / "tokenizer_config.json").is_file():
        return "not compared: there is no tokenizer_config.json"
    from transformers import AutoTokenizer

    library = f"transformers {installed('transformers')}"
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        # As in `TextEncoder`: in a pair, what looks like a separator is text.
        special = {"split_special_tokens": True} if len(texts) > 1 else {}
        theirs = tokenizer(*texts, truncation=True, max_length=max_length, **special)["input_ids"]
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
    return f"the same ids as {library} for {len(texts[0])} rows"
