"""A reward of the example: part of the answer is right."""


def right_digits(prompt: str, answer: str, expected: str) -> float:
    """Return the share of the positions that have the right digit; an answer of another length loses."""
    right = sum(ours == theirs for ours, theirs in zip(answer, expected, strict=False))
    return right / max(len(answer), len(expected))
