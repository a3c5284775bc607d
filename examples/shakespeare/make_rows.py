"""Cut a text into its first 90 %, to train on, and its last 10 %, to judge by: one row each.

python examples/shakespeare/make_rows.py [FOLDER]      (default: rows/ beside this file)

The text is the file that the environment variable SHAKESPEARE names; without it, text.txt beside this file.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
HELD_OUT = 0.1


def main(folder: Path) -> None:
    """Write `folder`/train.jsonl and `folder`/test.jsonl."""
    text = Path(os.environ.get("SHAKESPEARE") or HERE / "text.txt").read_text(encoding="utf-8")
    border = int(len(text) * (1 - HELD_OUT))
    folder.mkdir(parents=True, exist_ok=True)
    for part, own in (("train", text[:border]), ("test", text[border:])):
        (folder / f"{part}.jsonl").write_text(json.dumps({"text": own}) + "\n", encoding="utf-8")
    print(f"{border:,} characters in {folder / 'train.jsonl'}, {len(text) - border:,} in {folder / 'test.jsonl'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "rows")
