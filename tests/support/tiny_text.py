"""Short texts of three classes, and a spec that trains on them in seconds."""

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
FILLER = ["i", "really", "want", "a", "good", "new", "one", "for", "my", "home", "and", "it", "is", "here", "now", "so",
          "please", "tell", "me"]  # fmt: skip


def make_text_rows(count: int, seed: int) -> list[tuple[str, str]]:
    """Return (text, label) rows that a tiny model can learn: two words of the class among filler words."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        label = sorted(WORDS)[number % len(WORDS)]
        words = rng.choices(FILLER, k=rng.randint(2, 9)) + rng.choices(WORDS[label], k=2)
        rng.shuffle(words)
        rows.append((" ".join(words) + f" {number}", label))
    return rows


def write_csv(path: Path, rows: list[tuple[str, str]], header: tuple[str, str] = ("text", "label")) -> Path:
    """Write rows as csv and return the path."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def tiny_spec(base: Path, rows: Path, storage: Path, **sections: object) -> dict[str, object]:
    """Return a spec that trains in seconds on `rows`/train.csv and test.csv; `sections` replace whole sections."""
    return {
        "name": "tiny",
        "data": {"train": str(rows / "train.csv"), "test": str(rows / "test.csv")},
        "model": {"base": str(base)},
        "train": {"epochs": 6, "batch_size": 8, "learning_rate": 1e-3},
        "serve": {"engine": "native"},  # other engines take seconds to build; a test that needs one sets `serve.engine`
        "storage": str(storage),
        **sections,
    }


def write_spec(path: Path, spec: dict[str, object]) -> Path:
    """Write a spec as YAML and return the path."""
    path.write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
    return path
