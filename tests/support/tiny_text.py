"""Small real data and specs that the tests share."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import yaml

WORDS = {
    "fruit": ["apple", "pear", "plum", "cherry", "melon", "grape", "peach", "lemon", "mango", "fig"],
    "tool": ["hammer", "saw", "drill", "wrench", "pliers", "chisel", "file", "clamp", "level", "axe"],
    "animal": ["cat", "dog", "horse", "cow", "sheep", "goat", "duck", "hen", "pig", "mouse"],
}
FILLER = [
    "i",
    "really",
    "want",
    "a",
    "good",
    "new",
    "one",
    "for",
    "my",
    "home",
    "and",
    "it",
    "is",
    "here",
    "now",
    "so",
    "please",
    "tell",
    "me",
]


def make_text_rows(count: int, seed: int) -> list[tuple[str, str]]:
    """Return (text, label) rows that a tiny model can learn: each has two words of its class among filler."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        label = sorted(WORDS)[number % len(WORDS)]
        words = rng.choices(FILLER, k=rng.randint(2, 9)) + rng.choices(WORDS[label], k=2)
        rng.shuffle(words)
        rows.append((" ".join(words) + f" {number}", label))
    return rows


def write_csv(path: Path, rows: list[tuple[str, str]], header: tuple[str, str] = ("text", "label")) -> Path:
    """Write rows as csv."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def tiny_spec(base: Path, rows: Path, storage: Path, **sections: object) -> dict[str, object]:
    """Return a spec that trains in seconds."""
    return {
        "name": "tiny",
        "data": {"train": str(rows / "train.csv"), "test": str(rows / "test.csv")},
        "model": {"base": str(base)},
        "train": {"epochs": 6, "batch_size": 8, "learning_rate": 1e-3},
        "serve": {"engine": "native"},  # tests of engines ask for them: each takes seconds to build
        "storage": str(storage),
        **sections,
    }


def write_spec(path: Path, spec: dict[str, object]) -> Path:
    """Write a spec as YAML."""
    path.write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
    return path
