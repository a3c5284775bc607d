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


def read(path: Path) -> Messages:
    """Return the messages by intent."""
    found: Messages = defaultdict(list)
    with path.open(newline="", encoding="utf-8") as handle:
        for row in csv.DictReader(handle):
            found[row["intent"]].append(row["message"])
    return found


def apart(messages: Messages, share: float, chance: random.Random) -> tuple[Messages, Messages]:
    """Split the messages into two parts; the second holds the fraction `share` of every intent."""
    first, second = {}, {}
    for intent, texts in messages.items():
        shuffled = chance.sample(texts, len(texts))
        cut = round(share * len(texts))
        first[intent], second[intent] = shuffled[cut:], shuffled[:cut]
    return first, second


def pairs(messages: Messages, count: int, chance: random.Random) -> list[Pair]:
    """Return `count` distinct pairs in random order; half of them are labeled "same"."""
    intents = sorted(messages)
    seen: set[frozenset[str]] = set()
    found: list[Pair] = []
    while len(found) < count:
        answer = "same" if len(found) % 2 else "different"
        if answer == "same":
            first, second = chance.sample(messages[chance.choice(intents)], 2)
        else:
            two = chance.choice(CONFUSED) if len(found) % 4 else chance.sample(intents, 2)
            first, second = (chance.choice(messages[intent]) for intent in chance.sample(two, 2))
        if frozenset((first, second)) not in seen:
            seen.add(frozenset((first, second)))
            found.append((first, second, answer))
    chance.shuffle(found)
    return found


def write(path: Path, rows: list[Pair]) -> None:
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
    given = parser.parse_args()
    chance = random.Random(SEED)
    training, validation = apart(read(SOURCE / "train.csv"), 0.15, chance)
    given.out.mkdir(parents=True, exist_ok=True)
    write(given.out / "train.csv", pairs(training, given.train, chance))
    write(given.out / "validation.csv", pairs(validation, 200, chance))
    write(given.out / "test.csv", pairs(read(SOURCE / "test.csv"), 300, chance))


if __name__ == "__main__":
    main()
