"""What the names of columns suggest about them."""

from __future__ import annotations

import re

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")

_TARGETS = {
    *("label", "labels", "target", "class", "category", "categories", "intent", "tag", "tags", "topic", "sentiment"),
    *("y", "outcome", "species", "answer", "verdict"),
}
# At the end of a longer name, these say less: product_category is often an input.
_WEAK_ENDINGS = {"category", "categories", "y", "answer", "species"}
_LIKELY_TARGETS = {
    *("churn", "churned", "survived", "default", "diagnosis", "fraud", "price", "stars", "rating", "score", "grade"),
    *("result", "response", "value", "progression", "quality", "approved", "sales"),
}
_RATINGS = {"stars", "rating", "score", "grade", "quality", "value"}
_IDS = {"id", "ids", "uuid", "guid", "key", "index", "idx", "rownum", "rowid", "unnamed", "hash", "sha"}
_TEXTS = {
    *("text", "message", "review", "body", "content", "sentence", "tweet", "question", "query", "claim", "document"),
    *("utterance", "prompt", "abstract", "title", "headline", "post"),
}
_PARTS = {"split", "part", "fold", "subset", "set", "partition"}


def name_words(name: str) -> list[str]:
    """Return the words of a column's name in lower case: "customerID" and "customer_id" are both customer, id."""
    return [word.lower() for word in _WORDS.findall(name)]


def target_hint(name: str) -> int:
    """Return how much a name sounds like what is predicted: 0 to 3."""
    words = name_words(name)
    if not words:
        return 0
    if len(words) == 1 and words[0] in _TARGETS:
        return 3
    if words[-1] in _TARGETS - _WEAK_ENDINGS:
        return 2
    return 1 if words[-1] in _LIKELY_TARGETS | _WEAK_ENDINGS or words[0] in ("is", "has") else 0


def is_rating_name(name: str) -> bool:
    """Whether a name sounds like a rating, whose few values are in order: stars, score."""
    return name_words(name)[-1:] != [] and name_words(name)[-1] in _RATINGS


def is_id_name(name: str) -> bool:
    """Whether a name sounds like an identifier; also a column without a name, as pandas writes its index."""
    words = name_words(name)
    return not words or words[-1] in _IDS or words[0] == "unnamed"


def is_text_name(name: str) -> bool:
    """Whether a name sounds like the text that is the input itself, not a note beside it."""
    words = name_words(name)
    return bool(words) and words[-1] in _TEXTS


def is_part_name(name: str) -> bool:
    """Whether a name sounds like the part (train, test) of each row."""
    words = name_words(name)
    return len(words) == 1 and words[0] in _PARTS
