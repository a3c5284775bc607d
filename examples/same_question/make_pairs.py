"""Make pairs of the messages in examples/support_tickets and label whether both ask for the same thing.

Writes train.csv, validation.csv and test.csv (columns: first, second, answer) into `data` beside this file. No
message is in two of the files.
"""

from __future__ import annotations

import argparse
import csv
import random
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).parent
SOURCE = HERE.parent / "support_tickets" / "data"
SEED = 5
# Intents whose messages use similar words. Half of the `different` pairs combine two of these.
CONFUSED = (
    ("order_status", "missing_parcel"),
    ("return_item", "refund_status"),
    ("refund_status", "unexpected_charge"),
    ("refund_status", "cancel_order"),
    ("cancel_order", "change_order"),
    ("wrong_item", "damaged_item"),
    ("wrong_item", "return_item"),
    ("wrong_item", "missing_parcel"),
    ("payment_declined", "account_access"),
    ("payment_declined", "unexpected_charge"),
    ("discount_code", "payment_declined"),
)

Messages = dict[str, list[str]]
Pair = tuple[str, str, str]


def read_messages(path: Path) -> Messages:
    """Return the messages by intent."""
    messages: Messages = defaultdict(list)
    with path.open(newline="", encoding="utf-8") as handle:
        for row in csv.DictReader(handle):
            messages[row["intent"]].append(row["message"])
    return messages


def split_messages(messages: Messages, share: float, rng: random.Random) -> tuple[Messages, Messages]:
    """Split the messages into two parts; the second holds the fraction `share` of every intent."""
    first, second = {}, {}
    for intent, texts in messages.items():
        shuffled = rng.sample(texts, len(texts))
        cut = round(share * len(texts))
        first[intent], second[intent] = shuffled[cut:], shuffled[:cut]
    return first, second


def make_pairs(messages: Messages, count: int, rng: random.Random) -> list[Pair]:
    """Return `count` distinct pairs in random order; half of them are labeled "same"."""
    intents = sorted(messages)
    seen: set[frozenset[str]] = set()
    pairs: list[Pair] = []
    while len(pairs) < count:
        answer = "same" if len(pairs) % 2 else "different"
        if answer == "same":
            first, second = rng.sample(messages[rng.choice(intents)], 2)
        else:
            intent_pair = rng.choice(CONFUSED) if len(pairs) % 4 else rng.sample(intents, 2)
            first, second = (rng.choice(messages[intent]) for intent in rng.sample(intent_pair, 2))
        if frozenset((first, second)) not in seen:
            seen.add(frozenset((first, second)))
            pairs.append((first, second, answer))
    rng.shuffle(pairs)
    return pairs


def write_pairs(path: Path, rows: list[Pair]) -> None:
    """Write the pairs to a csv file."""
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(("first", "second", "answer"))
        writer.writerows(rows)
    print(f"{path}: {len(rows):,} pairs")


def main() -> None:
    """Write the three files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "data", help="folder to write to")
    parser.add_argument("--train", type=int, default=5000, help="training pairs")
    options = parser.parse_args()
    rng = random.Random(SEED)
    training, validation = split_messages(read_messages(SOURCE / "train.csv"), 0.15, rng)
    options.out.mkdir(parents=True, exist_ok=True)
    write_pairs(options.out / "train.csv", make_pairs(training, options.train, rng))
    write_pairs(options.out / "validation.csv", make_pairs(validation, 200, rng))
    write_pairs(options.out / "test.csv", make_pairs(read_messages(SOURCE / "test.csv"), 300, rng))


if __name__ == "__main__":
    main()
