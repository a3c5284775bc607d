"""Write the problems of the example: `sort:4731=` is to be answered with `1347`. A few come with the worked answer first."""

import json
import random
from pathlib import Path

FOLDER = Path(__file__).parent
N_WORKED, N_PROBLEMS = 400, 1200


def make_problems(seed: int = 1) -> list[dict[str, str]]:
    """Return different problems: lists of two to five digits, in any order, and the same digits in rising order."""
    draw, lists = random.Random(seed), {}
    while len(lists) < N_WORKED + N_PROBLEMS:
        lists["".join(draw.choices("0123456789", k=draw.randint(2, 5)))] = None
    return [{"prompt": f"sort:{digits}=", "completion": "".join(sorted(digits))} for digits in lists]


def write_rows(name: str, rows: list[dict[str, str]]) -> None:
    """Write rows as JSON Lines beside this file."""
    (FOLDER / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    problems = make_problems()
    write_rows("worked.jsonl", problems[:N_WORKED])
    write_rows("problems.jsonl", problems[N_WORKED:])
